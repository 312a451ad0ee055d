"""Operations and bytes of one operator (Section 2 of the paper).

For `l` tokens, width `d`, `h` heads and a feed-forward width of `4 d`, the non-linear operators of a layer come to
``4 h l^2 + 58 l d`` operations and ``2 h l^2 + 17 l d + 5 d`` bytes: that follows from the printed sums. How the sums are
spread over softmax, GELU, normalizations and residuals is not printed; the spread in `_PER_ELEMENT` is one of many.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from tilewright.protocol.profile import ATTENTION, CONVOLUTION, FEED_FORWARD, PROJECTION
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS, Operator

PROJECTIONS, ACT_TO_ACT, FFN, OTHER = "MHA projections", "act-to-act", "FFN", "other"
CONV, NORM, RELU = "convolution", "batch norm", "ReLU"
#: Function -> (operations, bytes read, bytes written) per element of its result, and parameter vectors.
_PER_ELEMENT = {
    "softmax": (4.0, 1.0, 1.0, 0.0),
    "gelu": (10.0, 1.0, 1.0, 0.0),
    "layernorm": (8.0, 1.0, 1.0, 2.5),
    "add": (1.0, 1.5, 1.0, 0.0),
}


class Site(NamedTuple):
    """An operator and what its surroundings say about it."""

    operator: Operator
    kind: str
    #: Part of a transformer.
    transformer: bool
    #: Batch normalizations and ReLUs cost no traffic.
    fused: bool
    #: A product that mixes values: its first operand comes from a softmax.
    mixes: bool
    #: Its result goes into an activation or a softmax.
    activated: bool
    #: A projection of what an attention has mixed.
    closes: bool

    @property
    def products(self) -> int:
        """Products that a fused one stands for: queries, keys and values."""
        bounds = self.operator.bounds
        joined = self.kind == PROJECTION and not self.activated and bounds["K"] == 3 * bounds["C"]
        return 3 if joined else 1

    @property
    def decodes(self) -> bool:
        """A product of activations for one token."""
        return self.kind == ATTENTION and self.operator.bounds["P"] * self.operator.bounds.get("H", 1) == 1


def count(site: Site) -> tuple[str, float, float, float]:
    """Class, operations, bytes read, bytes written."""
    operator = site.operator
    if not operator.is_contraction:
        return _nonlinear(site)
    inputs, weights, outputs = (float(operator.elements(name)) for name in (INPUTS, WEIGHTS, OUTPUTS))
    if site.kind == ATTENTION:
        return _activations(site, inputs, weights, outputs)
    name = {PROJECTION: PROJECTIONS, FEED_FORWARD: FFN, CONVOLUTION: CONV}.get(site.kind, OTHER)
    return name, 2.0 * operator.macs, site.products * inputs + weights, outputs


def _activations(site: Site, inputs: float, weights: float, outputs: float) -> tuple[str, float, float, float]:
    """A product of activations.

    While decoding the printed sums are those of ``t - 1`` additions for `t` tokens in both products, and of reading the scores
    (but not writing them) with one `d` more.
    """
    bounds = site.operator.bounds
    if not site.decodes:
        return ACT_TO_ACT, 2.0 * site.operator.macs - outputs, inputs + weights, outputs
    if site.mixes:
        return ACT_TO_ACT, 2.0 * site.operator.macs - outputs, outputs + weights, outputs
    return ACT_TO_ACT, 2.0 * site.operator.macs - bounds.get("G", 1) * bounds["C"], inputs + weights, outputs


def _nonlinear(site: Site) -> tuple[str, float, float, float]:
    operator = site.operator
    result = float(operator.elements(OUTPUTS))
    if site.transformer and operator.function in _PER_ELEMENT:
        flops, read, written, vectors = _PER_ELEMENT[operator.function]
        wide = vectors * math.prod(operator.bounds[dim] for dim in operator.reduced_dims)
        return OTHER, flops * result, read * result + wide, written * result
    name = {"batchnorm": NORM, "relu": RELU}.get(operator.function, OTHER)
    read = float(sum(operator.elements(tensor.name) for tensor in operator.tensors if tensor.name != operator.output))
    if site.fused and name in (NORM, RELU):
        return name, float(operator.flops) if name == RELU else 0.0, 0.0, 0.0
    return name, float(operator.flops), read, result
