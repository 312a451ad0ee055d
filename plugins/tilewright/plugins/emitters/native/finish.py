"""What a kernel does to a result after its last product: bias, activation, narrowing to bytes; and its C."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.workload import OUTPUTS, WEIGHTS

from .numbers import Numbers
from .operands import Product

#: Steps in the only order in which they may be asked for, and what each does.
STEPS: Mapping[str, str] = {
    "bias": "a bias per output channel is added",
    "relu": "negative results become 0",
    "gelu": "x becomes x times the normal distribution function at x, in its tanh form (floats only)",
    "requantize": "i32 becomes i8: times a scale per output channel, to nearest even, plus a zero point, saturated (integers only)",
}
#: C of each step on a result ``x``; `to` and `channel` are in scope.
_C: Mapping[str, str] = {
    "bias": "x += more->bias[channel];",
    "relu": "x = x > 0 ? x : 0;",
    "gelu": "x = gelu(x);",
}
_KEEP = "            to[i * to_row + j] = x;"
_REQUANTIZE = """            float y = __builtin_rintf((float)x * more->scale[channel]) + (float)more->zero_point;
            y = y < -128.0f ? -128.0f : y > 127.0f ? 127.0f : y;
            to[i * to_row + j] = (int8_t)y;"""


@dataclass(frozen=True)
class Finish:
    """The steps of a kernel, in order."""

    steps: tuple[str, ...] = ()

    @property
    def narrows(self) -> bool:
        """Results become bytes: they pass through a tile of their own, whole, before C is written."""
        return "requantize" in self.steps

    def code(self) -> str:
        """C statements of one result."""
        lines = [f"            {_C[step]}" for step in self.steps if step in _C]
        return "\n".join([*lines, _REQUANTIZE if self.narrows else _KEEP])


#: No steps.
NOTHING = Finish()


def finish_of(text: str, numbers: Numbers) -> Finish:
    """Steps joined by ``+``, e.g. ``bias+relu``. InvalidInput for unknown ones, another order, or ones that the numbers lack."""
    steps = tuple(text.split("+")) if text and text != "none" else ()
    if list(steps) != [step for step in STEPS if step in steps]:
        raise InvalidInput(f"options.epilogue: {text!r}, expected some of {'+'.join(STEPS)}, in this order")
    if "relu" in steps and "gelu" in steps:
        raise InvalidInput(f"options.epilogue: {text!r}, expected one activation: relu or gelu")
    if "gelu" in steps and numbers.result != "f32":
        raise InvalidInput(f"options.epilogue: gelu of {numbers.result} results, expected dtype f32 or bf16")
    if "requantize" in steps and not numbers.exact:
        raise InvalidInput(f"options.epilogue: requantize of {numbers.result} results, expected an integer dtype")
    return Finish(steps)


def channels(product: Product) -> tuple[str, ...]:
    """The result's dims that select weights, outermost first: one bias and one scale each."""
    moved = product.operator.tensor(WEIGHTS).dims
    return tuple(dim for dim in (*product.outer, *product.rows, *product.columns) if dim in moved)


def channel_index(product: Product) -> str:
    """C expression of the channel of row ``row + i`` and column ``column + j``, within one trip of the outer loops."""
    return "column + j" if product.b.tensor == WEIGHTS else "row + i"


def outer_channels(product: Product) -> dict[str, str]:
    """Outer dims that select weights -> C expression of the channels that one step moves on."""
    names = [dim.name for dim in product.operator.dims]
    order = channels(product)
    return {
        dim: " * ".join(f"bounds[{names.index(inner)}]" for inner in order[at + 1 :]) or "1"
        for at, dim in enumerate(order)
        if dim in product.outer
    }


def check_output(product: Product) -> None:
    """InvalidInput where rows or columns mix channels with other dims, so that one index does not select them."""
    side = product.columns if product.b.tensor == WEIGHTS else product.rows
    strange = [dim for dim in side if dim not in product.operator.tensor(WEIGHTS).dims]
    if strange:
        raise InvalidInput(f"options.epilogue: {OUTPUTS} dims {', '.join(strange)} lie between output channels")
