"""Calls that multiply and accumulate: matrix products, attention, experts."""

from __future__ import annotations

import msgspec

from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS, Operator, Rank, Tensor, batched_matmul, elementwise, matmul

from .calls import Call, Info, Ref, Step, Unknown, rank


def mm(call: Call) -> list[Step]:
    """``mm(a, b)``."""
    return [_product(call, 0, 1)]


def addmm(call: Call) -> list[Step]:
    """``addmm(bias, a, b)``: a vector that is trained is the product's bias; anything else is added afterwards."""
    product, bias = _product(call, 1, 2), call.tensor(0)
    if bias.static and len(bias.shape) == 1:
        operator = msgspec.structs.replace(product.operator, bias_bits=bias.bits)
        return [Step(operator, product.operands, (_index(call, 0),))]
    p, k = call.result.shape
    add = elementwise("add", {"P": p, "K": k}, operands=2, bits=call.result.bits)
    if len(bias.shape) < 2 or 1 in bias.stored:
        kept = tuple(rank(dim) for dim, extent in zip(("P", "K")[-len(bias.shape) :], bias.stored, strict=True) if extent > 1)
        add = msgspec.structs.replace(add, tensors=(add.tensors[0], msgspec.structs.replace(add.tensors[1], ranks=kept), add.tensors[2]))
    return [product, Step(add, {INPUTS: ~0, f"{INPUTS}2": _index(call, 0)})]


def mv(call: Call) -> list[Step]:
    """``mv(matrix, vector)``, ``dot(vector, vector)``: products with a single column."""
    a, b = call.tensor(0), call.tensor(1)
    p, c = (1, a.shape[0]) if len(a.shape) == 1 else a.shape
    return [
        _matmul(call, (0, 1) if not a.static else (1, 0), (p if not a.static else 1), c, (1 if not a.static else p), a.static or b.static)
    ]


def _product(call: Call, first: int, second: int) -> Step:
    a, b = call.tensor(first), call.tensor(second)
    (p, c), (_, k) = a.shape, b.shape
    if a.static and not b.static:  # the transposed product: the trained operand is the second one
        return _matmul(call, (second, first), k, c, p, True)
    return _matmul(call, (first, second), p, c, k, b.static)


def _matmul(call: Call, order: tuple[int, int], p: int, c: int, k: int, static: bool) -> Step:
    operator = _typed(matmul(p=p, c=c, k=k, static=static), call.tensor(order[0]), call.tensor(order[1]), call.result)
    return Step(operator, {INPUTS: _index(call, order[0]), WEIGHTS: _index(call, order[1])})


def _typed(operator: Operator, inputs: Info, weights: Info, result: Info) -> Operator:
    """With the words of the call's tensors."""
    bits = {INPUTS: inputs.bits, WEIGHTS: weights.bits, OUTPUTS: result.bits}
    return msgspec.structs.replace(
        operator, tensors=tuple(msgspec.structs.replace(tensor, bits=bits[tensor.name]) for tensor in operator.tensors)
    )


def _index(call: Call, position: int) -> int:
    value = call.arguments[position]
    assert isinstance(value, Ref)
    return value.at


def bmm(call: Call) -> list[Step]:
    """``bmm(a, b)``."""
    return [_batched(call, 0, 1)]


def baddbmm(call: Call) -> list[Step]:
    """``baddbmm(bias, a, b)``."""
    product, result = _batched(call, 1, 2), call.result
    bias = call.tensor(0)
    dims = dict(zip(("G", "P", "K"), result.shape, strict=True))
    add = elementwise("add", dims, operands=2, bits=result.bits)
    names = tuple(dims)[-len(bias.shape) :] if bias.shape else ()
    kept = tuple(rank(dim) for dim, extent in zip(names, bias.stored, strict=True) if extent > 1)
    add = msgspec.structs.replace(add, tensors=(add.tensors[0], Tensor(f"{INPUTS}2", kept, bias.bits), add.tensors[2]))
    return [product, Step(add, {INPUTS: ~0, f"{INPUTS}2": _index(call, 0)})]


