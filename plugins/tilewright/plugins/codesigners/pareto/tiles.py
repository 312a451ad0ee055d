"""Tiles of one operator in the named mapspace, and the least that any mapping with such a tile moves.

The named mapspace is DOSA's for Gemmini (`MAPSPACE`): three levels of loops, namely the array (input channels down the
rows, output channels across the columns), one block at the accumulator in the order P Q N C R S K, one block at DRAM in
any order. The tile of a mapping is how far its array and accumulator blocks reach together; it decides what the
scratchpad and the accumulator hold, and with the DRAM order how often. A level's words of a tensor are tile x product of
the DRAM loops from the innermost one that moves the tensor outward. Whatever the order is, its innermost loop moves all
tensors but those that it is irrelevant to: only these can save their irrelevant loops. That makes one *class* per tensor
that stays. Overlaps of sliding windows are taken from the cost model itself, the best over all orders of a class.

Symbols: N tiles of one operator (all products of divisors) times classes. Counts are words of the whole machine and run.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from tilewright import loopnest as ln
from tilewright.loopnest.mapspace import divisors
from tilewright.loopnest.nest import Nest
from tilewright.loopnest.traffic import delivered, tiles
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS, Dim

MAPSPACE = "gemmini: registers 1, accumulator order PQNCRSK, scratchpad loops 1, all DRAM orders"
#: Order of the accumulator's block, innermost first; groups, which no dim of DOSA's has, come last.
ACCUMULATOR_ORDER = "PQNCRSKG"
ACCUMULATOR, SCRATCHPAD, DRAM = 1, 2, 3
#: Tensors that may stay.
CLASSES = (WEIGHTS, INPUTS, OUTPUTS)
#: The spatial dims: down the rows, across the columns.
ROWS, COLUMNS = "C", "K"

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Tiles:
    """All tiles x classes of one operator; arrays have N entries unless said."""

    problem: ln.Problem
    #: int64[N, D]: reach of the array and the accumulator's block in each dim.
    reach: Ints
    #: Index of the tensor that stays while the innermost DRAM loop runs.
    stays: Ints
    #: Words of the scratchpad's tiles; partial sums of an accumulator tile, all columns together.
    scratchpad_words: Floats
    partial_sums: Floats
    #: Least words: weights into registers when they outlive the accumulator's block (`kept_weights`) and when they do not.
    weights: Floats
    kept_weights: Floats
    #: Weights and inputs into the scratchpad; partial sums into the accumulator.
    fills: Floats
    sums: Floats
    #: Reach along rows and columns; inner reach of the other dims that move weights is 1.
    rows: Ints
    columns: Ints
    narrow: NDArray[np.bool_]
    macs: int
    outputs: int

    def __len__(self) -> int:
        return len(self.stays)


def tiles_of(problem: ln.Problem) -> Tiles:
    """Every tile and class of an operator."""
    operator, dims = problem.operator, problem.dims
    bounds = problem.bounds
    grid = np.meshgrid(*[np.array(divisors(int(bound))) for bound in bounds], indexing="ij")
    reach = np.stack([axis.ravel() for axis in grid], axis=1).astype(np.int64)
    outer = bounds // reach
    sizes = {name: _words(problem, name, reach) for name in problem.tensors}
    relevant = {name: problem.relevant[problem.index(name)] for name in problem.tensors}
    whole = {name: np.where(relevant[name], outer, 1).prod(axis=1).astype(float) for name in problem.tensors}
    again = {name: np.where(relevant[name], 1, outer).prod(axis=1).astype(float) for name in problem.tensors}
    windows = _Windows(problem, reach)
    inner = np.where(relevant[WEIGHTS], 1, reach).prod(axis=1).astype(float)
    spatial = np.array([name in (ROWS, COLUMNS) for name in dims])
    narrow = np.where(relevant[WEIGHTS] & ~spatial, reach, 1).max(axis=1, initial=1) == 1
    macs = operator.macs
    fills, sums, kept = (np.empty((len(CLASSES), len(reach))) for _ in range(3))
    for at, stays in enumerate(CLASSES):
        times = {name: np.where(name == stays, 1.0, again[name]) for name in problem.tensors}
        fills[at] = sizes[WEIGHTS] * whole[WEIGHTS] * times[WEIGHTS] + windows.words(stays) * times[INPUTS]
        sums[at] = sizes[OUTPUTS] * whole[OUTPUTS] * times[OUTPUTS]
        kept[at] = macs / (inner * again[WEIGHTS] if stays == WEIGHTS else inner)
    chosen, tile = np.nonzero(~_dominated(np.stack([fills, sums, kept])))
    whole_reach, classes = reach[tile], np.array([problem.index(stays) for stays in CLASSES])

    def along(name: str) -> Ints:
        return whole_reach[:, dims.index(name)] if name in dims else np.ones(len(tile), np.int64)

    return Tiles(
        problem=problem,
        reach=whole_reach,
        stays=classes[chosen],
        scratchpad_words=(sizes[WEIGHTS] + sizes[INPUTS])[tile],
        partial_sums=sizes[OUTPUTS][tile],
        weights=(macs / inner)[tile],
        kept_weights=kept[chosen, tile],
        fills=fills[chosen, tile],
        sums=sums[chosen, tile],
        rows=along(ROWS),
        columns=along(COLUMNS),
        narrow=narrow[tile],
        macs=macs,
        outputs=int(operator.elements(OUTPUTS)),
    )


def _dominated(figures: Floats) -> NDArray[np.bool_]:
    """Which classes of a tile move at least as much as another one in every respect: ``figures[F, classes, N]`` -> ``[classes, N]``."""
    dominated = np.zeros(figures.shape[1:], bool)
    for one, other in itertools.permutations(range(figures.shape[1]), 2):
        no_less = (figures[:, one] >= figures[:, other]).all(axis=0)
        equal = (figures[:, one] == figures[:, other]).all(axis=0)
        dominated[one] |= no_less & (~equal | (other < one))
    return dominated


def _words(problem: ln.Problem, name: str, reach: Ints) -> Floats:
    """Words of the box that a tile covers in a tensor."""
    words: Floats = np.ones(len(reach))
    for rank in problem.operator.tensor(name).ranks:
        length = np.ones(len(reach), np.int64)
        for term in rank.terms:
            length += term.coefficient * (reach[:, problem.dims.index(term.dim)] - 1)
        words = words * length
    return words


class _Windows:
    """Least words of the inputs that any DRAM order of a class brings, as the cost model counts overlaps of windows."""

    def __init__(self, problem: ln.Problem, reach: Ints) -> None:
        self._problem = problem
        shape = problem.shapes[problem.index(INPUTS)]
        #: Dims of ranks that mix two dims: these slide.
        self._sliding = sorted({problem.active[dim] for rank in shape.mixed for dim, _ in rank})
        tile = _words(problem, INPUTS, reach)
        moved = problem.relevant[problem.index(INPUTS)]
        outer = problem.bounds // reach
        #: Without any overlap.
        self._plain = tile * np.where(moved, outer, 1).prod(axis=1)
        self._best = dict.fromkeys(problem.tensors, self._plain)
        if self._sliding:
            self._best = {stays: self._plain * share for stays, share in self._shares(reach).items()}

    def words(self, stays: str) -> Floats:
        """Least input words of each tile when `stays` is the tensor that stays."""
        best: Floats = self._best[stays]
        return best

    def _shares(self, reach: Ints) -> dict[str, Floats]:
        """Per staying tensor, the part of the words without overlap that is left, best over the orders of the sliding dims."""
        problem, sliding = self._problem, self._sliding
        small, where = np.unique(reach[:, sliding], axis=0, return_inverse=True)
        orders = list(itertools.permutations(range(len(sliding))))
        operator = msgspec.structs.replace(
            problem.operator, dims=tuple(Dim(d.name, d.bound if i in sliding else 1) for i, d in enumerate(problem.operator.dims))
        )
        alone = ln.Problem(operator, problem.architecture, problem.constraints)
        outer = problem.bounds[sliding] // small
        rows, chosen = self._distinct(outer, orders)
        levels, dims = len(problem.levels), len(problem.dims)
        temporal = np.ones((len(rows), levels, dims), np.int64)
        temporal[:, ACCUMULATOR, sliding] = small[rows]
        temporal[:, DRAM, sliding] = outer[rows]
        others = [d for d in range(dims) if d not in sliding]
        order = np.tile(np.arange(dims, dtype=np.int8), (len(rows), levels, 1))
        order[:, DRAM] = [[*(sliding[k] for k in orders[at]), *others] for at in chosen]
        keep = np.broadcast_to(ln.default_keep(alone), (len(rows), levels, len(problem.tensors))).copy()
        batch = ln.Batch(alone, temporal, np.ones_like(temporal), np.zeros_like(order), order, keep)
        words = np.empty(len(rows))
        for at in range(0, len(rows), 2048):
            nest = Nest.of_batch(batch[at : at + 2048])
            words[at : at + 2048] = delivered(nest, tiles(nest))[SCRATCHPAD][alone.index(INPUTS)]
        left = words / (_words(alone, INPUTS, temporal[:, ACCUMULATOR]) * outer[rows].prod(axis=1))
        innermost = np.array([next((k for k in orders[at] if outer[row, k] > 1), -1) for row, at in zip(rows, chosen, strict=True)])
        shares = {}
        for name in problem.tensors:
            moves = problem.relevant[problem.index(name)][sliding]
            # The innermost loop of the class does not move the tensor that stays; dims that slide may all be outside of it.
            free = ~moves[innermost] | (innermost < 0)
            if moves.all():
                free[:] = True
            best = np.ones(len(small))
            np.minimum.at(best, rows[free], left[free])
            shares[name] = best[where.ravel()]
        return shares

    @staticmethod
    def _distinct(outer: Ints, orders: list[tuple[int, ...]]) -> tuple[Ints, Ints]:
        """(row, order) pairs whose sequences of loops above 1 differ."""
        rows, chosen = [], []
        for pattern in np.unique(outer > 1, axis=0):
            mine = np.flatnonzero(((outer > 1) == pattern).all(axis=1))
            seen: dict[tuple[int, ...], int] = {}
            for at, order in enumerate(orders):
                seen.setdefault(tuple(k for k in order if pattern[k]), at)
            for at in seen.values():
                rows.append(mine)
                chosen.append(np.full(len(mine), at))
        return np.concatenate(rows), np.concatenate(chosen)
