"""The analytical latency model (Section 3.3 and Figure 11 of the paper), as its printed results imply it.

Operands are 8 bit wide; results are 32 bit wide where a non-linear operator reads them. The rows of a product are tiled at
1024, so its second operand is read ``max(1, rows / 1024)`` times; its columns at `COLUMNS`, so the first operand is read once
per tile of them. Scales and shifts of normalizations are 32 bit wide. That reproduces all 21 values of Table 5.

An operation takes as long as the slower of its arithmetic and its bytes, which go over both buses, one after the other; a pass
of the array takes 16 cycles, however few rows it has. Products of queries and keys read their operands anew for every
`LOCAL_ROWS` rows from the second-level cache (the others are bound by arithmetic anyway). That reproduces the 18 ratios of
Figure 32, those of BERT-Large without one of its projections, as in the paper's other figures.
"""

from __future__ import annotations

from tilewright.protocol.profile import ATTENTION, CONVOLUTION
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS

from .counts import Site

#: Rows and columns of the multiplier array; cycles of one pass of 16 rows through it; lanes of the special function unit.
ARRAY = 16
#: Rows of a product between two readings of its second operand from external memory, and of a key from the cache.
ROWS, LOCAL_ROWS = 1024, 256
#: Any tile from 439 to 511 columns gives Table 5.
COLUMNS = 480
#: Bytes per cycle: external memory to second-level cache, and on to the scratchpad.
EXTERNAL, LOCAL = 64.0, 16.0
#: Functions that read the 32-bit results of products.
_WIDE_INPUTS = ("softmax", "gelu", "layernorm", "batchnorm")
#: Bytes of a result that a non-linear operator reads.
WIDE = 4.0


def external_bytes(site: Site) -> float:
    """Bytes over the external bus."""
    return _bytes(site, ROWS)


def _bytes(site: Site, rows: int) -> float:
    operator = site.operator
    inputs, outputs = float(operator.elements(INPUTS)), float(operator.elements(OUTPUTS))
    if not operator.is_contraction:
        return _nonlinear(site, outputs)
    weights = float(operator.elements(WEIGHTS))
    if site.kind == CONVOLUTION:
        return inputs + weights + outputs * (1.0 if site.fused else WIDE)
    bounds = operator.bounds
    again = max(1.0, bounds["P"] / rows)
    if site.kind == ATTENTION:
        return (inputs if site.mixes else again * inputs) + again * weights + outputs * (1.0 if site.mixes else WIDE)
    tiles = site.products * -(-bounds["K"] // site.products // COLUMNS)
    wide = site.activated or site.closes
    return tiles * inputs + again * weights + outputs * (WIDE if wide else 1.0)


def _nonlinear(site: Site, outputs: float) -> float:
    function = site.operator.function
    if site.fused and function in ("batchnorm", "relu"):
        return 0.0
    if function not in _WIDE_INPUTS:
        return float(sum(site.operator.elements(tensor.name) for tensor in site.operator.tensors))
    vectors = 2 * WIDE * site.operator.bounds["K"] if function == "layernorm" else 0.0  # scale and shift, 32 bit wide
    return (WIDE + 1.0) * outputs + vectors


def latency(site: Site, moved: float) -> float:
    """Cycles."""
    operator, bounds = site.operator, site.operator.bounds
    if site.fused and operator.function in ("batchnorm", "relu"):
        return 0.0
    if operator.is_contraction:
        rows = bounds["P"] * bounds.get("Q", 1) * bounds.get("N", 1) * bounds.get("H", 1)
        depth = bounds.get("C", 1) * bounds.get("R", 1) * bounds.get("S", 1)
        tiles = -(-depth // ARRAY) * -(-bounds.get("K", 1) // ARRAY)
        busy = float(ARRAY * -(-rows // ARRAY) * tiles * bounds.get("G", 1))
    else:
        busy = float(-(-operator.elements(OUTPUTS) // ARRAY))
    scores = site.kind == ATTENTION and not site.mixes
    return max(busy, moved / EXTERNAL + (_bytes(site, LOCAL_ROWS) if scores else moved) / LOCAL)
