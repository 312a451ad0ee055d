"""Hardware search over shared mapping pools.

What a mapping moves does not depend on the sizes of the hardware. So each operator gets one pool of mappings, drawn once
on the largest hardware of the design space; every hardware candidate then only filters the pools (what fits) and prices
them (`loopnest.Pool`). For the energy-delay product of a whole network, (sum of E)(sum of C), the best choice of one
mapping per operator on given hardware is found by a fixpoint: minimize E + lambda C per operator with lambda = E / C of
the choice before. The search goes from a coarse grid to single steps, and ends by shrinking every size to what the chosen
mappings need. Half of the budget fills the pools, the rest improves the mappings chosen on the best hardware so far by
moving single factors.

Claims are ``best found``: a pool is a sample of the mapspace.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tilewright import loopnest as ln
from tilewright.loopnest.mapspace import TEMPORAL, Mapspace, Points, prime_factors
from tilewright.protocol.architecture import Architecture, Parameter
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.mapping import Mapping
from tilewright.protocol.plugin import Context, DesignCandidate, DesignRequest
from tilewright.protocol.workload import Operator

#: Mappings per operator that stay after the coarse grid, for each hardware of the grid.
SHORTLIST = 24
#: Hardware candidates of the coarse grid, at most.
GRID = 150
#: Iterations of the fixpoint; it settles after two or three.
SETTLED = 12
#: Mappings per operator whose neighbours join the pool in one round.
SEEDS = 4
#: Attempts to move a prime factor of a drawn mapping into space.
WIDENINGS = 40

Hardware = tuple[int, ...]


@dataclass
class Choice:
    """Hardware with one mapping (index into its pool) per operator."""

    hardware: Hardware
    indices: tuple[int, ...]
    #: The objective, then what breaks ties.
    value: tuple[float, float]


class Pareto:
    """The co-designer plugin."""

    options: ClassVar[dict[str, str]] = {}

    def search(self, request: DesignRequest, ctx: Context) -> Iterator[DesignCandidate]:
        """Yield better and better designs."""
        search = Search(request, ctx)
        for choice in search.run():
            yield search.candidate(choice)


class Search:
    """One search: pools, hardware candidates, and what is known about them."""

    def __init__(self, request: DesignRequest, ctx: Context) -> None:
        self.request, self.ctx = request, ctx
        self.target = ctx.plugin("targets", request.target)
        self.parameters: tuple[Parameter, ...] = self.target.design_space().parameters
        self.areas = {limit: value for limit, value in request.limits.items() if limit == "area_mm2"}
        known = {parameter.name for parameter in self.parameters} | {"area_mm2"}
        for name in request.limits:
            if name not in known:
                raise InvalidInput(f"limits: {name!r} is unknown, expected one of {', '.join(sorted(known))}")
        self.operators: list[Operator] = []
        counts = []
        for each in request.workloads:
            for task in each.workload.tasks:
                if task.operator.is_contraction:
                    self.operators.append(task.operator)
                    counts.append(task.count * each.weight)
        if not self.operators:
            raise InvalidInput("workloads: no contraction among their operators, expected at least one to design for")
        self.counts = np.array(counts)
        self.pools: list[ln.Pool] = []
        self.best: Choice | None = None
        self._priced: dict[Hardware, Choice | None] = {}
        #: While the grid is priced: per pool, what is among the best somewhere.
        self._short: list[set[int]] = []
        #: (operator, mapping) whose neighbours are in the pool already.
        self._varied: set[tuple[int, Mapping]] = set()

    def architecture(self, hardware: Hardware) -> Architecture:
        """The target with these parameter values."""
        values = {parameter.name: value for parameter, value in zip(self.parameters, hardware, strict=True)}
        architecture: Architecture = self.target.architecture(**values)
        return architecture

    def candidate(self, choice: Choice) -> DesignCandidate:
        """A choice as an answer."""
        values = {parameter.name: value for parameter, value in zip(self.parameters, choice.hardware, strict=True)}
        mappings = tuple(pool.batch.mapping(index) for pool, index in zip(self.pools, choice.indices, strict=True))
        return DesignCandidate(values, mappings)

    def run(self) -> Iterator[Choice]:
        """Fill the pools, then search hardware and improve mappings in turn until the budget ends or nothing helps."""
        self._fill()
        self._short = [set() for _ in self.pools]
        yield from self._improved(self._grid(), follow=False)
        self._shorten()
        while not self.ctx.cancelled:
            yield from self._improved(self._steps())
            if not self._vary():
                return
            self._priced.clear()

    def _allows(self, parameter: Parameter, value: int) -> bool:
        return value <= self.request.limits.get(parameter.name, value)

    def _largest(self) -> Architecture:
        return self.architecture(tuple(max(v for v in p.values if self._allows(p, v)) for p in self.parameters))

    def _fill(self) -> None:
        """Draw the pools on the largest hardware, the given schedules among them."""
        budget = self.ctx.budget.evaluations
        share = max(1, (budget or 20_000) // (2 * len(self.operators)))
        largest = self._largest()
        given = {schedule.operator: schedule.mapping for schedule in self.request.start}
        for operator in self.operators:
            problem = ln.Problem(operator, largest, self.target.constraints())
            space = Mapspace(problem)
            batch = space.batch(_widened(space, space.sample(self.ctx.rng, share), self.ctx.rng))
            if operator in given:
                batch = ln.Batch.concatenate([ln.Batch.from_mappings(problem, [given[operator]]), batch])
            batch = batch[:share]
            self.ctx.charge(len(batch))
            self.pools.append(ln.Pool(batch))
            self.ctx.progress(f"pool of {len(batch)} mappings")

    def _grid(self) -> list[Hardware]:
        """Geometric steps of every parameter, as fine as `GRID` candidates allow, and the default."""
        axes = []
        fine = max(2, int(GRID ** (1 / max(1, len(self.parameters)))))
        for parameter in self.parameters:
            values = np.array([value for value in parameter.values if self._allows(parameter, value)])
            wanted = np.geomspace(values[0], values[-1], fine)
            axes.append(sorted({int(values[np.abs(np.log(values / want)).argmin()]) for want in wanted}))
        default = tuple(parameter.default for parameter in self.parameters)
        usable = all(self._allows(p, v) for p, v in zip(self.parameters, default, strict=True))
        return [*([default] if usable else []), *itertools.product(*axes)]

    def _improved(self, candidates: list[Hardware], *, follow: bool = True) -> Iterator[Choice]:
        """Price hardware; every new best is yielded and, to `follow`, its own neighbourhood is priced next."""
        todo = list(candidates)
        while todo and not self.ctx.cancelled:
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
        for at, parameter in enumerate(self.parameters):
            values = [value for value in parameter.values if self._allows(parameter, value)]
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
        for at, parameter in enumerate(self.parameters):
            values = parameter.values
            low, high = 0, values.index(hardware[at])
            while low < high:
                middle = (low + high) // 2
                there = self.architecture((*hardware[:at], values[middle], *hardware[at + 1 :]))
                if all(np.isfinite(pool.on(there)[1][0]) for pool in chosen):
                    high = middle
                else:
                    low = middle + 1
            hardware[at] = values[high]
        return tuple(hardware)

    def _price(self, hardware: Hardware) -> Choice | None:
        """The best choice of mappings on this hardware; None when some operator has no valid one, or a limit is exceeded."""
        if hardware not in self._priced:
            self._priced[hardware] = self._choose(hardware)
        return self._priced[hardware]

    def _choose(self, hardware: Hardware) -> Choice | None:
        architecture = self.architecture(hardware)
        if self.areas and _area(architecture) > self.areas["area_mm2"]:
            return None
        energies, cycles = [], []
        for at, (pool, count) in enumerate(zip(self.pools, self.counts, strict=True)):
            delay, energy = pool.on(architecture)
            if self._short:
                for score in (energy, delay.astype(float), energy * delay):
                    few = min(SHORTLIST, len(score))
                    self._short[at].update(np.argpartition(score, few - 1)[:few].tolist())
            if not np.isfinite(energy).any():
                return None
            energies.append(np.where(np.isfinite(energy), energy * count, np.inf))
            cycles.append(np.where(np.isfinite(energy), delay * count, np.inf))
        return self._fixpoint(hardware, energies, cycles)

    def _fixpoint(self, hardware: Hardware, energies: list[NDArray[Any]], cycles: list[NDArray[Any]]) -> Choice:
        """One mapping per operator that minimizes the objective of the whole."""
        objective = self.request.objective
        if objective != "edp":
            first, second = (energies, cycles) if objective == "energy" else (cycles, energies)
            picks = [int(np.lexsort((b, a))[0]) for a, b in zip(first, second, strict=True)]
            value = (_total(first, picks), _total(second, picks))
            return Choice(hardware, tuple(picks), value)
        picks = [int(np.argmin(e * c)) for e, c in zip(energies, cycles, strict=True)]
        best = (np.inf, picks)
        for _ in range(SETTLED):
            energy, delay = _total(energies, picks), _total(cycles, picks)
            if energy * delay >= best[0]:
                break
            best = (energy * delay, picks)
            picks = [int(np.argmin(e + energy / delay * c)) for e, c in zip(energies, cycles, strict=True)]
        return Choice(hardware, tuple(best[1]), (best[0], _total(energies, best[1])))

    def _shorten(self) -> None:
        """Keep of each pool what is among the best on some hardware of the coarse grid, and what the best choice uses."""
        if self.best is None:
            return
        indices = []
        for at, index in enumerate(self.best.indices):
            kept = sorted(self._short[at] | {index})
            indices.append(kept.index(index))
            self.pools[at] = ln.Pool(self.pools[at].batch[np.array(kept)])
        self.best = Choice(self.best.hardware, tuple(indices), self.best.value)
        self._short = []
        self._priced.clear()

    def _vary(self) -> bool:
        """Add to each pool the neighbours of its best mappings on the best hardware; False when all are known or the budget is used."""
        if self.best is None:
            return False
        added = 0
        architecture = self.architecture(self.best.hardware)
        for at, index in enumerate(self.best.indices):
            pool = self.pools[at]
            space = Mapspace(pool.batch.problem)
            cycles, energy = pool.on(architecture)
            scores = energy / energy[index] + cycles / cycles[index]
            seeds = [index, *(int(i) for i in np.argsort(scores, kind="stable")[:SEEDS] if i != index and np.isfinite(scores[i]))]
            parts = []
            for seed in seeds:
                if (at, pool.batch.mapping(seed)) in self._varied:
                    continue
                self._varied.add((at, pool.batch.mapping(seed)))
                point = space.points(pool.batch[seed : seed + 1])
                parts += [space.moves(point), space.swaps(point), space.reorders(point)]
            if not parts:
                continue
            batch = space.batch(Points.concatenate(parts))
            batch = batch[_unknown(batch, pool.batch)]
            left = self.ctx.budget.evaluations
            batch = batch if left is None else batch[:left]
            if len(batch):
                self.ctx.charge(len(batch))
                added += len(batch)
                self.pools[at] = ln.Pool(ln.Batch.concatenate([pool.batch, batch]))
        return added > 0


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


def _total(figures: list[NDArray[Any]], picks: list[int]) -> float:
    return float(sum(each[i] for each, i in zip(figures, picks, strict=True)))


def _area(architecture: Architecture) -> float:
    """mm2 of the whole."""
    prices = ln.Prices(architecture)
    return prices.compute_area + sum(prices.area)


def _unknown(batch: ln.Batch, known: ln.Batch) -> NDArray[np.bool_]:
    """bool[B]: the first of its like, and not among the known mappings."""

    def rows(some: ln.Batch) -> list[bytes]:
        order = np.where(np.take_along_axis(some.temporal, some.order.astype(np.int64), axis=2) > 1, some.order, -1)
        return [b"".join(part[i].tobytes() for part in (some.temporal, some.spatial, order)) for i in range(len(some))]

    seen = set(rows(known))
    fresh = []
    for row in rows(batch):
        fresh.append(row not in seen)
        seen.add(row)
    return np.array(fresh, dtype=bool)
