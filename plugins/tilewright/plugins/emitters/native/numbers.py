"""Number formats of a kernel: words in memory, items in registers, and accumulators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.kernel import ElementType

#: C names of element types.
C_TYPES: Mapping[ElementType, str] = {
    "f32": "float",
    "f64": "double",
    "i8": "int8_t",
    "u8": "uint8_t",
    "i16": "int16_t",
    "i32": "int32_t",
    "bf16": "uint16_t",
    "f16": "_Float16",
}


@dataclass(frozen=True)
class Numbers:
    """One number format.

    `group` items of depth lie side by side and are multiplied and summed by one instruction (1: a plain multiply-add).
    Words become items when operands are packed; where they are the same, kernels may read operands in place.
    """

    name: str
    inputs: ElementType
    weights: ElementType
    item: ElementType
    group: int
    result: ElementType

    @property
    def rounding(self) -> tuple[str, str]:
        """C literals of the relative error of one rounding of a result, and of the absolute one near zero."""
        return ("0x1p-11", "0x1p-25") if self.result == "f16" else ("0x1p-24", "0x1p-150")

    @property
    def exact(self) -> bool:
        """Integer arithmetic: results are exact, or wrap."""
        return self.result == "i32"

    def word(self, tensor: str) -> ElementType:
        """Type of a tensor's words in memory."""
        return {"Inputs": self.inputs, "Weights": self.weights, "Outputs": self.result}[tensor]

    def in_place(self, tensor: str) -> bool:
        """True when kernels can read this operand unpacked."""
        return self.group == 1 and self.word(tensor) == self.item


FORMATS: Mapping[str, Numbers] = {
    each.name: each
    for each in (
        Numbers("f32", "f32", "f32", "f32", 1, "f32"),
        Numbers("bf16", "bf16", "bf16", "f32", 1, "f32"),
        Numbers("int8", "i8", "i8", "i16", 2, "i32"),
        Numbers("uint8", "u8", "i8", "i16", 2, "i32"),
        Numbers("f16", "f16", "f16", "f16", 1, "f16"),
    )
}


def numbers_of(name: str) -> Numbers:
    """The format called `name`; InvalidInput when there is none."""
    if name not in FORMATS:
        raise InvalidInput(f"options.dtype: {name!r}, expected one of {', '.join(FORMATS)}")
    return FORMATS[name]
