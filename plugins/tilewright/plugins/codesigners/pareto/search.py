"""Hardware search over shared mapping pools.

What a mapping moves does not depend on the sizes of the hardware. So each operator gets one pool of mappings, drawn once
on the largest hardware of the design space; every hardware candidate then only filters the pools (what fits) and prices
them (`loopnest.Pool`). The search goes from a coarse grid to single steps, and ends by shrinking every size to what the
chosen mappings need. In the named mapspace the boxes of a lower bound (`bound`) say which tiles and hardware could still
be better: their mappings join the pools. Otherwise, and with what is left of the budget, the mappings chosen on the best
hardware so far are improved by moving single factors and loops.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import ClassVar

import msgspec
import numpy as np

from tilewright import loopnest as ln
from tilewright.loopnest.designing import Designing, Hardware, area
from tilewright.protocol.cost import Claim
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.mapping import Mapping
from tilewright.protocol.plugin import Context, DesignCandidate, DesignRequest

from .bound import Bound
from .choice import Choice, Figures
from .fronts import front
from .space import Space, named_applies, unknown
from .tiles import MAPSPACE, Tiles, tiles_of

#: Mappings per operator that stay after the coarse grid, for each hardware of the grid.
SHORTLIST = 24
#: Hardware candidates of the coarse grid, at most.
GRID = 150
#: Mappings per operator whose neighbours join the pool in one round.
SEEDS = 4
#: Part of the budget that fills the pools: half; where a bound leads the search, a tenth.
DRAWN, DRAWN_LED = 2, 10
#: Boxes of hardware that are bounded for each this many evaluations per operator.
EVALUATIONS_PER_BOX = 5
#: Boxes split between two updates of the best design.
ROUND = 20
#: Designs on each front, and boxes bounded at each area of a front.
FRONT, EVALUATIONS_PER_CAPPED_BOX = 12, 100

SPACES = ("named", "full")


class Pareto:
    """The co-designer plugin."""

    options: ClassVar[dict[str, str]] = {
        "space": "named: DOSA's mapspace of Gemmini, with a certified bound (default where it applies); full: all that the target allows",
        "front": f"designs on each side of the Pareto fronts to report beside the winner, 0 for none (default {FRONT})",
    }

    def search(self, request: DesignRequest, ctx: Context) -> Iterator[DesignCandidate]:
        """Yield better and better designs, then the other designs of the Pareto fronts."""
        yield from Search(request, ctx).run()


class Search:
    """One search: pools, hardware candidates, and what is known about them."""

    def __init__(self, request: DesignRequest, ctx: Context) -> None:
        self._ctx, self._designing = ctx, Designing(request, ctx)
        designing = self._designing
        #: Is the search led by the bound, and does it stay in the bound's mapspace?
        self.led, self.named = self._space_option()
        largest = designing.architecture(designing.largest)
        problems = [ln.Problem(operator, largest, designing.target.constraints()) for operator in designing.operators]
        self._spaces = [Space(problem, named=self.led) for problem in problems]
        self.pools: list[ln.Pool] = []
        self.best: Choice | None = None
        self._claim = Claim()
        self._priced: dict[Hardware, Choice | None] = {}
        #: While the grid is priced: per pool, what is among the best somewhere.
        self._short: list[set[int]] = []
        #: (operator, mapping) whose neighbours are in the pool already.
        self._varied: set[tuple[int, Mapping]] = set()
        self._tiles: list[Tiles] = []
        #: (operator, tile, side of the array) whose mappings are in the pool already.
        self._built: set[tuple[int, int, int]] = set()

    def _space_option(self) -> tuple[bool, bool]:
        request = self._designing.request
        applies = named_applies(self._designing.target, self._designing.operators)
        space = request.options.get("space", "named" if applies else "full")
        if space not in SPACES:
            raise InvalidInput(f"options.space: {space!r}, expected one of {', '.join(SPACES)}")
        if space == "named" and not applies:
            raise InvalidInput(f"options.space: 'named' is of targets built like gemmini, expected 'full' for {request.target!r}")
        return applies, space == "named"

    def candidate(self, choice: Choice) -> DesignCandidate:
        """A choice as an answer, with what is proven so far."""
        mappings = tuple(pool.batch.mapping(index) for pool, index in zip(self.pools, choice.indices, strict=True))
        return msgspec.structs.replace(self._designing.candidate(choice.hardware, mappings), claim=self._claim)

    def run(self) -> Iterator[DesignCandidate]:
        """Fill the pools, then search hardware and improve mappings in turn until the budget ends or nothing helps."""
        for choice in self._best():
            if np.isfinite(choice.value[0]):
                yield self.candidate(choice)
        for choice in self._fronts():
            yield self.candidate(choice)

    def _best(self) -> Iterator[Choice]:
        """Every choice that improves, and the last one again when more is proven of it."""
        self._fill()
        self._short = [set() for _ in self.pools]
        yield from self._improved(self._grid(), follow=False)
        self._shorten()
        if self.led:
            self._tiles = [tiles_of(space.problem) for space in self._spaces]
            self._ctx.progress(f"{sum(map(len, self._tiles))} tiles bounded")
            bound = self._bound()
            yield from self._led(bound, max(ROUND, self._designing.share // EVALUATIONS_PER_BOX), prove=True)
            self._prove(bound)
            if self.best is not None:
                yield self.best
        if self.led and not self.named:
            # What is proven is so of the named mapspace only, which is left now.
            self._claim = Claim()
            self._spaces = [Space(space.problem, named=False) for space in self._spaces]
        while not self._ctx.cancelled and not self._settled():
            yield from self._improved(self._steps())
            if not self._vary():
                break
            self._priced.clear()

    def _settled(self) -> bool:
        """Is the proven gap at most what was asked for?"""
        goal = self._ctx.budget.gap
        return self._claim.gap is not None and self._claim.gap <= (1e-9 if goal is None else goal)

    def _fill(self) -> None:
        """Draw the pools on the largest hardware, the given schedules among them."""
        share = max(1, self._designing.share // (DRAWN_LED if self.led else DRAWN))
        given = {schedule.operator: schedule.mapping for schedule in self._designing.request.start}
        for space in self._spaces:
            batch = space.sample(self._ctx.rng, share)
            if not self.led and space.problem.operator in given:
                batch = ln.Batch.concatenate([ln.Batch.from_mappings(space.problem, [given[space.problem.operator]]), batch])
            batch = batch[:share]
            self._ctx.charge(len(batch))
            self.pools.append(ln.Pool(batch))
            self._ctx.progress(f"pool of {len(batch)} mappings")

    def _grid(self) -> list[Hardware]:
        """Geometric steps of every parameter, as fine as `GRID` candidates allow, and the default."""
        axes = []
        fine = max(2, int(GRID ** (1 / max(1, len(self._designing.parameters)))))
        for allowed in self._designing.values:
            values = np.array(allowed)
            wanted = np.geomspace(values[0], values[-1], fine)
            axes.append(sorted({int(values[np.abs(np.log(values / want)).argmin()]) for want in wanted}))
        default = tuple(parameter.default for parameter in self._designing.parameters)
        usable = all(value in allowed for allowed, value in zip(self._designing.values, default, strict=True))
        return [*([default] if usable else []), *itertools.product(*axes)]

    def _improved(self, candidates: list[Hardware], *, follow: bool = True) -> Iterator[Choice]:
        """Price hardware; every new best is yielded and, to `follow`, its own neighbourhood is priced next."""
        todo = list(candidates)
        while todo and not self._ctx.cancelled:
            found = False
            for hardware in todo:
                choice = self._price(hardware)
                if choice is not None and (self.best is None or choice.value < self.best.value):
                    self.best, found = choice, True
                    yield choice
            todo = self._steps() if found and follow else []

    def _steps(self) -> list[Hardware]:
        """Unpriced neighbours of the best hardware: what its mappings need, and each parameter a little or a lot up or down."""
        if self.best is None:
            return []
        neighbours = [self._shrunk(self.best)]
        for at, values in enumerate(self._designing.values):
            here = values.index(self.best.hardware[at])
            wanted = {values[max(0, here - 1)], values[min(len(values) - 1, here + 1)]}
            for factor in (0.5, 0.7, 0.9, 1.1, 1.4, 2.0):
                wanted.add(min(values, key=lambda value, goal=factor * values[here]: (abs(value - goal), value)))  # type: ignore[misc]
            neighbours += [(*self.best.hardware[:at], value, *self.best.hardware[at + 1 :]) for value in sorted(wanted)]
        return [each for each in neighbours if each not in self._priced]

    def _shrunk(self, choice: Choice) -> Hardware:
        """The smallest values (one parameter after the other) on which every chosen mapping is still valid."""
        chosen = [ln.Pool(pool.batch[index : index + 1]) for pool, index in zip(self.pools, choice.indices, strict=True)]
        hardware = list(choice.hardware)
        for at, values in enumerate(self._designing.values):
            low, high = 0, values.index(hardware[at])
            while low < high:
                middle = (low + high) // 2
                there = self._designing.architecture((*hardware[:at], values[middle], *hardware[at + 1 :]))
                if all(np.isfinite(pool.on(there)[1][0]) for pool in chosen):
                    high = middle
                else:
                    low = middle + 1
            hardware[at] = values[high]
        return tuple(hardware)

    def _price(self, hardware: Hardware) -> Choice | None:
        """The best choice of mappings on this hardware; None when some operator has no valid one, or a limit is exceeded."""
        if hardware not in self._priced:
            figures = self.figures(hardware)
            self._priced[hardware] = (
                None if figures is None else figures.best(self._designing.request.objective, self._designing.most_cycles)
            )
        return self._priced[hardware]

    def figures(self, hardware: Hardware) -> Figures | None:
        """What the pools cost there; None when some operator has no valid mapping, or the area is too large."""
        architecture = self._designing.architecture(hardware)
        size = area(architecture)
        if size > self._designing.most_area:
            return None
        energies, cycles = [], []
        for at, (pool, count) in enumerate(zip(self.pools, self._designing.counts, strict=True)):
            delay, energy = pool.on(architecture)
            valid = np.isfinite(energy)
            if self._short:
                for score in (energy, delay.astype(float), energy * delay):
                    few = min(SHORTLIST, len(score))
                    self._short[at].update(np.argpartition(score, few - 1)[:few].tolist())
            if not valid.any():
                return None
            energies.append(np.where(valid, energy * count, np.inf))
            cycles.append(np.where(valid, delay * count, np.inf))
        return Figures(hardware, size, energies, cycles)

    def _shorten(self) -> None:
        """Keep of each pool what is among the best on some hardware of the coarse grid, and what the best choice uses."""
        short, self._short = self._short, []
        if self.best is None:
            return
        indices = []
        for at, index in enumerate(self.best.indices):
            kept = sorted(short[at] | {index})
            indices.append(kept.index(index))
            self.pools[at] = ln.Pool(self.pools[at].batch[np.array(kept)])
        self.best = Choice(**{**vars(self.best), "indices": tuple(indices)})
        self._priced.clear()

    def _bound(self) -> Bound:
        """The bound under the request's limits."""
        designing = self._designing
        space = tuple((values[0], values[-1]) for values in designing.values)
        build, objective = designing.target.architecture, designing.request.objective
        return Bound(self._tiles, designing.counts.tolist(), build, space, objective, designing.most_area, designing.most_cycles)

    def _led(self, bound: Bound, boxes: int, *, prove: bool) -> Iterator[Choice]:
        """Split boxes of the bound; the tiles and hardware that look best in a box become mappings and a candidate."""
        while bound.boxes < boxes and not self._ctx.cancelled and not (prove and self._settled()):
            if self.best is not None:
                bound.upper = min(bound.upper, self.best.value[0])
            wanted: dict[Hardware, None] = {}
            fresh: dict[int, list[ln.Batch]] = {}
            for _ in range(ROUND):
                if not bound.split() or (best := bound.best()) is None:
                    break
                box, picks = best
                # Where the area is limited, the widest array of the box mostly is too large.
                for side in box[0] if np.isfinite(self._designing.most_area) else box[0][1:]:
                    wanted[self._needed(picks.tolist(), side)] = None
                    self._build(picks.tolist(), side, fresh)
            for at, batches in fresh.items():
                self._join(at, ln.Batch.concatenate(batches))
            self._priced.clear()
            yield from self._improved(list(wanted), follow=False)
            if prove:
                self._prove(bound)
            if bound.best() is None:
                break
        yield from self._improved(self._steps())

    def _build(self, picks: list[int], side: int, fresh: dict[int, list[ln.Batch]]) -> None:
        """Add the mappings of these tiles on an array of this side to `fresh`, by operator, unless they were built before."""
        for at, pick in enumerate(picks):
            if (at, pick, side) not in self._built:
                self._built.add((at, pick, side))
                tiles, space = self._tiles[at], self._spaces[at]
                fresh.setdefault(at, []).append(space.of_tile(tiles.reach[pick], space.problem.tensors[tiles.stays[pick]], side))

    def _needed(self, picks: list[int], side: int) -> Hardware:
        """The smallest memories that hold these tiles on an array of this side, as far as the limits allow."""
        chosen = list(zip(self._tiles, picks, strict=True))
        words = max(tiles.scratchpad_words[pick] for tiles, pick in chosen)
        sums = max(tiles.partial_sums[pick] / _side(int(tiles.columns[pick]), side) for tiles, pick in chosen)
        needs = (side, -(-int(words) // 1024), -(-int(sums) * side // 256))
        return tuple(max(values[0], min(values[-1], need)) for need, values in zip(needs, self._designing.values, strict=True))

    def _prove(self, bound: Bound) -> None:
        if self.best is not None:
            bound.upper = min(bound.upper, self.best.value[0])
        if self.best is not None and np.isfinite([bound.lower, self.best.value[0]]).all():
            self._claim = Claim("best found", f"{MAPSPACE}; every {self._range()}", bound.lower, self.best.value[0] / bound.lower - 1)
            self._ctx.progress(f"{bound.boxes} boxes bounded", gap=self._claim.gap or 0.0)

    def _range(self) -> str:
        """The hardware that the bound is about."""
        ranges = zip(self._designing.parameters, self._designing.values, strict=True)
        return ", ".join(f"{parameter.name} {values[0]}..{values[-1]}" for parameter, values in ranges)

    def _join(self, at: int, batch: ln.Batch) -> int:
        """Evaluate what is new of a batch, as far as the budget allows; how many joined the pool."""
        batch = batch[unknown(batch, self.pools[at].batch)]
        left = self._ctx.budget.evaluations
        batch = batch if left is None else batch[:left]
        if len(batch):
            self._ctx.charge(len(batch))
            self.pools[at] = ln.Pool(ln.Batch.concatenate([self.pools[at].batch, batch]))
        return len(batch)

    def _vary(self) -> bool:
        """Add to each pool the neighbours of its best mappings on the best hardware; False when all are known or the budget is used."""
        if self.best is None:
            return False
        added = 0
        architecture = self._designing.architecture(self.best.hardware)
        for at, index in enumerate(self.best.indices):
            pool = self.pools[at]
            cycles, energy = pool.on(architecture)
            scores = energy / energy[index] + cycles / cycles[index]
            seeds = [index, *(int(i) for i in np.argsort(scores, kind="stable")[:SEEDS] if i != index and np.isfinite(scores[i]))]
            seeds = [seed for seed in seeds if (at, pool.batch.mapping(seed)) not in self._varied]
            self._varied.update((at, pool.batch.mapping(seed)) for seed in seeds)
            if seeds:
                added += self._join(at, self._spaces[at].neighbours(pool.batch[np.array(seeds)]))
        return added > 0

    def _fronts(self) -> Iterator[Choice]:
        """The non-dominated choices among the grid and, in the named mapspace, the best at areas in geometric steps."""
        count = int(self._designing.request.options.get("front", FRONT))
        if self.best is None or count < 1:
            return
        winner, most = self.best, self._designing.most_area
        own: list[Choice] = []
        choices: list[Choice] = []
        for hardware in dict.fromkeys([winner.hardware, *self._priced, *self._grid()]):
            if self._ctx.cancelled:
                return
            if figures := self.figures(hardware):
                own.append(figures.best(self._designing.request.objective, self._designing.most_cycles))
                choices += [figures.best(objective, self._designing.most_cycles) for objective in ("edp", "energy", "latency")]
        choices = [each for each in choices if each.cycles <= self._designing.most_cycles]
        if self.named and winner.area:
            for cap in self._caps(min(each.area for each in choices), winner.area, count // 2):
                fitting = [each for each in own if each.area <= cap]
                self._designing.most_area, self.best = cap, min(fitting, key=lambda each: each.value) if fitting else None
                self._priced.clear()
                for _ in self._led(self._bound(), max(3 * ROUND, self._designing.share // EVALUATIONS_PER_CAPPED_BOX), prove=False):
                    """What counts is the last one."""
                own += [self.best] if self.best is not None else []
            self._designing.most_area, self.best = most, winner
        yield from front([*choices, *(each for each in own if np.isfinite(each.value[0]))], count)

    def _caps(self, least: float, most: float, count: int) -> list[float]:
        """The area of the default hardware, and geometric steps between these two."""
        default = area(self._designing.target.architecture())
        steps = np.geomspace(max(least, most / 30), most, count + 1)[:-1].tolist()
        return [*([default] if least < default < most else []), *steps]


def _side(reach: int, side: int) -> int:
    """The widest block up to `side` that divides a reach."""
    return max(d for d in range(1, side + 1) if reach % d == 0)
