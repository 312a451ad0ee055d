"""Calls that do not multiply and accumulate: normalizations, softmax, reductions, element-wise functions, movement of data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec

from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS, Dim, Operator, Rank, Tensor, Term

from .calls import Call, Info, Ref, Step, Unknown, fixed, rank
from .layouts import Layout, build, names, of, operator, rows

Rule = Callable[[Call], list[Step]]


def elementwise(function: str) -> Rule:
    """One operation, or `function`'s number of them, per element of the result; every tensor of the call is an operand."""

    def rule(call: Call) -> list[Step]:
        indices = [at for at, each in enumerate(call.tensors) if each.words]
        operands = [call.tensors[at] for at in indices]
        if not call.result.words:
            return []
        return [Step(operator(function, call.result, operands), names(indices))]

    return rule


def made(call: Call) -> list[Step]:
    """A tensor that is made from nothing."""
    return [Step(operator("copy", call.result, ()), {})] if call.result.words else []


def gather(call: Call) -> list[Step]:
    """``embedding(table, ids)``: its operand is the rows that are read, not the table."""
    table, ids, columns = call.tensor(0), call.tensor(1), call.result.shape[-1]
    total = math.prod(ids.shape)
    found = Operator(
        dims=(Dim("P", total), Dim("K", columns)),
        tensors=(
            Tensor(WEIGHTS, (rank("P"), rank("K")), table.bits, static=table.static),
            Tensor("Index", (rank("P", None if ids.words == total else ids.words),), ids.bits),
            Tensor(OUTPUTS, (rank("P"), rank("K")), call.result.bits),
        ),
        function="gather",
    )
    return [Step(found, {WEIGHTS: _index(call, 0), "Index": _index(call, 1)})]


def concatenate(call: Call) -> list[Step]:
    """``cat(tensors, axis)``: operands one after another, each zero outside of its own extent."""
    refs = [each for each in call.argument(0, "tensors") if isinstance(each, Ref) and call.tensors[each.at].words]
    parts = [call.tensors[each.at] for each in refs]
    result = call.result
    at = call.argument(1, "dim", 0) % len(result.shape)
    layout = Layout(result.shape, image=result.image or any(each.image for each in parts), split=at == 0 and len(result.shape) > 2)
    dim = layout.axes[at]
    whole = layout.axes.count(dim) == 1
    operands, start = [], 0
    for part in parts:
        sizes = {each: layout.dims[each] for each in layout.dims}
        ranks = tuple(rank(each, part.shape[at], -start) if each == dim else rank(each) for each in sizes)
        operands.append((part, ranks if whole and len(parts) > 1 else None if len(parts) > 1 else tuple(rank(each) for each in sizes)))
        start += part.shape[at]
    output = Tensor(OUTPUTS, tuple(rank(each) for each in layout.dims), result.bits)
    return [Step(build("copy", layout.dims, operands, output), names([each.at for each in refs]))]


def along(call: Call) -> list[Step]:
    """``gather(x, axis, index)``: elements of `x` by an index along an axis; all of `x` counts as read."""
    x, index, result = call.tensor(0), call.tensor(2), call.result
    layout = of(result, [result])
    axes = layout.axes[len(layout.axes) - len(x.shape) :]
    if len(x.shape) > len(layout.axes) or len(set(axes)) != len(axes):
        return elementwise("copy")(call)
    ranks = tuple(rank(axis, extent) for axis, extent in zip(axes, x.stored, strict=True) if extent > 1)
    output = Tensor(OUTPUTS, tuple(rank(dim) for dim in layout.dims), result.bits)
    found = build("copy", layout.dims, [(x, ranks), (index, layout.ranks(index))], output)
    return [Step(found, names([_index(call, 0), _index(call, 2)]))]


