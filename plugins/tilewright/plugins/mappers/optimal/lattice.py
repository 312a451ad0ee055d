"""The lattice of tiles: one axis per (dim, prime), so that a tile's extents are a point and a loop is a step along some axes.

Arrays over the lattice have one more, last axis of N spatial configurations that are treated at once. A *sweep* over a dim replaces
every value by the least one at any multiple of its extent: the best that a loop of any factor over that dim could come from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilewright import loopnest as ln
from tilewright.loopnest.mapspace import prime_factors

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
#: Highest index kept of each axis.
Box = tuple[int, ...]


class Axis(NamedTuple):
    """The powers of one prime of one dim."""

    dim: int
    prime: int
    multiplicity: int


class Lattice:
    """Extents, tile sizes and refetch counts at every point."""

    def __init__(self, problem: ln.Problem) -> None:
        self.problem = problem
        self.axes = [Axis(d, p, n) for d, bound in enumerate(problem.bounds.tolist()) for p, n in prime_factors(bound).items()]
        self.dims = sorted({axis.dim for axis in self.axes})
        self.of_dim = {d: [k for k, axis in enumerate(self.axes) if axis.dim == d] for d in self.dims}
        self.top: Box = tuple(axis.multiplicity for axis in self.axes)
        self.extent = [self._extent(d) for d in range(len(problem.dims))]
        self.iterations = problem.operator.iterations
        self._points = np.ones(self.shape)
        for extent in self.extent:
            self._points = self._points * extent

    @property
    def shape(self) -> tuple[int, ...]:
        """Points along each axis."""
        return tuple(high + 1 for high in self.top)

    def _extent(self, dim: int) -> Floats:
        extent = np.ones((1,) * len(self.axes))
        for k in self.of_dim.get(dim, ()):
            powers = float(self.axes[k].prime) ** np.arange(self.top[k] + 1)
            extent = extent * powers.reshape([-1 if j == k else 1 for j in range(len(self.axes))])
        return extent

    def words(self, tensor: int, unit: frozenset[int] = frozenset()) -> Floats:
        """Words of a tensor's tile at every point; dims in `unit` as if their coefficients were 1."""
        words = np.ones(self.shape)
        for rank in self.problem.operator.tensor(self.problem.tensors[tensor]).ranks:
            reach = np.ones((1,) * len(self.axes))
            for term in rank.terms:
                dim = self.problem.dims.index(term.dim)
                reach = reach + (1 if dim in unit else term.coefficient) * (self.extent[dim] - 1)
            words = words * reach
        return words

    def refetched(self, tensor: int, unit: frozenset[int] = frozenset()) -> Floats:
        """Words that all instances together fetch over the run when nothing outside of the tile stays: iterations x words / points."""
        fetched: Floats = self.iterations * self.words(tensor, unit) / self._points
        return fetched

    def lowered(self, table: Floats, dims: Iterable[int]) -> Floats:
        """The least value at any divisor of the extents of some dims."""
        for k in (k for d in dims for k in self.of_dim[d]):
            table = np.minimum.accumulate(table, axis=k)
        return table

    def offset(self, factors: Mapping[int, int]) -> tuple[int, ...]:
        """The step along each axis that multiplying dims by `factors` is."""
        step = [0] * len(self.axes)
        for dim, factor in factors.items():
            for k in self.of_dim[dim]:
                while factor % self.axes[k].prime == 0:
                    factor //= self.axes[k].prime
                    step[k] += 1
        return tuple(step)

    def box(self, feasible: Bools) -> Box:
        """The smallest box around all points that are feasible (the origin at least)."""
        highs = []
        for k in range(len(self.axes)):
            others = tuple(j for j in range(len(self.axes)) if j != k)
            highs.append(int(np.flatnonzero(feasible.any(axis=others)).max(initial=0)))
        return tuple(highs)


def sweep(values: Floats, axis: int, keep: int) -> Floats:
    """Best value at any multiple along one axis, for indices up to `keep`. Works in place on `values`."""
    size = values.shape[axis]
    view = values.reshape(math.prod(values.shape[:axis]), size, -1)
    for at in range(size - 2, -1, -1):
        np.minimum(view[:, at], view[:, at + 1], out=view[:, at])
    return values if keep >= size - 1 else np.ascontiguousarray(crop(values, axis, keep))


def crop(values: Floats, axis: int, keep: int) -> Floats:
    """The part with indices up to `keep` along one axis."""
    return values[(slice(None),) * axis + (slice(0, keep + 1),)]


def stepped(values: Floats, offset: Iterable[int]) -> Floats:
    """``values[point + offset]``, infinite beyond the edge."""
    moved = np.full_like(values, np.inf)
    source = tuple(slice(o, None) for o in offset)
    target = tuple(slice(0, max(0, size - o)) for o, size in zip(offset, values.shape, strict=False))
    moved[target] = values[source]
    return moved


def reach(values: Floats, axis: int, steps: int) -> Floats:
    """Best value within `steps` along one axis. Works in place."""
    size = values.shape[axis]
    view = values.reshape(math.prod(values.shape[:axis]), size, -1)
    for _ in range(min(steps, size - 1)):
        for at in range(size - 1):
            np.minimum(view[:, at], view[:, at + 1], out=view[:, at])
    return values
