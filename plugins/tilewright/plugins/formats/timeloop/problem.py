"""Timeloop problems: v0.3/v0.4 shapes with projections, and the older flat form of a convolution."""

from __future__ import annotations

from typing import Any

from tilewright.protocol.errors import InvalidOperator
from tilewright.protocol.workload import OUTPUTS, WEIGHTS, Dim, Operator, Rank, Tensor, Term, conv2d

from .marked import MarkedDict

_CONVOLUTION = "RSPQCKN"


def operator(top: MarkedDict) -> Operator:
    """The operator of a document with ``problem``."""
    problem = top.map("problem")
    shape = problem.get("shape", "cnn-layer")
    try:
        if isinstance(shape, MarkedDict):
            return _projected(problem, shape)
        return _convolution(problem, str(shape))
    except InvalidOperator as error:
        raise problem.error(str(error)) from error


def _convolution(problem: MarkedDict, shape: str) -> Operator:
    """The built-in 7-dim convolution."""
    if shape.replace("_", "-").lower() not in ("cnn-layer", "cnn", "cnn-layer.yaml"):
        raise problem.error(f"shape: {shape!r}, expected 'cnn-layer' or a shape with dimensions and data spaces", "shape")
    values = problem.map("instance") if "instance" in problem else problem
    bounds: dict[str, Any] = {name.lower(): values.count(name, 1) for name in _CONVOLUTION}
    return conv2d(
        **bounds,
        stride=(values.count("Wstride", 1), values.count("Hstride", 1)),
        dilation=(values.count("Wdilation", 1), values.count("Hdilation", 1)),
    )


def _projected(problem: MarkedDict, shape: MarkedDict) -> Operator:
    """A shape that states dimensions, coefficients and the projection of each data space."""
    instance = problem.map("instance")
    dims = shape.names("dimensions")
    if not dims:
        raise shape.error("shape: has no dimensions")
    coefficients = {}
    for item in shape.maps("coefficients"):
        name = item.text("name")
        coefficients[name] = instance.count(name) if name in instance else item.count("default", 1)
    tensors = []
    output = ""
    for space in (*shape.maps("data_spaces"), *shape.maps("data_space")):
        name = space.text("name")
        projection = space.get("projection", [])
        if not isinstance(projection, list):
            raise space.error(f"projection: {projection!r}, expected a list of ranks", "projection")
        ranks = tuple(_rank(space, item, dims, coefficients) for item in projection)
        tensors.append(Tensor(name, ranks, static=name == WEIGHTS))
        if space.get("read_write", False):
            if output:
                raise space.error(f"data space {name}: a second read-write one after {output}, expected one")
            output = name
    if not output:
        raise shape.error("shape: no data space is read-write, expected one (the result)")
    tensors.sort(key=lambda tensor: tensor.name == output)
    return Operator(tuple(Dim(dim, instance.count(dim, 1)) for dim in dims), tuple(tensors), output=output or OUTPUTS)


def _rank(space: MarkedDict, item: Any, dims: tuple[str, ...], coefficients: dict[str, int]) -> Rank:
    """One rank: a sum of products ``[dim]`` or ``[dim, coefficient]``."""
    products = item if isinstance(item, list) and item and isinstance(item[0], list) else [item if isinstance(item, list) else [item]]
    terms = []
    for product in products:
        if not isinstance(product, list) or not product:
            raise space.error(f"projection: {product!r}, expected [dim] or [dim, coefficient]", "projection")
        dim, *factors = (str(part) for part in product)
        if dim not in dims:
            raise space.error(f"projection: dim {dim!r} is not one of {', '.join(dims)}", "projection")
        unknown = [factor for factor in factors if factor not in coefficients and not factor.isdigit()]
        if len(factors) > 1 or unknown:
            raise space.error(f"projection: {product}, expected [dim] or [dim, coefficient]", "projection")
        terms.append(Term(dim, (coefficients[factors[0]] if factors[0] in coefficients else int(factors[0])) if factors else 1))
    return Rank(tuple(terms))