def upsample(call: Call) -> list[Step]:
    """``upsample_nearest2d(x, sides, ...)``: each element copied into its window, where the windows are all alike."""
    x, result = call.tensor(0), call.result
    factors = [-(-out // side) for out, side in zip(result.shape[-2:], x.shape[-2:], strict=True)]
    if len(x.shape) != 4 or any(
        -(-out // factor) != side for out, factor, side in zip(result.shape[-2:], factors, x.shape[-2:], strict=True)
    ):
        return elementwise("copy")(call)
    n, k, q, p = x.shape
    dims = {"N": n, "K": k, "Q": q, "P": p, "S": factors[0], "R": factors[1]}
    sides = [
        Rank((Term(dim, factor), Term(tap)), extent=None if side * factor == out else out)
        for dim, tap, factor, side, out in zip(("Q", "P"), ("S", "R"), factors, (q, p), result.shape[-2:], strict=True)
    ]
    output = Tensor(OUTPUTS, (rank("N"), rank("K"), *sides), result.bits)
    return [Step(build("copy", dims, [(x, tuple(rank(dim) for dim in ("N", "K", "Q", "P")))], output), {INPUTS: _index(call, 0)})]


def softmax(call: Call) -> list[Step]:
    """``_softmax(x, axis, ...)``."""
    x = call.tensor(0)
    layout = of(call.result, [x])
    axis = layout.axes[call.argument(1, "dim") % len(x.shape)] if x.shape else "P"
    return [Step(operator("softmax", call.result, [x], reduced=(axis,), layout=layout), {INPUTS: _index(call, 0)})]


def layer_norm(call: Call) -> list[Step]:
    """``native_layer_norm(x, shape, weight, bias, epsilon)``."""
    x, columns = call.tensor(0), math.prod(call.argument(1, "normalized_shape"))
    return [_normalized("layernorm", x, call.result, rows(x.shape, columns), columns, call, (2, 3))]


def rms_norm(call: Call) -> list[Step]:
    """``_fused_rms_norm(x, shape, weight, epsilon)``: its scale is no operand, as everywhere."""
    x, columns = call.tensor(0), math.prod(call.argument(1, "normalized_shape"))
    step = _normalized("rmsnorm", x, call.result, rows(x.shape, columns), columns, call, ())
    weight = call.argument(2, "weight")
    return [step._replace(also=(weight.at,) if isinstance(weight, Ref) else ())]


def composite(function: str, x: Info, result: Info) -> Operator:
    """A module of many calls that is one function: over the last axis where it normalizes."""
    if function == "rmsnorm":
        columns = x.shape[-1]
        dims = {"P": rows(x.shape, columns), "K": columns}
        ranks = tuple(rank(dim) for dim in dims)
        return build(function, dims, [(x, ranks)], Tensor(OUTPUTS, ranks, result.bits), ("K",))
    return operator(function, result, [x])


def _normalized(function: str, x: Info, result: Info, p: int, k: int, call: Call, vectors: Sequence[int]) -> Step:
    dims, ranks = {"P": p, "K": k}, (rank("P"), rank("K"))
    found = build(function, dims, [(x, ranks)], Tensor(OUTPUTS, ranks, result.bits), ("K",))
    operands, tensors = {INPUTS: _index(call, 0)}, [found.tensors[0]]
    for name, position in zip(("Scale", "Shift"), vectors, strict=False):
        value = call.argument(position, "")
        if isinstance(value, Ref):
            info = call.tensors[value.at]
            tensors.append(Tensor(name, (rank("K"),), info.bits, static=info.static))
            operands[name] = value.at
    return Step(msgspec.structs.replace(found, tensors=(*tensors, found.tensors[-1])), operands)


def group_norm(call: Call) -> list[Step]:
    """``native_group_norm(x, weight, bias, batch, channels, pixels, groups, epsilon)``: a layer normalization of every group."""
    x = call.tensor(0)
    batch, channels, pixels, groups = (call.argument(at, "") for at in (3, 4, 5, 6))
    per = channels // groups
    dims = {"N": batch, "G": groups, "H": per, "K": pixels}
    ranks = tuple(rank(dim) for dim in dims)
    found = build("layernorm", dims, [(x, ranks)], Tensor(OUTPUTS, ranks, call.result.bits), ("H", "K"))
    vector = (Rank((Term("G", per), Term("H"))),)
    tensors, operands = [found.tensors[0]], {INPUTS: _index(call, 0)}
    for name, position in (("Scale", 1), ("Shift", 2)):
        value = call.argument(position, "")
        if isinstance(value, Ref):
            info = call.tensors[value.at]
            tensors.append(Tensor(name, vector, info.bits, static=info.static))
            operands[name] = value.at
    return [Step(msgspec.structs.replace(found, tensors=(*tensors, found.tensors[-1])), operands)]


def batch_norm(call: Call) -> list[Step]:
    """``batch_norm(x, weight, bias, mean, variance, ...)`` at inference: its vectors are folded in, no operands."""
    x = call.tensor(0)
    also = tuple(value.at for value in call.arguments[1:3] if isinstance(value, Ref))
    layout = Layout(x.shape, image=len(x.shape) == 4)
    return [Step(operator("batchnorm", call.result, [x], layout=layout), {INPUTS: _index(call, 0)}, also)]


def reduction(function: str) -> Rule:
    """One operation per element of the first tensor; the axes that go are reduced, where the call says which."""

    def rule(call: Call) -> list[Step]:
        x = call.tensor(0)
        layout = of(x, [x])
        axes = _axes(call, len(x.shape))
        gone = {layout.axes[axis] for axis in axes} if layout.axes else set()
        if call.result.words == x.words:
            gone = set()
        merged = any(layout.axes.count(dim) > sum(layout.axes[axis] == dim for axis in axes) for dim in gone)
        left = [dim for dim in layout.dims if dim not in gone]
        size = math.prod(layout.dims[dim] for dim in left)
        total = call.result.words
        bits = sum(each.bits for each in call.results if each.words == total)
        kept: tuple[Rank, ...] = tuple(rank(dim) for dim in left)
        if merged or total % size:
            gone, kept = set(), fixed((total,))
        elif total // size > 1:
            kept = (*kept, Rank((), extent=total // size))
        ranks = tuple(rank(dim) for dim in layout.dims)
        reduced = tuple(dim for dim in layout.dims if dim in gone)
        return [Step(build(function, layout.dims, [(x, ranks)], Tensor(OUTPUTS, kept, bits), reduced), {INPUTS: _index(call, 0)})]

    return rule


#: Position of the axis among the arguments, where it is not the second one; and reductions that work along the last axis by default.
_AXIS = {"topk": 2, "histc": 9}
_LAST = ("topk", "sort", "argsort")


def _axes(call: Call, count: int) -> list[int]:
    """Axes that a reduction removes or works along; all where it does not say."""
    name = call.name.split(".")[1]
    said = dict(call.keywords).get("dim", call.argument(_AXIS.get(name, 1), "", -1 if name in _LAST else None))
    values = said if isinstance(said, tuple) else (said,)
    if not values or any(isinstance(value, bool) or not isinstance(value, int) for value in values):
        return list(range(count))
    return [value % count for value in values] if count else []


def pick(call: Call) -> list[Step]:
    """``index(x, (rows,))``: rows of `x` in the order of an index; other ways of indexing are element by element."""
    x, chosen = call.tensor(0), call.argument(1, "indices")
    plain = isinstance(chosen, tuple) and len(chosen) == 1 and isinstance(chosen[0], Ref)
    if not plain or len(call.tensors[chosen[0].at].shape) != 1 or not x.shape or len(x.shape) > 2:
        return elementwise("copy")(call)
    index, result = call.tensors[chosen[0].at], call.result
    dims = dict(zip(("P", "K"), result.shape, strict=False))
    extent = None if x.shape[0] == result.shape[0] else x.shape[0]
    others = tuple(rank(dim) for dim in dims if dim != "P")
    found = Operator(
        dims=tuple(Dim(name, bound) for name, bound in dims.items()),
        tensors=(
            Tensor(INPUTS, (rank("P", extent), *others), x.bits, static=x.static),
            Tensor("Index", (rank("P"),), index.bits),
            Tensor(OUTPUTS, (rank("P"), *others), result.bits),
        ),
        function="copy",
    )
    return [Step(found, {INPUTS: _index(call, 0), "Index": chosen[0].at})]


def _index(call: Call, position: int) -> int:
    value = call.argument(position, "")
    if not isinstance(value, Ref):
        raise Unknown(f"{call.name}: argument {position} is {value!r}, expected a tensor")
    return value.at
