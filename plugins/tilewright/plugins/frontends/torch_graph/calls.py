"""One recorded call of an ATen operator, as plain data, and the operators that it becomes.

Nothing here needs torch: a call is names, shapes and flags, so equal calls are computed once, and every rule can be tested alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.workload import Operator, Rank, Term


class Info(NamedTuple):
    """A tensor of a call."""

    shape: tuple[int, ...]
    #: Axes that only repeat what is stored (stride 0).
    repeated: tuple[bool, ...]
    bits: int
    #: A trained parameter.
    static: bool = False
    #: Channels first and two spatial axes: it came from a convolution, or is an image.
    image: bool = False

    @property
    def stored(self) -> tuple[int, ...]:
        """Extents of what is stored."""
        return tuple(1 if repeated else extent for extent, repeated in zip(self.shape, self.repeated, strict=True))

    @property
    def words(self) -> int:
        """Words that are stored."""
        return math.prod(self.stored)


class Ref(NamedTuple):
    """An argument that is tensor number `at` of the call."""

    at: int


class Call(NamedTuple):
    """An ATen call: `arguments` by position (keyword arguments under their names), tensors in them as `Ref`."""

    name: str
    arguments: tuple[Any, ...]
    keywords: tuple[tuple[str, Any], ...]
    tensors: tuple[Info, ...]
    results: tuple[Info, ...]
    #: True for operators that torch marks as element by element.
    pointwise: bool = False

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument given by position or by name."""
        if position < len(self.arguments):
            return self.arguments[position]
        return dict(self.keywords).get(name, default)

    def tensor(self, position: int, name: str = "") -> Info:
        """The tensor given as an argument."""
        value = self.argument(position, name)
        if not isinstance(value, Ref):
            raise Unknown(f"{self.name}: argument {name or position} is {value!r}, expected a tensor")
        return self.tensors[value.at]

    @property
    def result(self) -> Info:
        """The first result."""
        return self.results[0]


class Step(NamedTuple):
    """One operator of a call. Operands are tensors of the call (>= 0) or results of earlier steps of it (``~step``)."""

    operator: Operator
    operands: Mapping[str, int]
    #: Tensors that it reads without an operator tensor of their own (a bias).
    also: tuple[int, ...] = ()


class Unknown(InvalidInput):
    """A call that cannot be counted."""


def rank(dim: str, extent: int | None = None, offset: int = 0) -> Rank:
    """An index that is one dim."""
    return Rank((Term(dim),), offset, extent)


def fixed(shape: tuple[int, ...]) -> tuple[Rank, ...]:
    """Ranks of a tensor whose extents have nothing to do with the operator's dims."""
    return tuple(Rank((), extent=extent) for extent in shape if extent > 1)
