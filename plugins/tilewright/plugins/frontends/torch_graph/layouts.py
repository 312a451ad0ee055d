"""Axes of a tensor as named dims: rows and columns, heads, or images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tilewright.protocol.workload import INPUTS, OUTPUTS, Dim, Operator, Rank, Tensor

from .calls import Info, fixed, rank

IMAGE = ("N", "K", "Q", "P")


class Layout:
    """Named dims of a shape, and for each axis the dim that it is (part of).

    Images are ``N K Q P``. Otherwise the last axis is K, the one before it P, and what comes before is merged into P (three
    axes) or G (four and more); where an operand repeats the first axes only, they stay a dim of their own.
    """

    def __init__(self, shape: Sequence[int], *, image: bool = False, split: bool = False) -> None:
        count = len(shape)
        if image and count == len(IMAGE):
            self.axes: tuple[str, ...] = IMAGE
        elif count <= 2:
            self.axes = ("P", "K")[:count]
        elif count == 3:
            self.axes = ("N", "P", "K") if split else ("P", "P", "K")
        else:
            lead = count - 2
            self.axes = (*((*("N" * (lead - 1)), "G") if split else "G" * lead), "P", "K")
        self.dims: dict[str, int] = {}
        for axis, extent in zip(self.axes, shape, strict=True):
            self.dims[axis] = self.dims.get(axis, 1) * extent
        if not self.dims:
            self.dims = {"P": 1}
            self.axes = ()

    def ranks(self, info: Info) -> tuple[Rank, ...] | None:
        """Ranks of an operand whose axes line up with the last axes of the shape; None when they do not."""
        axes = self.axes[len(self.axes) - len(info.shape) :]
        if len(info.shape) > len(self.axes):
            return None
        sizes: dict[str, int] = {}
        for axis, extent in zip(axes, info.stored, strict=True):
            sizes[axis] = sizes.get(axis, 1) * extent
        found = []
        for axis, size in sizes.items():
            if size == self.dims[axis]:
                found.append(rank(axis))
            elif size != 1:
                return None
        return tuple(found)


def of(result: Info, operands: Sequence[Info]) -> Layout:
    """The layout of a result in which all operands that can be lined up are."""
    image = result.image or any(each.image for each in operands if len(each.shape) == len(IMAGE))
    merged = Layout(result.shape, image=image)
    if all(merged.ranks(each) is not None for each in operands):
        return merged
    return Layout(result.shape, image=image, split=True)


def operator(
    function: str,
    result: Info,
    operands: Sequence[Info],
    *,
    reduced: tuple[str, ...] = (),
    layout: Layout | None = None,
    results: Sequence[Info] = (),
) -> Operator:
    """A non-linear operator over the axes of `result`; operands that do not line up keep their own extents.

    Several results of one shape are one result whose words hold all.
    """
    layout = layout or of(result, operands)
    bits = sum(each.bits for each in results) if results else result.bits
    return build(function, layout.dims, [(each, layout.ranks(each)) for each in operands], _output(layout, bits), reduced)


def _output(layout: Layout, bits: int) -> Tensor:
    return Tensor(OUTPUTS, tuple(rank(dim) for dim in layout.dims), bits)


def build(
    function: str,
    dims: Mapping[str, int],
    operands: Sequence[tuple[Info, tuple[Rank, ...] | None]],
    output: Tensor,
    reduced: tuple[str, ...] = (),
) -> Operator:
    """An operator from operands and their ranks (None: their own extents)."""
    tensors = tuple(
        Tensor(f"{INPUTS}{at + 1}" if at else INPUTS, fixed(info.stored) if ranks is None else ranks, info.bits, static=info.static)
        for at, (info, ranks) in enumerate(operands)
    )
    return Operator(
        dims=tuple(Dim(name, bound) for name, bound in dims.items()), tensors=(*tensors, output), function=function, reduced_dims=reduced
    )


def names(operands: Sequence[int]) -> dict[str, int]:
    """Operator tensor -> tensor of the call, for operands in order."""
    return {f"{INPUTS}{at + 1}" if at else INPUTS: index for at, index in enumerate(operands)}


def rows(shape: Sequence[int], columns: int) -> int:
    """Product of all axes but those that make `columns`."""
    return math.prod(shape) // columns
