"""Accesses under the ``walk`` semantics, where instances differ when loops are ragged.

Counts per instance are those of the busiest instance, the first one; counts of the machine are added up over all
instances exactly. Without ragged loops every instance is alike and the accounts of `accesses` apply.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np

from .accesses import Traffic, account
from .arrays import Array
from .nest import Nest
from .special import repeats
from .traffic import distinct, multicast, tiles
from .walk import DimWalk, Included, Walk


def settle(nest: Nest) -> Nest:
    """The nest with the used units and steps of a walk: those that have any work."""
    if not _ragged(nest):
        return nest
    everything, first = nest.spatial, _ones(nest)
    top, active = len(nest.temporal) - 1, range(len(nest.problem.active))

    def units(level: int) -> Array:
        walks = (DimWalk(nest, dim, level, everything) for dim in active)
        return math.prod((sum(case.weight for case in walk.restarts(top)) for walk in walks), start=np.ones_like(nest.steps))

    steps = math.prod((DimWalk(nest, dim, -1, first).positions() for dim in active), start=np.ones_like(nest.steps))
    return dataclasses.replace(nest, used=[units(i) for i in range(top + 1)], used_compute=units(-1), steps=steps)


def walk_traffic(nest: Nest, keep: list[list[Array]]) -> Traffic:
    """All accesses of a walk, given what is kept (bool ``[level][tensor]``)."""
    problem = nest.problem
    if not _ragged(nest) and problem.shapes[problem.output].compact:
        first = _ones(nest)
        delivered = [[Walk(nest, shape, i, first).delivered() for shape in problem.shapes] for i in range(len(keep))]
        return account(nest, tiles(nest), delivered, multicast(nest), keep)
    return _Account(nest, keep).traffic()


def _ragged(nest: Nest) -> bool:
    return not nest.xp.real and bool((nest.below[-1] != nest.problem.active_bounds[:, None]).any())


def _ones(nest: Nest) -> Included:
    return [nest.xp.full(1, rows) for rows in nest.spatial]


class _Account:
    """Accesses of the first instance, and of the machine, from the deliveries to either."""

    def __init__(self, nest: Nest, keep: list[list[Array]]) -> None:
        self.nest, self.keep = nest, keep
        self.levels, self.tensors = range(len(keep)), range(len(nest.problem.tensors))
        self.zero = np.zeros_like(nest.steps)
        self.again = repeats(nest)

    def traffic(self) -> Traffic:
        """All rows."""
        nest = self.nest
        tables = [[[self.zero for _ in self.tensors] for _ in self.levels] for _ in range(7)]
        reads, fills, updates, all_reads, all_fills, all_updates, requests = tables
        shares = [self._share(level, _ones(nest)) for level in self.levels]
        delivered = [[self.zero for _ in self.tensors] for _ in self.levels]
        for t, shape in enumerate(nest.problem.shapes):
            for p in self.levels:
                here = self.keep[p][t]
                above = self._kept_above(p, t)
                delivered[p][t] = Walk(nest, shape, p, _ones(nest)).delivered()
                asked, all_asked = self._asked(t, p)
                requests[p][t] = asked
                passes = self._passes(t, p)
                fill = np.where(here & above, passes * delivered[p][t], 0)
                all_fill = np.where(here & above, passes * Walk(nest, shape, p, nest.spatial).delivered(), 0)
                if t != nest.problem.output:
                    reads[p][t], all_reads[p][t] = np.where(here, asked, 0), np.where(here, all_asked, 0)
                    fills[p][t], all_fills[p][t] = fill, all_fill
                    continue
                all_share = self._share(p, nest.spatial)
                updates[p][t], all_updates[p][t] = np.where(here, asked, 0), np.where(here, all_asked, 0)
                reads[p][t] = np.where(here, asked - shares[p], 0)
                all_reads[p][t] = np.where(here, all_asked - all_share, 0)
                fills[p][t] = np.where(here & above, fill - shares[p], 0)
                all_fills[p][t] = np.where(here & above, all_fill - all_share, 0)
        machine = (all_reads, all_fills, all_updates)
        return Traffic(tiles(nest), delivered, multicast(nest), reads, fills, updates, requests, shares, machine)

    def _passes(self, t: int, level: int) -> Array | int:
        """How often the tiles of a level (-1: the unit) are delivered for all passes of a non-linear function."""
        return 1 if self.again is None or t == self.nest.problem.output else self.again[level + 1]

    def _kept_above(self, level: int, t: int) -> Array:
        above = self.zero > 0
        for i in self.levels[level + 1 :]:
            above = above | self.keep[i][t]
        return above

    def _asked(self, t: int, parent: int) -> tuple[Array, Array]:
        """Words that one instance of `parent` (the first), and all of them, are asked for by the next level inside that keeps it."""
        shape = self.nest.problem.shapes[t]
        one = everything = self.zero
        between = self.zero == 0
        for child in range(parent - 1, -2, -1):
            chosen = between if child < 0 else between & self.keep[child][t]
            if chosen.any():
                for machine in (False, True):
                    included, factor = self._below(t, child, parent, machine)
                    walk = Walk(self.nest, shape, child, included)
                    words = factor * self._passes(t, child) * (walk.delivered() if child >= 0 else walk.positions())
                    if machine:
                        everything = np.where(chosen, words, everything)
                    else:
                        one = np.where(chosen, words, one)
            if child >= 0:
                between = between & ~self.keep[child][t]
        return one, everything

    def _below(self, t: int, child: int, parent: int, machine: bool) -> tuple[Included, Array]:
        """Children that get deliveries of their own: those that differ in a dim of the tensor, and a factor for windows that coincide."""
        nest = self.nest
        shape = nest.problem.shapes[t]
        included, factor = [], np.ones_like(nest.steps)
        for k in self.levels:
            if k > parent:
                included.append(nest.spatial[k] if machine else np.ones_like(nest.spatial[k]))
                continue
            rows = np.ones_like(nest.spatial[k])
            if k > child:
                if not nest.problem.shares(k, t):
                    included.append(nest.spatial[k])
                    continue
                for group in shape.groups():
                    several = sum((nest.spatial[k][dim] > 1).astype(np.int64) for dim in group) > 1
                    for dim in group:
                        rows[dim] = np.where(several, 1, nest.spatial[k][dim])
                    factor = factor * np.where(several, distinct(nest, k, shape, group), 1)
            included.append(rows)
        return included, factor

    def _share(self, level: int, included: Included) -> Array:
        """Words of the written tensor that the included instances of a level ever hold."""
        nest = self.nest
        shape = nest.problem.shapes[nest.problem.output]
        total = np.ones_like(nest.steps)
        top = len(nest.temporal) - 1
        for group in shape.groups():
            walks = [DimWalk(nest, dim, level, included) for dim in group]
            ranks = [rank for rank in shape.ranks if {dim for dim, _ in rank} <= set(group)]
            if len(group) == 1 and len(ranks) == 1 and ranks[0][0][1] == 1:
                total = total * walks[0].touched()
            else:
                total = total * _held(nest, group, [dict(rank) for rank in ranks], level, included)
        for dim in range(len(nest.problem.active)):
            if dim not in shape.dims:
                total = total * sum(case.weight for case in DimWalk(nest, dim, level, included).restarts(top))
        return total


def _held(nest: Nest, dims: list[int], ranks: list[dict[int, int]], level: int, included: Included) -> Array:
    """Words along some ranks that tiles of the included instances ever cover, instance by instance; by enumeration."""
    result = np.zeros_like(nest.steps)
    bounds = [int(nest.problem.active_bounds[dim]) for dim in dims]
    blocks = range(level + 1, len(nest.temporal))
    for b in range(len(result)):
        tile = [int(nest.below[level + 1][dim][b]) for dim in dims]
        instances = [[i * int(nest.below[k][dim][b]) for i in range(int(included[k][dim][b]))] for dim in dims for k in blocks]
        visits = [[i * int(nest.step[k][dim][b]) for i in range(int(nest.temporal[k][dim][b]))] for dim in dims for k in blocks]
        per_dim = len(blocks)
        for instance in itertools.product(*instances):
            words: set[tuple[int, ...]] = set()
            for visit in itertools.product(*visits):
                start = [
                    sum(instance[i * per_dim : (i + 1) * per_dim]) + sum(visit[i * per_dim : (i + 1) * per_dim]) for i in range(len(dims))
                ]
                extent = [min(size, bound - at) for size, bound, at in zip(tile, bounds, start, strict=True)]
                if min(extent) < 1:
                    continue
                box = []
                for rank in ranks:
                    low = sum(rank.get(dim, 0) * at for dim, at in zip(dims, start, strict=True))
                    length = 1 + sum(rank.get(dim, 0) * (size - 1) for dim, size in zip(dims, extent, strict=True))
                    box.append(range(low, low + length))
                words.update(itertools.product(*box))
            result[b] += len(words)
    return result