def _batched(call: Call, first: int, second: int) -> Step:
    a, b = call.tensor(first), call.tensor(second)
    (g, p, c), k = a.shape, b.shape[2]
    operator = _typed(batched_matmul(g=g, p=p, c=c, k=k), a, b, call.result)
    # A batch that only repeats one matrix does not store it more than once.
    kept = tuple(
        msgspec.structs.replace(tensor, ranks=tensor.ranks[1:]) if info is not None and info.repeated[0] and g > 1 else tensor
        for tensor, info in zip(operator.tensors, (b, a, None), strict=True)
    )
    kept = (msgspec.structs.replace(kept[0], static=b.static), msgspec.structs.replace(kept[1], static=a.static), kept[2])
    return Step(msgspec.structs.replace(operator, tensors=kept), {INPUTS: _index(call, first), WEIGHTS: _index(call, second)})


def attention(call: Call) -> list[Step]:
    """Fused attention ``(q, k, v, ...)``: two batched products with a softmax between them; causal ones are counted in full."""
    q, k, v = call.tensor(0), call.tensor(1), call.tensor(2)
    (batch, heads, queries, d), (_, kv, keys, _), width = q.shape, k.shape, v.shape[-1]
    if heads % kv or v.shape[1] != kv:
        raise Unknown(f"{call.name}: {heads} heads on {kv} and {v.shape[1]}, expected a multiple")
    group = heads // kv
    scores = _typed(batched_matmul(g=batch * kv, h=group, p=queries, c=d, k=keys), q, k, q)
    shape = dict(zip(("G", "H", "P", "K") if group > 1 else ("G", "P", "K"), scores.shape(OUTPUTS), strict=True))
    softmax = elementwise("softmax", shape, reduced=("K",), bits=q.bits)
    mask = next((each for each in _masks(call) if each is not None), None)
    operands = {INPUTS: ~0}
    if mask is not None:
        info = call.tensors[mask]
        kept = _mask_ranks(info, heads, queries, keys, group)
        tensors = (softmax.tensors[0], Tensor(f"{INPUTS}2", kept, info.bits, static=info.static), softmax.tensors[1])
        softmax = msgspec.structs.replace(softmax, tensors=tensors)
        operands[f"{INPUTS}2"] = mask
    mix = _typed(batched_matmul(g=batch * kv, h=group, p=queries, c=keys, k=width), q, v, call.result)
    return [
        Step(scores, {INPUTS: _index(call, 0), WEIGHTS: _index(call, 1)}),
        Step(softmax, operands),
        Step(mix, {INPUTS: ~1, WEIGHTS: _index(call, 2)}),
    ]


def _masks(call: Call) -> list[int | None]:
    """Tensors after q, k and v."""
    others = (*call.arguments[3:], *(value for _, value in call.keywords))
    return [value.at if isinstance(value, Ref) else None for value in others]


def _mask_ranks(info: Info, heads: int, queries: int, keys: int, group: int) -> tuple[Rank, ...]:
    """Ranks of a mask ``[batch, heads, queries, keys]`` of which leading axes may be missing, or only repeat."""
    stored = (1,) * (4 - len(info.stored)) + info.stored
    found = []
    if stored[0] * stored[1] > 1:
        whole = stored[1] == heads
        found.append(rank("G", None if whole else stored[0] * stored[1]))
        if group > 1 and whole:
            found.append(rank("H"))
    for dim, extent, full in (("P", stored[2], queries), ("K", stored[3], keys)):
        if extent > 1:
            found.append(rank(dim, None if extent == full else extent))
    return tuple(found)


def grouped_mm(call: Call) -> list[Step]:
    """``_grouped_mm(rows, experts, ends)``: which rows go to which expert depends on data; they are assumed to be spread evenly.

    Experts with one more row than the others are a step of their own; experts without rows are neither run nor read.
    """
    x, weights = call.tensor(0), call.tensor(1)
    if len(x.shape) != 2 or len(weights.shape) != 3:
        raise Unknown(f"{call.name}: shapes {x.shape} and {weights.shape}, expected rows x columns and experts x columns x columns")
    (total, c), (experts, _, k) = x.shape, weights.shape
    share, more = divmod(total, experts)
    also = tuple(each for each in _masks(call._replace(arguments=(None, *call.arguments))) if each is not None)
    steps = []
    for g, p in ((more, share + 1), (experts - more, share)):
        if g and p:
            operator = _typed(batched_matmul(g=g, p=p, c=c, k=k), x, weights, call.result)
            static = msgspec.structs.replace(operator.tensors[0], static=weights.static)
            operator = msgspec.structs.replace(operator, tensors=(static, *operator.tensors[1:]))
            steps.append(Step(operator, {INPUTS: _index(call, 0), WEIGHTS: _index(call, 1)}, also))
    return steps
