"""The mapspaces that are searched: everything the target allows, or the named one in which a bound is proven."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilewright import loopnest as ln
from tilewright.loopnest.mapspace import TEMPORAL, Mapspace, Points, prime_factors
from tilewright.protocol.architecture import Architecture, Constraints, DesignSpace, LevelConstraint
from tilewright.protocol.plugin import Target
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS, Operator

from .tiles import ACCUMULATOR, ACCUMULATOR_ORDER, COLUMNS, DRAM, ROWS, SCRATCHPAD, Ints

#: Attempts to move a prime factor of a drawn mapping into space.
WIDENINGS = 40
#: What a target must look like for the named mapspace: levels with what they keep, and parameters.
LEVELS = (("Registers", (WEIGHTS,)), ("Accumulator", (OUTPUTS,)), ("Scratchpad", (WEIGHTS, INPUTS)), ("DRAM", (WEIGHTS, INPUTS, OUTPUTS)))
PARAMETERS = ("pe", "scratchpad_kib", "accumulator_kib")


def named_applies(target: Target, operators: list[Operator]) -> bool:
    """Is the target a Gemmini in structure, and every operator one of weights and inputs only?"""
    architecture: Architecture = target.architecture()
    space: DesignSpace = target.design_space()
    constraints: Constraints = target.constraints()
    return (
        tuple((level.name, level.keeps) for level in architecture.levels) == LEVELS
        and tuple(parameter.name for parameter in space.parameters) == PARAMETERS
        and constraints.level("Accumulator").spatial_dims == (ROWS,)
        and constraints.level("Scratchpad").spatial_dims == (COLUMNS,)
        and all({tensor.name for tensor in operator.tensors} == {WEIGHTS, INPUTS, OUTPUTS} for operator in operators)
        and all(set(operator.bounds) <= set(ACCUMULATOR_ORDER) for operator in operators)
    )


def narrowed(constraints: Constraints) -> Constraints:
    """The constraints with no loops at registers and scratchpad."""
    closed = {
        name: LevelConstraint(name, spatial_dims=constraints.level(name).spatial_dims, temporal_dims=(), keep=constraints.level(name).keep)
        for name in ("Registers", "Scratchpad")
    }
    return Constraints((*closed.values(), *(each for each in constraints.levels if each.level not in closed)))


class Space:
    """Drawing and changing mappings of one operator, in the named mapspace or in all of the target's."""

    def __init__(self, problem: ln.Problem, *, named: bool) -> None:
        self.problem = problem
        self._named = named
        self._space = Mapspace(ln.Problem(problem.operator, problem.architecture, narrowed(problem.constraints)) if named else problem)
        order = sorted(range(len(problem.dims)), key=lambda d: ACCUMULATOR_ORDER.find(problem.dims[d]))
        self._order = np.array(order, np.int8)

    def sample(self, rng: np.random.Generator, count: int) -> ln.Batch:
        """Up to `count` mappings, some of them with many primes moved into space."""
        return self._batch(_widened(self._space, self._space.sample(rng, count), rng))

    def neighbours(self, batch: ln.Batch) -> ln.Batch:
        """Mappings that differ from one of these by a factor, an exchange of two factors or a loop's place."""
        parts = []
        for at in range(len(batch)):
            point = self._space.points(batch[at : at + 1])
            parts += [self._space.moves(point), self._space.swaps(point), self._space.reorders(point)]
        points = Points.concatenate(parts)
        return self._batch(points.take(self._space.complete(points)))

    def _batch(self, points: Points) -> ln.Batch:
        batch = self._space.batch(points)
        if self._named:
            batch.order[:, ACCUMULATOR] = self._order
        batch.problem = self.problem
        return batch

    def of_tile(self, reach: Ints, stays: str, side: int) -> ln.Batch:
        """The mappings of one tile of the named mapspace on an array of this side: all DRAM orders that keep a tensor in place longest."""
        problem = self.problem
        dims, bounds = problem.dims, problem.bounds
        levels = len(problem.levels)
        spatial = np.ones((1, levels, len(dims)), np.int64)
        for level, name in ((ACCUMULATOR, ROWS), (SCRATCHPAD, COLUMNS)):
            if name in dims:
                at = dims.index(name)
                spatial[0, level, at] = max(d for d in range(1, side + 1) if reach[at] % d == 0)
        temporal = np.ones_like(spatial)
        temporal[0, ACCUMULATOR] = reach // spatial.prod(axis=(0, 1))
        temporal[0, DRAM] = bounds // reach
        orders = self._orders(temporal[0, DRAM], stays)
        count = len(orders)
        order = np.tile(self._order, (count, levels, 1))
        order[:, DRAM] = orders
        keep = np.broadcast_to(self._space.keep, (count, *self._space.keep.shape)).copy()
        return ln.Batch(
            problem, np.repeat(temporal, count, axis=0), np.repeat(spatial, count, axis=0), np.zeros_like(order), order, keep
        )  # fmt: skip

    def _orders(self, outer: Ints, stays: str) -> NDArray[np.int8]:
        """DRAM orders: the loops that do not move `stays` innermost, each of them (and of the others) first once."""
        free = ~self.problem.relevant[self.problem.index(stays)]
        mine = [d for d in range(len(outer)) if free[d] and outer[d] > 1]
        others = [d for d in range(len(outer)) if not free[d] and outer[d] > 1]
        idle = [d for d in range(len(outer)) if outer[d] == 1]
        found = {(*one, *other) for one in _first_once(mine) for other in _first_once(others)}
        return np.array([[*each, *idle] for each in sorted(found)], np.int8)


