"""Calls with windows over images: convolutions, transposed convolutions, pools. One-dimensional ones have one row."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS, Operator, Rank, Tensor, Term, conv2d, depthwise, elementwise

from .calls import Call, Info, Ref, Step, Unknown, rank

Pair = tuple[int, int]


def convolution(call: Call) -> list[Step]:
    """``convolution(input, weight, bias, stride, padding, dilation, transposed, output_padding, groups)``."""
    x, weight = call.tensor(0), call.tensor(1)
    axes = len(x.shape) - 2
    if axes not in (1, 2):
        raise Unknown(f"{call.name}: an input of shape {x.shape}, expected one or two spatial axes")
    stride, padding, dilation = (_pair(call.arguments[at], axes, 0 if at == 4 else 1) for at in (3, 4, 5))
    transposed, groups = call.arguments[6], call.arguments[8]
    build = _transposed if transposed else _dense
    operators = build(x, weight, call.result, stride, padding, dilation, groups)
    bias = call.arguments[2]
    also: tuple[int, ...] = ()
    if isinstance(bias, Ref):
        also = (bias.at,)
        operators = [msgspec.structs.replace(each, bias_bits=call.tensors[bias.at].bits) for each in operators]
    indices = {INPUTS: _index(call, 0), WEIGHTS: _index(call, 1)}
    return [Step(_typed(each, x, weight, call.result), indices, also) for each in operators]


def _index(call: Call, position: int) -> int:
    value = call.arguments[position]
    assert isinstance(value, Ref)
    return value.at


def _pair(values: Sequence[int], axes: int, default: int) -> Pair:
    """(width, height) from (height, width), or from the one axis there is."""
    values = list(values) * axes if len(values) == 1 and axes == 2 else list(values)
    return (values[-1], values[0] if axes == 2 else default)


def _sides(info: Info) -> Pair:
    """(width, height)."""
    return info.shape[-1], info.shape[-2] if len(info.shape) == 4 else 1


def _typed(operator: Operator, x: Info, weight: Info, result: Info) -> Operator:
    bits = {INPUTS: (x.bits, x.static), WEIGHTS: (weight.bits, weight.static), OUTPUTS: (result.bits, False)}
    tensors = (msgspec.structs.replace(each, bits=bits[each.name][0], static=bits[each.name][1]) for each in operator.tensors)
    return msgspec.structs.replace(operator, tensors=tuple(tensors))


def _dense(x: Info, weight: Info, result: Info, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> list[Operator]:
    (r, s), (p, q), sides = _sides(weight), _sides(result), _sides(x)
    n, k, c = x.shape[0], weight.shape[0] // groups, weight.shape[1]
    # The stored extent matters only where the last window ends before the image does, or beyond it.
    ends = [
        None if (out - 1) * step + (taps - 1) * apart + 1 - 2 * border == side else side
        for out, step, taps, apart, border, side in zip((p, q), stride, (r, s), dilation, padding, sides, strict=True)
    ]
    extent = (ends[0], ends[1])
    if groups > 1 and c == 1 and k == 1:
        return [depthwise(r=r, s=s, p=p, q=q, g=groups, n=n, stride=stride, dilation=dilation, padding=padding, extent=extent)]
    return [conv2d(r=r, s=s, p=p, q=q, c=c, k=k, n=n, g=groups, stride=stride, dilation=dilation, padding=padding, extent=extent)]


def _transposed(x: Info, weight: Info, result: Info, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> list[Operator]:
    """One dense convolution per stride phase: outputs `o` with ``(o + padding) % stride`` equal use the same taps.

    Taps beyond the border count, as in every padded convolution.
    """
    if dilation != (1, 1):
        raise Unknown(f"a transposed convolution with dilation {dilation}, expected 1")
    (r, s), sides = _sides(weight), _sides(x)
    n, c, k = x.shape[0], x.shape[1] // groups, weight.shape[1]
    axes = [
        _phases(out, taps, step, border, side)
        for out, taps, step, border, side in zip(_sides(result), (r, s), stride, padding, sides, strict=True)
    ]
    return [
        conv2d(r=wide[0], s=high[0], p=wide[1], q=high[1], c=c, k=k, n=n, g=groups, padding=(wide[2], high[2]), extent=(wide[3], high[3]))
        for wide in axes[0]
        for high in axes[1]
    ]


def _phases(out: int, taps: int, stride: int, padding: int, side: int) -> list[tuple[int, int, int, int | None]]:
    """(taps, outputs, padding, extent where it is not implied) of each phase that has both."""
    found = []
    for phase in range(stride):
        used = -(-(taps - phase) // stride)
        first = -(-(padding - phase) // stride)
        last = (out - 1 + padding - phase) // stride
        if used > 0 and last >= first:
            border, outputs = used - 1 - first, last - first + 1
            implied = outputs - 1 + used - 2 * border
            found.append((used, outputs, border, None if implied == side and border >= 0 else side))
    return found


def max_pool(call: Call) -> list[Step]:
    """``max_pool2d_with_indices(x, window, stride, padding, dilation, ceil)``; its indices are not counted."""
    return _pool(call, call.argument(3, "padding", ()), call.argument(4, "dilation", ()))


def average_pool(call: Call) -> list[Step]:
    """``avg_pool2d(x, window, stride, padding, ...)``."""
    return _pool(call, call.argument(3, "padding", ()), ())


def _pool(call: Call, padding: Sequence[int], dilation: Sequence[int]) -> list[Step]:
    x = call.tensor(0)
    axes = len(call.argument(1, "kernel_size")) if len(x.shape) < 4 else 2
    axes = min(2, max(1, len(x.shape) - 2)) if len(x.shape) >= 3 else axes
    window = _pair(call.argument(1, "kernel_size"), axes, 1)
    stride = _pair(call.argument(2, "stride", ()) or call.argument(1, "kernel_size"), axes, 1)
    borders = _pair(padding or (0,) * axes, axes, 0)
    apart = _pair(dilation or (1,) * axes, axes, 1)
    return [Step(pool(x, call.result, window, stride, borders, apart), {INPUTS: 0})]


def adaptive_pool(call: Call) -> list[Step]:
    """``_adaptive_avg_pool2d(x, sides)``: one window per output, if they are all alike."""
    x, result = call.tensor(0), call.result
    window = []
    for side, out in zip(_sides(x), _sides(result), strict=True):
        if side % out:
            raise Unknown(f"{call.name}: {side} rows or columns to {out}, expected a multiple")
        window.append(side // out)
    return [Step(pool(x, result, (window[0], window[1]), (window[0], window[1]), (0, 0), (1, 1)), {INPUTS: 0})]


def pool(x: Info, result: Info, window: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Operator:
    """One operation per tap."""
    (p, q), (width, height), (r, s) = _sides(result), _sides(x), window
    spatial = 2 if len(x.shape) == 4 else 1
    n, k = (math.prod(x.shape[: -spatial - 1]), x.shape[-spatial - 1])
    base = elementwise("pool", {"N": n, "K": k, "Q": q, "P": p, "S": s, "R": r}, reduced=("S", "R"))
    high = Rank((Term("Q", stride[1]), Term("S", dilation[1])), -padding[1], height)
    wide = Rank((Term("P", stride[0]), Term("R", dilation[0])), -padding[0], width)
    inputs = Tensor(INPUTS, (rank("N"), rank("K"), high, wide), x.bits)
    outputs = Tensor(OUTPUTS, (rank("N"), rank("K"), rank("Q"), rank("P")), result.bits)
    return msgspec.structs.replace(base, tensors=(inputs, outputs))
