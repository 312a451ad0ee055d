"""The ``walk`` semantics: what a true walk of the nest moves, ragged loops included, in closed form.

A walk visits every iteration inside of the bounds, in nest order. Each instance of a level holds the box of its current
tile, cut at the bounds; whenever the box changes, the words that were not in the previous one are delivered. An instance
without work at a step keeps what it has. Children that want the same box at the same step share the delivery.

Dims are independent of each other, so a walk is counted dim by dim: when the loop of one dim advances, every dim whose
loops lie inside starts over from its last tile. How a dim goes on falls into a few classes, told apart by how far the
position agrees with the last index of the dim, digit by digit in the mixed radix of its loops.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product as combinations

from .arrays import Array, Namespace
from .nest import Nest
from .problem import TensorShape

#: Included spatial indices per level, dim and mapping: all of them, or the first only.
Included = list[list[Array]]


@dataclass(frozen=True)
class Case:
    """Positions of one dim that go on alike, [B] each."""

    #: How many there are.
    weight: Array
    #: From the start of the tile before to that of the tile after.
    shift: Array
    #: Extents of the two tiles.
    before: Array
    after: Array


class DimWalk:
    """The loops of one dim, seen from the tile of one level, for some included instances."""

    def __init__(self, nest: Nest, dim: int, level: int, included: Included) -> None:
        xp = self._xp = nest.xp
        levels = range(len(nest.temporal))
        self.level = level
        self.bound = int(nest.problem.active_bounds[dim])
        #: Factors, inner extents (steps) and included indices of the blocks, by level.
        self.temporal = [nest.temporal[k][dim] for k in levels]
        self.step = [nest.step[k][dim] for k in levels]
        self.spatial_step = [nest.below[k][dim] for k in levels]
        self.counts = [included[k][dim] for k in levels]
        #: Extent of a whole tile.
        self.tile = nest.below[level + 1][dim]
        self.one = xp.full(1, self.tile)
        #: True when the loops of some mapping overrun the bound.
        self.ragged = not xp.real and bool((nest.below[-1][dim] != self.bound).any())

    def _all(self, low: int, high: int) -> Array:
        """Included instances of the blocks of levels `low` to `high`."""
        return math.prod(self.counts[low : high + 1], start=self.one)

    def _far(self, low: int, high: int) -> Array:
        """Distance from the first to the last position of the temporal loops of levels `low` to `high`."""
        return sum(((self.temporal[k] - 1) * self.step[k] for k in range(low, high + 1)), start=0 * self.one)

    def _outer(self, level: int) -> tuple[Array, Array, Array]:
        """Positions of the blocks of levels above `level`: how many come before the last one, whether that one is included, and
        what is left of the dim there."""
        xp = self._xp
        before, last, left = 0 * self.one, self.one, self.bound * self.one
        for k in reversed(range(level + 1, len(self.temporal))):
            digit = (left - 1) // self.step[k]
            before = before * self.temporal[k] + last * digit
            left = left - digit * self.step[k]
            digit = (left - 1) // self.spatial_step[k]
            before = before * self.counts[k] + last * xp.minimum(digit, self.counts[k])
            last = last * (digit < self.counts[k])
            left = left - digit * self.spatial_step[k]
        return before, last, left

    def positions(self) -> Array:
        """How many tiles with work there are, over all included instances and the whole walk."""
        before, last, _ = self._outer(self.level)
        return before + last

    def touched(self) -> Array:
        """Indices of the dim in those tiles, added up."""
        before, last, left = self._outer(self.level)
        return before * self.tile + last * left

    def restarts(self, level: int) -> list[Case]:
        """What happens to this dim when an outer loop of another dim advances: its temporal loops up to `level` start over."""
        low = self.level + 1
        if not self.ragged:
            weight = self._all(low, len(self.counts) - 1) * math.prod(self.temporal[level + 1 :], start=self.one)
            return [Case(weight, -self._far(low, level), self.tile, self.tile)]
        before, last, left = self._outer(level)
        cases = [Case(before * self._all(low, level), -self._far(low, level), self.tile, self.tile)]
        xp, zero = self._xp, 0 * self.one
        # Position of the last tile so far, and of the last one before it for instances that do not reach it.
        at = earlier = zero
        exists = self.one < 0
        for k in reversed(range(low, level + 1)):
            digit = (left - 1) // self.step[k]
            left = left - digit * self.step[k]
            earlier = xp.where(digit > 0, at + (digit - 1) * self.step[k], earlier + (self.temporal[k] - 1) * self.step[k])
            exists = exists | (digit > 0)
            at = at + digit * self.step[k]
            digit = (left - 1) // self.spatial_step[k]
            left = left - digit * self.spatial_step[k]
            inner, far = self._all(low, k - 1), self._far(low, k - 1)
            below = xp.minimum(digit, self.counts[k])
            above = xp.maximum(self.counts[k] - 1 - digit, zero) * exists
            cases.append(Case(last * below * inner, -(at + far), self.tile, self.tile))
            cases.append(Case(last * above * inner, -(earlier + far), self.tile, self.tile))
            last = last * (digit < self.counts[k])
        cases.append(Case(last, -at, left, xp.where(at > 0, self.tile, left)))
        return cases

    def advances(self, level: int) -> list[Case]:
        """What happens to this dim when its own temporal loop at `level` advances; inner ones start over."""
        low = self.level + 1
        shift = self.step[level] - self._far(low, level - 1)
        if not self.ragged:
            weight = self._all(low, len(self.counts) - 1) * math.prod(self.temporal[level + 1 :], start=self.one)
            return [Case(weight * (self.temporal[level] - 1), shift, self.tile, self.tile)]
        before, last, left = self._outer(level)
        xp, zero = self._xp, 0 * self.one
        instances = self._all(low, level)
        whole = before * (self.temporal[level] - 1) * instances
        digit = (left - 1) // self.step[level]
        left = left - digit * self.step[level]
        whole = whole + last * xp.maximum(digit - 1, zero) * instances
        last = last * (digit > 0)
        # The last advance: only instances that still have work make it.
        for k in reversed(range(low, level + 1)):
            if k < level:
                digit = (left - 1) // self.step[k]
                whole = whole + last * (digit > 0) * self._all(low, k)
                last = last * (digit == 0)
            digit = (left - 1) // self.spatial_step[k]
            whole = whole + last * xp.minimum(digit, self.counts[k]) * self._all(low, k - 1)
            last = last * (digit < self.counts[k])
            left = left - digit * self.spatial_step[k]
        return [Case(whole, shift, self.tile, self.tile), Case(last, shift, self.tile, left)]


def _moved(xp: Namespace, ranks: Iterable[dict[int, int]], dims: list[int], cases: list[list[Case]]) -> tuple[Array, Array]:
    """Over all combinations of the dims' cases: words of the boxes after, and of the boxes before and after in common."""
    words = common = 0 * cases[0][0].weight
    for combination in combinations(*cases):
        weight = math.prod((case.weight for case in combination[1:]), start=combination[0].weight)
        after = shared = weight
        for rank in ranks:
            shift = before = now = zero = 0 * weight
            for dim, case in zip(dims, combination, strict=True):
                coefficient = rank.get(dim, 0)
                shift = shift + coefficient * case.shift
                before = before + coefficient * (case.before - 1)
                now = now + coefficient * (case.after - 1)
            after = after * (now + 1)
            shared = shared * xp.maximum(xp.minimum(before + 1, shift + now + 1) - xp.maximum(shift, zero), zero)
        words = words + after
        common = common + shared
    return words, common


