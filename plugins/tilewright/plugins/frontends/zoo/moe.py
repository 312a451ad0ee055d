"""A mixture-of-experts layer, with its routing as the reference implementation does it.

Which experts a token goes to depends on its data. Balanced routing is assumed: the ``tokens x active`` rows are spread
over as many experts as possible, as evenly as possible. Experts without rows are neither run nor read.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS, Operator, Rank, Tensor, batched_matmul, elementwise

from .graph import Graph
from .layers import ID_BITS, broadcast, convert, linear, pointwise, rank

#: The router works in single precision whatever the model's word is.
ROUTER_BITS = 32


def mixture(graph: Graph, module: str, x: str, tokens: int, d: int, ffn: int, experts: int, active: int) -> str:
    """Route each token to `active` of `experts` gated feed-forward layers and add up their weighted results."""
    at, rows = f"{module}.experts", tokens * active
    weights, chosen = _route(graph, module, x, tokens, d, experts, active)
    order = _reduce(graph, at, {"P": rows}, chosen, (), bits=ID_BITS, result_bits=2 * ID_BITS)
    owner = pointwise(graph, at, "copy", {"P": rows}, order, bits=ID_BITS)
    picked = _pick(graph, at, {"P": rows, "K": d}, x, owner, graph.bits, stored=tokens)
    scale = _pick(graph, at, {"P": rows}, weights, order, ROUTER_BITS)
    ends = _ends(graph, at, order, rows, experts)
    wide = {"P": rows, "K": ffn}
    y, *others = _grouped(graph, at, "gate_up_proj", picked, ends, rows, d, 2 * ffn, experts)
    gate = pointwise(graph, f"{at}.act_fn", "silu", wide, y, also=others)
    gated = pointwise(graph, at, "mul", wide, gate, y, also=others)
    parts = _grouped(graph, at, "down_proj", gated, ends, rows, ffn, d, experts)
    return _gather(graph, at, parts, scale, order, tokens, active, d)


def _route(graph: Graph, module: str, x: str, tokens: int, d: int, experts: int, active: int) -> tuple[str, str]:
    """Normalized weights and numbers of the chosen experts, ``[tokens, active]`` each."""
    at, shape = f"{module}.gate", {"P": tokens, "K": experts}
    logits = convert(graph, at, shape, linear(graph, at, x, tokens, d, experts, bias=False), graph.bits, ROUTER_BITS)
    chances = pointwise(graph, at, "softmax", shape, logits, reduced=("K",), bits=ROUTER_BITS)
    # One word of the result is a value together with its 64-bit index.
    best = _reduce(graph, at, shape, chances, ("K",), bits=ROUTER_BITS, result_bits=ROUTER_BITS + ID_BITS, keep=active)
    shape = {"P": tokens, "K": active}
    total = _reduce(graph, at, shape, best, ("K",), bits=ROUTER_BITS)
    return broadcast(graph, at, "elementwise", shape, best, total, ("P",), bits=ROUTER_BITS), best


def _ends(graph: Graph, module: str, order: str, rows: int, experts: int) -> str:
    """Where each expert's rows end: counted, then summed up."""
    narrow = convert(graph, module, {"P": rows}, order, ID_BITS, ROUTER_BITS)
    counts = _reduce(graph, module, {"P": rows}, narrow, ("P",), bits=ROUTER_BITS, keep=experts)
    return _reduce(graph, module, {"K": experts}, counts, (), bits=ROUTER_BITS)


def _grouped(graph: Graph, module: str, weight: str, x: str, ends: str, rows: int, c: int, k: int, experts: int) -> list[str]:
    """One product per expert that has rows; where they are not all alike, experts with one more row are a node of their own."""
    parameter = graph.parameter(f"{module}.{weight}", experts, c, k)
    share, more = divmod(rows, experts)
    results: list[str] = []
    for g, p in ((more, share + 1), (experts - more, share)):
        if g and p:
            operator = batched_matmul(g=g, p=p, c=c, k=k, bits=graph.bits)
            static = msgspec.structs.replace(operator.tensors[0], static=True)
            operator = msgspec.structs.replace(operator, tensors=(static, *operator.tensors[1:]))
            results.append(graph.add(module, operator, {INPUTS: x, WEIGHTS: parameter}, also=(ends,)))
    return results


def _gather(graph: Graph, module: str, parts: list[str], scale: str, order: str, tokens: int, active: int, d: int) -> str:
    """Weigh the rows, put them back in token order, and add those of one token."""
    rows = tokens * active
    base = elementwise("mul", {"P": rows, "K": d}, operands=2, bits=graph.bits)
    vector, result = Tensor(f"{INPUTS}2", (rank("P"),), ROUTER_BITS), msgspec.structs.replace(base.tensors[2], bits=ROUTER_BITS)
    operator = msgspec.structs.replace(base, tensors=(base.tensors[0], vector, result))
    weighted = graph.add(module, operator, {INPUTS: parts[0], f"{INPUTS}2": scale}, also=parts[1:])
    counted = graph.add(module, elementwise("copy", {"P": rows}, operands=0, bits=ID_BITS), {})
    # Inverts the order: the old values, the indices and the new values are read.
    inverse = graph.add(
        module,
        elementwise("copy", {"P": rows}, operands=3, bits=ID_BITS),
        {INPUTS: order, f"{INPUTS}2": counted, f"{INPUTS}3": order},
    )
    back = _pick(graph, module, {"P": rows, "K": d}, weighted, inverse, ROUTER_BITS)
    total = _reduce(graph, module, {"P": tokens, "H": active, "K": d}, back, ("H",), bits=ROUTER_BITS)
    return convert(graph, module, {"P": tokens, "K": d}, total, ROUTER_BITS, graph.bits)


def _pick(graph: Graph, module: str, shape: dict[str, int], x: str, index: str, bits: int, *, stored: int | None = None) -> str:
    """Rows of `x` (it has `stored` of them; None: as many as are picked) in the order of `index`."""
    others = tuple(rank(dim) for dim in shape if dim != "P")
    operator = Operator(
        dims=elementwise("copy", shape).dims,
        tensors=(
            Tensor(INPUTS, (rank("P", stored), *others), bits),
            Tensor("Index", (rank("P"),), ID_BITS),
            Tensor(OUTPUTS, (rank("P"), *others), bits),
        ),
        function="copy",
    )
    return graph.add(module, operator, {INPUTS: x, "Index": index})


def _reduce(
    graph: Graph,
    module: str,
    shape: dict[str, int],
    x: str,
    reduced: Sequence[str],
    *,
    bits: int,
    result_bits: int = 0,
    keep: int = 0,
) -> str:
    """One operation per element of `x`; the `reduced` dims leave `keep` values, or none."""
    base = elementwise("reduce", shape, reduced=tuple(reduced), bits=bits)
    ranks = [rank(dim) for dim in shape if dim not in reduced]
    if keep:
        ranks.append(Rank((), extent=keep))
    result = Tensor(OUTPUTS, tuple(ranks), result_bits or bits)
    return graph.add(module, msgspec.structs.replace(base, tensors=(base.tensors[0], result)), {INPUTS: x})
