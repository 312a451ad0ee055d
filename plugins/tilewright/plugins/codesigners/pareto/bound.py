"""A lower bound on what any design in the named space costs, by branch and bound over boxes of hardware.

A box is an interval of every parameter. Inside of it no mapping can beat its tile priced with the box's best prices,
capacities and bandwidths, on the widest array side that divides its reach; a tile that does not fit the largest
memories of the box does not exist there. For the energy-delay product of the whole, (sum of E)(sum of C), tangents
``E + lambda C >= sum over operators of the least E + lambda C`` enclose all choices in a polygon; a product of
powers of two positive sums is least at a vertex of it. Boxes are split best first; the bound is the least over all boxes that are left.

Prices, capacities and bandwidths come from the target's architectures at the corners of a box, energies per word are
taken to rise with the size of a memory (a test compares with every mapping on every hardware of small spaces).
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tilewright import loopnest as ln
from tilewright.protocol.architecture import Architecture
from tilewright.protocol.cost import Objective, objective_value

from .choice import PRODUCTS
from .tiles import ACCUMULATOR, DRAM, SCRATCHPAD, Floats, Ints, Tiles

#: Tangents per box, at most; the polygon is then as good as exact.
TANGENTS = 12
#: A box whose bound is this close to the best design known is not split further.
CLOSE = 1e-6

Box = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Corner:
    """The best of everything in a box: pJ per word, capacities in words, words per cycle."""

    side: int
    compute: float
    register: float
    accumulator: float
    scratchpad: float
    dram: float
    scratchpad_words: float
    column_words: float
    column_bandwidth: float
    scratchpad_bandwidth: float
    dram_bandwidth: float
    area: float

    @classmethod
    def of(cls, build: Callable[..., Architecture], box: Box) -> Corner:
        """From the architectures at the corners of a box over (array side, scratchpad, accumulator)."""
        (narrow, wide), (small, large), (few, many) = box
        cheap, roomy = (
            build(pe=wide, scratchpad_kib=small, accumulator_kib=few),
            build(pe=narrow, scratchpad_kib=large, accumulator_kib=many),
        )
        prices = ln.Prices(cheap)
        per_word = [
            min(row) / level.block_words
            for row, level in zip(zip(prices.read, prices.fill, prices.update, strict=True), cheap.levels, strict=True)
        ]
        least = build(pe=narrow, scratchpad_kib=small, accumulator_kib=few)
        areas = ln.Prices(least)

        def words(level: int) -> float:
            return float(roomy.levels[level].usable_words or 0)

        def bandwidth(level: int) -> float:
            return cheap.levels[level].shared_bandwidth or math.inf

        return cls(
            wide, prices.compute, per_word[0], per_word[ACCUMULATOR], per_word[SCRATCHPAD], per_word[DRAM],
            # Rows are filled up: a memory may hold up to a row more than its size says.
            words(SCRATCHPAD) + wide - 1, words(ACCUMULATOR), bandwidth(ACCUMULATOR), bandwidth(SCRATCHPAD), bandwidth(DRAM),
            areas.compute_area + sum(areas.area),
        )  # fmt: skip


@dataclass(order=True)
class _Node:
    """A box, its bound and the tiles that may still be part of a better design there."""

    bound: float
    box: Box = field(compare=False)
    #: Indices into the table of all tiles, ascending.
    alive: Ints = field(compare=False)
    #: The tile of each operator at the best vertex.
    choice: Ints = field(compare=False)


class Bound:
    """The search tree. `lower` only rises, and stays below every design of the space."""

    def __init__(
        self,
        tiles: Sequence[Tiles],
        counts: Sequence[float],
        build: Callable[..., Architecture],
        space: Box,
        objective: Objective = "edp",
        area: float = math.inf,
        most_cycles: float = math.inf,
    ) -> None:
        self._build, self._objective, self._area, self._most_cycles = build, objective, area, most_cycles
        self.tiles = tiles
        sizes = [len(each) for each in tiles]
        self.start = np.concatenate([[0], np.cumsum(sizes)])
        self._layer = np.repeat(np.arange(len(tiles)), sizes)
        self._table = {name: np.concatenate([getattr(each, name) for each in tiles]) for name in _COLUMNS}
        self._count, self._macs, self._outputs = (
            np.array(values, float)[self._layer] for values in (counts, [t.macs for t in tiles], [t.outputs for t in tiles])
        )
        self._longest = int(max(self._table["rows"].max(), self._table["columns"].max()))
        self._blocks: dict[int, Ints] = {}
        self.boxes = 0
        self.upper = math.inf
        self._heap: list[_Node] = []
        self._settled = math.inf
        self._push(space, np.arange(len(self._layer)), 0.0)

    @property
    def lower(self) -> float:
        """No design of the space costs less than this."""
        return min(self._heap[0].bound if self._heap else math.inf, self._settled, self.upper)

    def best(self) -> tuple[Box, Ints] | None:
        """The most promising box and, per operator, the index of the tile chosen there; None when nothing is left."""
        return (self._heap[0].box, self._heap[0].choice - self.start[:-1]) if self._heap else None

    def split(self) -> bool:
        """Split the most promising box; False when none is left that could hold a better design."""
        while self._heap:
            node = heapq.heappop(self._heap)
            if node.bound >= self.upper * (1 - CLOSE):
                # Everything left is at least this good.
                self._settled = min(self._settled, node.bound)
                self._heap.clear()
                return False
            halves = self._halves(node)
            if not halves:
                self._settled = min(self._settled, node.bound)
                continue
            for box in halves:
                self._push(box, node.alive, node.bound)
            return True
        return False

    def _halves(self, node: _Node) -> list[Box]:
        """The box cut in two where it is widest relative to its size."""
        widths = [math.log((high + 1) / low) if high > low else 0.0 for low, high in node.box]
        # The side of the array decides most: a coarse interval of it says little.
        widths[0] *= 2
        at = max(range(len(widths)), key=lambda i: widths[i])
        low, high = node.box[at]
        if low == high:
            return []
        middle = min(high - 1, max(low, math.isqrt(low * high)))
        return [(*node.box[:at], part, *node.box[at + 1 :]) for part in ((low, middle), (middle + 1, high))]

    def _push(self, box: Box, alive: Ints, floor: float) -> None:
        """Bound a box inside of one whose bound was `floor`."""
        self.boxes += 1
        corner = Corner.of(self._build, box)
        if corner.area > self._area:
            return
        energy, cycles, alive = self._priced(corner, alive)
        starts = np.searchsorted(self._layer[alive], np.arange(len(self.tiles)))
        present = np.searchsorted(self._layer[alive], np.arange(len(self.tiles)), side="right") > starts
        if not present.all():
            return
        bound, choice, slack = self._enclosed(energy, cycles, starts)
        bound = max(bound, floor)
        if bound >= self.upper:
            self._settled = min(self._settled, bound)
            return
        least_energy, least_cycles = np.minimum.reduceat(energy, starts), np.minimum.reduceat(cycles, starts)
        of = self._layer[alive]
        kept = (energy - least_energy[of] <= slack[0]) & (cycles - least_cycles[of] <= slack[1])
        heapq.heappush(self._heap, _Node(bound, box, alive[kept], alive[choice]))

    def _priced(self, corner: Corner, alive: Ints) -> tuple[Floats, Floats, Ints]:
        """Least pJ and cycles of the tiles that fit, with their counts, and which they are."""
        widest = self._widest(corner.side)
        columns = widest[self._table["columns"][alive]]
        fits = self._table["scratchpad_words"][alive] <= corner.scratchpad_words
        fits &= self._table["partial_sums"][alive] <= corner.column_words * columns
        alive, columns = alive[fits], columns[fits]
        t = {name: values[alive] for name, values in self._table.items()}
        rows = widest[t["rows"]]
        macs, outputs, count = self._macs[alive], self._outputs[alive], self._count[alive]
        kept = t["narrow"] & (t["rows"] == rows) & (t["columns"] == columns)
        weights = np.where(kept, t["kept_weights"], t["weights"])
        accumulator = 2 * macs / rows - 2 * outputs + t["sums"]
        scratchpad = weights + t["fills"] + macs / columns
        dram = t["fills"] + 2 * t["sums"] - outputs
        energy = (
            corner.compute * macs
            + corner.register * (macs + weights)
            + corner.accumulator * accumulator
            + corner.scratchpad * scratchpad
            + corner.dram * dram
        )
        cycles = macs / (rows * columns)
        for busy in (
            accumulator / (corner.column_bandwidth * columns),
            scratchpad / corner.scratchpad_bandwidth,
            dram / corner.dram_bandwidth,
        ):
            cycles = np.maximum(cycles, busy)
        return energy * count, cycles * count, alive

    def _widest(self, side: int) -> Ints:
        """By reach: the widest array block up to `side` that divides it."""
        if side not in self._blocks:
            blocks = np.ones(self._longest + 1, np.int64)
            for block in range(2, side + 1):
                blocks[::block] = block
            self._blocks[side] = blocks
        return self._blocks[side]

    def _enclosed(self, energy: Floats, cycles: Floats, starts: Ints) -> tuple[float, Ints, tuple[float, float]]:
        """Bound on the objective, the tiles of the best choice seen, and how much energy and cycles a better design may waste."""
        first, last = _choose(energy, cycles, starts), _choose(cycles, energy, starts)
        least = float(energy[first].sum()), float(cycles[last].sum())
        points = [(float(energy[pick].sum()), float(cycles[pick].sum()), pick) for pick in (first, last)]
        if least[1] > self._most_cycles:
            return math.inf, last, (0.0, 0.0)
        if self._objective not in PRODUCTS:
            # The second of two objectives adds less than 1, and the first may be rounded down to whole pJ.
            if self._objective.startswith("latency"):
                return least[1], last, (math.inf, self.upper - least[1])
            return math.floor(least[0]), self._best_of(points), (self.upper + 1 - least[0], math.inf)
        a, b = PRODUCTS[self._objective]
        # Tangents E + lambda C >= m, by lambda; the outermost ones are E >= least and C >= least.
        tangents: list[tuple[float, float, float]] = [(1.0, 0.0, least[0]), (0.0, 1.0, least[1])]
        bound, vertex = least[0] ** a * least[1] ** b, least
        for _ in range(TANGENTS):
            weight = b * vertex[0] / (a * vertex[1])
            pick = _choose(energy + weight * cycles, cycles, starts)
            points.append((float(energy[pick].sum()), float(cycles[pick].sum()), pick))
            tangents.append((1.0, weight, points[-1][0] + weight * points[-1][1]))
            tangents.sort(key=lambda each: (each[1] / each[0]) if each[0] else math.inf)
            before = bound
            bound, vertex = min(((e**a * c**b, (e, c)) for e, c in _vertices(tangents)), key=lambda each: each[0])
            if bound >= self.upper or bound <= before * (1 + CLOSE):
                break
        wasted = (self.upper / least[1] ** b) ** (1 / a) - least[0], (self.upper / least[0] ** a) ** (1 / b) - least[1]
        return bound, self._best_of(points), wasted

    def _best_of(self, points: list[tuple[float, float, Ints]]) -> Ints:
        """The tiles of the (energy, cycles, tiles) with the least objective among those that are fast enough; else the fastest."""
        fast = [each for each in points if each[1] <= self._most_cycles] or [min(points, key=lambda each: each[1])]
        return min(fast, key=lambda each: objective_value(self._objective, each[0], each[1]))[2]


def _vertices(tangents: list[tuple[float, float, float]]) -> list[tuple[float, float]]:
    """(E, C) where successive tangents ``a E + b C = m`` meet."""
    found = []
    for (a, b, m), (c, d, n) in itertools.pairwise(tangents):
        determinant = a * d - b * c
        found.append(((m * d - b * n) / determinant, (a * n - m * c) / determinant))
    return found


def _choose(first: Floats, second: Floats, starts: Ints) -> Ints:
    """Per operator the index with the least `first`, among equals the least `second`."""
    least = np.minimum.reduceat(first, starts)
    ends = np.append(starts[1:], len(first))
    equal = np.where(first <= np.repeat(least, ends - starts), second, np.inf)
    lowest = np.minimum.reduceat(equal, starts)
    hits = np.flatnonzero(equal <= np.repeat(lowest, ends - starts))
    return hits[np.searchsorted(hits, starts)]


_COLUMNS = ("scratchpad_words", "partial_sums", "weights", "kept_weights", "fills", "sums", "rows", "columns", "narrow")