class Walk:
    """Array of one tensor at the tiles of one level, for some included instances."""

    def __init__(self, nest: Nest, shape: TensorShape, level: int, included: Included) -> None:
        self.nest, self.shape, self.level = nest, shape, level
        active = range(len(nest.problem.active))
        self.dims = [DimWalk(nest, dim, level, included) for dim in active]
        relevant = shape.groups()
        #: Dims that share ranks, and every other dim by itself.
        self.groups = [*relevant, *([dim] for dim in active if dim not in shape.dims)]
        ranks = [dict(rank) for rank in shape.ranks]
        self._ranks = [[rank for rank in ranks if rank.keys() & set(group)] for group in self.groups]
        self._known: dict[tuple[int, tuple[tuple[str, int], ...]], tuple[Array, Array]] = {}

    def _group(self, group: int, kinds: tuple[tuple[str, int], ...]) -> tuple[Array, Array]:
        """`_moved` of a group whose dims restart or advance at the stated levels."""
        key = (group, kinds)
        if key not in self._known:
            dims = self.groups[group]
            cases = []
            for dim, (kind, level) in zip(dims, kinds, strict=True):
                walk = self.dims[dim]
                cases.append(walk.advances(level) if kind == "advance" else walk.restarts(level))
            self._known[key] = _moved(self.nest.xp, self._ranks[group], dims, cases)
        return self._known[key]

    def delivered(self) -> Array:
        """Words delivered to all included instances together."""
        top = len(self.nest.temporal) - 1
        total = math.prod((self._group(g, (("restart", top),) * len(group))[0] for g, group in enumerate(self.groups)), start=self._one())
        for level in range(self.level + 1, top + 1):
            inside = self._inside(level)
            for dim in range(len(self.dims)):
                if (self.nest.temporal[level][dim] > 1).any():
                    words = common = self._one()
                    for group in range(len(self.groups)):
                        each = self._choose(group, dim, level, inside)
                        words, common = words * each[0], common * each[1]
                    total = total + words - common
        return total

    def _one(self) -> Array:
        return self.nest.xp.full(1, self.nest.steps)

    def _inside(self, level: int) -> Callable[[int, int], Array]:
        """Does the temporal loop of one dim at `level` lie inside that of another?"""
        place = self.nest.xp.places(self.nest.order[level])
        return lambda inner, outer: place[inner] < place[outer]

    def _choose(self, group: int, dim: int, level: int, inside: Callable[[int, int], Array]) -> tuple[Array, Array]:
        """`_moved` of a group when the loop of `dim` at `level` advances; which loops restart depends on each mapping's order."""
        options: list[list[tuple[str, int]]] = []
        others = [each for each in self.groups[group] if each != dim]
        for each in self.groups[group]:
            options.append([("advance", level)] if each == dim else [("restart", level - 1), ("restart", level)])
        xp = self.nest.xp
        words = common = 0 * self._one()
        for kinds in combinations(*options):
            chosen = self._one() > 0
            for each, (kind, at) in zip(self.groups[group], kinds, strict=True):
                if kind == "restart":
                    chosen = chosen & (inside(each, dim) == (at == level))
            if not others or chosen.any():
                now = self._group(group, kinds)
                words, common = xp.where(chosen, now[0], words), xp.where(chosen, now[1], common)
        return words, common

    def positions(self) -> Array:
        """Tiles with work, over all included instances and the whole walk."""
        return math.prod((walk.positions() for walk in self.dims), start=self._one())
