"""Mapspaces: which prime factor of which dim may be a loop where, drawn and varied in batches.

A point is a split of every dim's prime factors over *slots* (a temporal and up to two spatial ones per level), an order per
level, and a keep set per level. Symbols: ``B`` points, ``S`` slots, ``L`` levels, ``D`` dims, ``T`` tensors.

Every point that a `Mapspace` makes obeys the constraints, each fan-out and, unless asked otherwise, every capacity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.protocol.cost import Objective, objective_value
from tilewright.protocol.plugin import Evaluation, MapRequest

from .batch import Batch
from .conventions import Conventions
from .problem import Problem, default_keep

TEMPORAL, X, Y = 0, 1, 2
#: Stands for "no limit" where integers are compared.
UNLIMITED = np.iinfo(np.int64).max

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Points:
    """A batch of points."""

    #: ``int64[B, S, D]``
    factors: Ints
    #: ``int8[B, L, D]``: dim at each position of each level's temporal block, innermost first.
    order: NDArray[np.int8]
    #: ``bool[B, L, T]``
    keep: Bools

    def __len__(self) -> int:
        return len(self.factors)

    def take(self, index: slice | Bools | NDArray[np.integer[Any]] | list[int]) -> Points:
        """The points of a slice, a mask or a list of indices."""
        return Points(self.factors[index], self.order[index], self.keep[index])

    def repeat(self, count: int) -> Points:
        """`count` copies of every point."""
        return Points(np.repeat(self.factors, count, axis=0), np.repeat(self.order, count, axis=0), np.repeat(self.keep, count, axis=0))

    @staticmethod
    def concatenate(parts: list[Points]) -> Points:
        """All points of `parts`, in order."""
        return Points(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("factors", "order", "keep")))


def prime_factors(number: int) -> dict[int, int]:
    """Prime -> multiplicity; empty for 1."""
    found: dict[int, int] = {}
    prime = 2
    while prime * prime <= number:
        while number % prime == 0:
            found[prime] = found.get(prime, 0) + 1
            number //= prime
        prime += 1
    if number > 1:
        found[number] = found.get(number, 0) + 1
    return found


def divisors(number: int) -> list[int]:
    """All divisors, ascending."""
    found = [1]
    for prime, count in prime_factors(number).items():
        found = [d * prime**k for d in found for k in range(count + 1)]
    return sorted(found)


class Mapspace:
    """The perfect-factor mapspace of a problem: any split of the primes, any order, the given keep sets.

    ``slots``     ``(level, kind)`` of each slot, innermost first, kind one of `TEMPORAL`, `X`, `Y`
    ``allowed``   ``bool[S, D]``: the constraints let the dim be there
    ``limit``     ``int64[S, D]``: largest factor of the dim there
    ``side``      ``int64[S]``: fan-out of a spatial slot
    ``keep``      ``bool[L, T]``: the keep sets
    """

    def __init__(self, problem: Problem, keep: Bools | None = None) -> None:
        self.problem = problem
        self.keep = default_keep(problem) if keep is None else keep
        levels, dims = problem.architecture.levels, problem.dims
        slots, allowed, limit, side = [], [], [], []
        for index, level in enumerate(levels):
            rule = problem.constraints.level(level.name)
            wide, high = problem.architecture.fanout(index)
            for kind, size in ((X, wide), (Y, high), (TEMPORAL, 0)):
                if kind != TEMPORAL and (size == 1 or not problem.operator.is_contraction):
                    continue
                names = rule.temporal_dims if kind == TEMPORAL else rule.spatial_dims
                slots.append((index, kind))
                allowed.append([names is None or name in names for name in dims])
                limit.append([rule.max_factors.get(name, UNLIMITED) if kind == TEMPORAL else size for name in dims])
                side.append(size)
        self.slots = tuple(slots)
        self.level = np.array([level for level, _ in slots])
        self.kind = np.array([kind for _, kind in slots])
        self.allowed = np.array(allowed, dtype=bool)
        self.limit = np.array(limit, dtype=np.int64)
        self.side = np.array(side, dtype=np.int64)
        self.primes = [(d, p) for d, bound in enumerate(problem.bounds) for p, n in prime_factors(int(bound)).items() for _ in range(n)]
        self._ranks = [
            [[(dims.index(term.dim), term.coefficient) for term in rank.terms] for rank in problem.operator.tensor(name).ranks]
            for name in problem.tensors
        ]
        self._capacity = np.array([UNLIMITED if level.usable_words is None else level.usable_words for level in levels], dtype=np.int64)
        self._pools = _pools(problem)
        #: For each pair of slots on the two axes of one level, the other one; -1 elsewhere.
        self.across = np.array([next((o for o, s in enumerate(slots) if s[0] == lv and {s[1], kind} == {X, Y}), -1) for lv, kind in slots])

    @property
    def outermost(self) -> int:
        """The slot of the outermost temporal block."""
        return len(self.slots) - 1

    def sample(self, rng: np.random.Generator, count: int, *, fit: bool = True, rounds: int = 8) -> Points:
        """Draw up to `count` points; each prime, in random order, goes to a slot drawn uniformly from those with room for it.

        With `fit` a slot only has room while every tile still fits. A draw in which some prime found no slot is thrown away;
        after `rounds` rounds what there is is returned.
        """
        parts: list[Points] = []
        missing = count
        for _ in range(rounds):
            if missing <= 0:
                break
            drawn = self._draw(rng, count, fit)
            parts.append(drawn.take(slice(0, missing)))
            missing -= len(parts[-1])
        return Points.concatenate(parts)

    def unrolled_nowhere(self) -> Points:
        """The point with all loops at the outermost level, in the order of the dims, whether the constraints allow them there or not."""
        levels, dims = len(self.keep), len(self.problem.dims)
        factors = np.ones((1, len(self.slots), dims), dtype=np.int64)
        factors[0, self.outermost] = self.problem.bounds
        order = np.broadcast_to(np.arange(dims, dtype=np.int8), (1, levels, dims))
        return Points(factors, order, self.keep[None].copy())

    def _draw(self, rng: np.random.Generator, count: int, fit: bool) -> Points:
        size, dims = len(self.slots), len(self.problem.dims)
        rows = np.arange(count)
        factors = np.ones((count, size, dims), dtype=np.int64)
        alive = np.ones(count, dtype=bool)
        items = rng.permuted(np.broadcast_to(np.arange(len(self.primes)), (count, len(self.primes))), axis=1)
        dim_of = np.array([d for d, _ in self.primes], dtype=np.int64)
        prime_of = np.array([p for _, p in self.primes], dtype=np.int64)
        used = np.ones((count, size), dtype=np.int64)
        extents = np.ones((count, len(self.keep), dims), dtype=np.int64)
        keep = np.broadcast_to(self.keep, (count, *self.keep.shape))
        for position in range(len(self.primes)):
            dim, prime = dim_of[items[:, position]], prime_of[items[:, position]]
            current = np.take_along_axis(factors, dim[:, None, None], axis=2)[:, :, 0]
            room = self.allowed[:, dim].T & (current * prime[:, None] <= self.limit[:, dim].T)
            room &= (self.kind == TEMPORAL) | (used * prime[:, None] <= self.side)
            room &= (self.across < 0) | (current[:, self.across] == 1)
            if fit:
                grown = extents * np.where(np.arange(dims) == dim[:, None], prime[:, None], 1)[:, None, :]
                fits = self._overflow(grown, keep) <= 0
                room &= np.logical_and.accumulate(fits[:, ::-1], axis=1)[:, ::-1][:, self.level]
            alive &= room.any(axis=1)
            slot = self._pick(rng, room)
            factors[rows, slot, dim] *= prime
            used[rows, slot] *= prime
            if fit:
                inside = np.arange(len(self.keep)) >= self.level[slot][:, None]
                extents[rows, :, dim] *= np.where(inside, prime[:, None], 1)
        order = self._random_order(rng, count)
        return Points(factors, order, keep.copy()).take(alive)

    def _random_order(self, rng: np.random.Generator, count: int) -> NDArray[np.int8]:
        shape = (count * len(self.keep), len(self.problem.dims))
        plain = np.broadcast_to(np.arange(shape[1], dtype=np.int8), shape)
        return rng.permuted(plain, axis=1).reshape(count, len(self.keep), shape[1])

    def extents(self, factors: Ints) -> Ints:
        """``int64[B, L, D]``: how far the tile of each level reaches in each dim."""
        per_level = np.stack([factors[:, self.level == level].prod(axis=1) for level in range(len(self.keep))], axis=1)
        return np.cumprod(per_level, axis=1)

    def overflow(self, points: Points) -> Ints:
        """``int64[B, L]``: words by which the tiles at each level exceed its capacity (<= 0: they fit)."""
        return self._overflow(self.extents(points.factors), points.keep)

    def fits(self, points: Points) -> Bools:
        """``bool[B]``: every capacity, fan-out and constraint is kept."""
        return self.obeys(points.factors) & (self.overflow(points) <= 0).all(axis=1)

    def obeys(self, factors: Ints) -> Bools:
        """``bool[B]``: every fan-out and constraint is kept, whatever the capacities."""
        ok: Bools = ((factors == 1) | (self.allowed & (factors <= self.limit))).all(axis=(1, 2))
        spatial = self.kind != TEMPORAL
        ok &= (factors[:, spatial].prod(axis=2) <= self.side[spatial]).all(axis=1)
        for slot, other in enumerate(self.across):
            if other > slot:
                ok &= ((factors[:, slot] == 1) | (factors[:, other] == 1)).all(axis=1)
        return ok

    def _overflow(self, extents: Ints, keep: Bools) -> Ints:
        """Words over capacity per level; levels of a pool that is too full are over by what that is in their words."""
        words = np.zeros(extents.shape[:2], dtype=np.int64)
        for t, ranks in enumerate(self._ranks):
            tile = np.ones(extents.shape[:2], dtype=np.int64)
            for terms in ranks:
                reach = np.ones(extents.shape[:2], dtype=np.int64)
                for d, coefficient in terms:
                    reach += coefficient * (extents[:, :, d] - 1)
                tile *= reach
            words += tile * keep[:, :, t]
        over = words - self._capacity
        for members, bits, capacity in self._pools:
            excess = words[:, members] @ bits - capacity
            over[:, members] = np.maximum(over[:, members], -(-excess[:, None] // bits))
        return over

    def batch(self, points: Points) -> Batch:
        """The points as a batch of mappings."""
        count, _, dims = points.factors.shape
        levels = len(self.keep)
        temporal = np.ones((count, levels, dims), dtype=np.int64)
        spatial = np.ones_like(temporal)
        axis = np.zeros((count, levels, dims), dtype=np.int8)
        for slot, (level, kind) in enumerate(self.slots):
            block = points.factors[:, slot]
            if kind == TEMPORAL:
                temporal[:, level] = block
            else:
                spatial[:, level] *= block
                axis[:, level][block > 1] = kind - X
        return Batch(self.problem, temporal, spatial, axis, points.order, points.keep)

    def points(self, batch: Batch) -> Points:
        """The points of a batch of mappings (loops where this mapspace has no slot are dropped)."""
        factors = np.ones((len(batch), len(self.slots), len(self.problem.dims)), dtype=np.int64)
        for slot, (level, kind) in enumerate(self.slots):
            if kind == TEMPORAL:
                factors[:, slot] = batch.temporal[:, level]
            else:
                factors[:, slot] = np.where(batch.axis[:, level] == kind - X, batch.spatial[:, level], 1)
        return Points(factors, np.asarray(batch.order), np.asarray(batch.keep))

    def complete(self, points: Points) -> Bools:
        """``bool[B]``: the factors of every dim multiply to its bound."""
        whole: Bools = (points.factors.prod(axis=1) == self.problem.bounds).all(axis=1)
        return whole

    def share(self, points: Points, index: int, of: int) -> Bools:
        """``bool[B]``: the points of share `index` of `of` disjoint shares of the mapspace (by a fixed sum over the factors)."""
        weights = np.arange(1, self.allowed.size + 1).reshape(self.allowed.shape)
        mine: Bools = (points.factors * weights).sum(axis=(1, 2)) % of == index
        return mine

    def moves(self, point: Points, *, whole: bool = False, fit: bool = True) -> Points:
        """Neighbours of one point that move a prime (with `whole`, any divisor) of one dim from a slot to another.

        With `fit`, only those whose tiles fit; constraints and fan-outs are kept in any case.
        """
        factors = point.factors[0]
        changes: list[tuple[int, int, int, int]] = []
        for slot, dim in np.argwhere(factors > 1).tolist():
            here = int(factors[slot, dim])
            steps = divisors(here)[1:] if whole else list(prime_factors(here))
            changes += [(slot, to, dim, step) for step in steps for to in np.flatnonzero(self.allowed[:, dim]).tolist() if to != slot]
        moved = self._changed(point, changes)
        return moved.take(self.fits(moved) if fit else self.obeys(moved.factors))

    def shaken(self, rng: np.random.Generator, points: Points) -> Points:
        """Every point with one random prime moved from one random slot to another; tiles need not fit afterwards."""
        if not self.primes:
            return points
        rows = np.arange(len(points))
        dims, primes = np.array(self.primes, dtype=np.int64).T
        item = rng.integers(len(self.primes), size=len(points))
        dim, prime = dims[item], primes[item]
        held = points.factors[rows, :, dim] % prime[:, None] == 0
        factors = points.factors.copy()
        start = self._pick(rng, held)
        factors[rows, start, dim] //= prime
        free = self.allowed[:, dim].T & (np.arange(len(self.slots)) != start[:, None])
        end = np.where(free.any(axis=1), self._pick(rng, free), start)
        factors[rows, end, dim] *= prime
        return Points(factors, points.order, points.keep)

    @staticmethod
    def _pick(rng: np.random.Generator, choices: Bools) -> Ints:
        """One true column per row, uniformly (0 where there is none)."""
        nth = (rng.random(len(choices)) * choices.sum(axis=1)).astype(np.int64)
        picked: Ints = np.argmax(np.cumsum(choices, axis=1) > nth[:, None], axis=1)
        return picked

    def reordered(self, rng: np.random.Generator, points: Points) -> Points:
        """Every point with random orders at all levels."""
        return Points(points.factors, self._random_order(rng, len(points)), points.keep)

    def crossed(self, rng: np.random.Generator, one: Points, other: Points) -> Points:
        """Children that take the split of each dim, and the order of each level, from either parent; tiles need not fit."""
        from_one = rng.random((len(one), 1, one.factors.shape[2])) < 0.5
        order_from_one = rng.random((len(one), one.order.shape[1], 1)) < 0.5
        return Points(np.where(from_one, one.factors, other.factors), np.where(order_from_one, one.order, other.order), one.keep)

    def reorders(self, point: Points) -> Points:
        """All neighbours of one point that move one temporal loop to another place of its level."""
        found = []
        for level in range(len(self.keep)):
            slot = self.slots.index((level, TEMPORAL))
            order = point.order[0, level]
            loops = [position for position, d in enumerate(order) if point.factors[0, slot, d] > 1]
            for start in loops:
                for end in loops:
                    if start in (end, end + 1):
                        continue
                    moved = list(order)
                    moved.insert(end, moved.pop(start))
                    found.append((level, moved))
        many = point.repeat(len(found))
        for row, (level, moved) in enumerate(found):
            many.order[row, level] = moved
        return many

    def swaps(self, point: Points) -> Points:
        """All neighbours of one point that exchange a prime of one dim with a prime of another between two slots."""
        factors = point.factors[0]
        loops = [(s, d, p) for s, d in np.argwhere(factors > 1).tolist() for p in prime_factors(int(factors[s, d]))]
        pairs = [
            (one, other)
            for i, one in enumerate(loops)
            for other in loops[i + 1 :]
            if one[0] != other[0] and one[1:] != other[1:] and self.allowed[other[0], one[1]] and self.allowed[one[0], other[1]]
        ]
        moved = self._changed(point, [(a[0], b[0], a[1], a[2]) for a, b in pairs])
        for row, (a, b) in enumerate(pairs):
            moved.factors[row, b[0], b[1]] //= b[2]
            moved.factors[row, a[0], b[1]] *= b[2]
        return moved.take(self.fits(moved))

    @staticmethod
    def _changed(point: Points, changes: list[tuple[int, int, int, int]]) -> Points:
        """Copies of a point with (from, to, dim, step) applied, one each."""
        many = point.repeat(len(changes))
        if changes:
            start, to, dim, step = np.array(changes, dtype=np.int64).T
            rows = np.arange(len(changes))
            many.factors[rows, start, dim] //= step
            many.factors[rows, to, dim] *= step
        return many


def _pools(problem: Problem) -> list[tuple[list[int], Ints, int]]:
    """Levels that share one memory, bits that a word takes in each, and the memory's bits."""
    groups: dict[str, list[int]] = {}
    levels = problem.architecture.levels
    for index, level in enumerate(levels):
        if level.pool and level.capacity_bits is not None:
            groups.setdefault(level.pool, []).append(index)
    return [
        (
            members,
            np.array([levels[i].word_bits * levels[i].multiple_buffering for i in members], dtype=np.int64),
            min(levels[i].capacity_bits or 0 for i in members),
        )
        for members in groups.values()
    ]


def problem_of(request: MapRequest) -> Problem:
    """The problem that a request is about; `InvalidInput` for conventions that are unknown."""
    conventions = Conventions.parse(request.conventions)
    return Problem(request.operator, request.architecture, request.constraints, conventions=conventions)


def scores(evaluation: Evaluation, objective: Objective) -> NDArray[np.float64]:
    """``float64[B]``: the objective of each mapping, infinite where it is invalid."""
    valid = np.asarray(evaluation.valid)
    energy, cycles = (np.where(valid, np.asarray(figure, np.float64), 0.0) for figure in (evaluation.energy_pj, evaluation.cycles))
    return np.where(valid, objective_value(objective, energy, cycles), np.inf)