def _first_once(loops: list[int]) -> list[tuple[int, ...]]:
    """The loops with each of them first once; one empty order of no loops."""
    return [(first, *(loop for loop in loops if loop != first)) for first in loops] or [()]


def unknown(batch: ln.Batch, known: ln.Batch) -> NDArray[np.bool_]:
    """bool[B]: the first of its like, and not among the known mappings."""
    seen = set(_rows(known))
    fresh = []
    for row in _rows(batch):
        fresh.append(row not in seen)
        seen.add(row)
    return np.array(fresh, dtype=bool)


def _rows(batch: ln.Batch) -> list[bytes]:
    order = np.where(np.take_along_axis(batch.temporal, batch.order.astype(np.int64), axis=2) > 1, batch.order, -1)
    return [b"".join(part[i].tobytes() for part in (batch.temporal, batch.spatial, order)) for i in range(len(batch))]


def _widened(space: Mapspace, points: Points, rng: np.random.Generator) -> Points:
    """The points with prime factors moved from time to space, many for some and few for others.

    Drawn evenly, few mappings use many compute units, and those are the ones that big arrays are for.
    """
    spatial = np.flatnonzero(space.kind != TEMPORAL)
    temporal = np.flatnonzero(space.kind == TEMPORAL)
    if not len(spatial):
        return points
    rows = np.arange(len(points))
    smallest: dict[int, int] = {}
    effort = rng.random(len(points))
    for _ in range(WIDENINGS):
        slot = rng.choice(spatial, len(points))
        dim = (rng.random((len(points), space.allowed.shape[1])) * space.allowed[slot]).argmax(axis=1)
        source = rng.choice(temporal, len(points))
        there = points.factors[rows, source, dim]
        for number in np.unique(there).tolist():
            smallest.setdefault(number, min(prime_factors(number), default=1))
        step = np.array([smallest[number] for number in there.tolist()], dtype=np.int64)
        moved = points.factors.copy()
        moved[rows, source, dim] //= step
        moved[rows, slot, dim] *= step
        better = Points(moved, points.order, points.keep)
        accepted = space.fits(better) & (rng.random(len(points)) < effort)
        points = Points(np.where(accepted[:, None, None], moved, points.factors), points.order, points.keep)
    return points
