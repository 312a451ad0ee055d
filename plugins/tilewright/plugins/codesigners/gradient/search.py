"""The search: descend many starts, round, score exactly, choose hardware for all mappings found, polish.

Symbols: ``A`` starts, ``S`` slots, ``D`` dims.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from msgspec.structs import replace
from numpy.typing import NDArray

from tilewright import loopnest as ln
from tilewright.loopnest.adam import Adam
from tilewright.loopnest.mapspace import TEMPORAL, Mapspace, Points, prime_factors
from tilewright.protocol.architecture import Architecture, Constraints
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import BudgetExhausted, Context, DesignCandidate, DesignRequest

from .machine import Floats, Hardware, Machine, Sizes, Tensor
from .pools import Choice, Pools, keys
from .relaxation import EXPONENTS, Layer, loss
from .rounding import rounded
from .settings import Settings

Orders = NDArray[np.int8]

AREA = "area_mm2"
#: Evaluations per operator when no budget is given, and the fewest starts that are worth a cycle.
SHARE, FEWEST = 10_500, 4
#: Attempts to move a prime factor of a start into space.
WIDENINGS = 40
#: Hardware of starts on which the pools are first priced, at most.
PRICED = 24
#: Designs polished side by side, and how far apart (in e-folds of a parameter) their hardware is.
DESIGNS, APART = 4, 0.4
#: Mappings per operator and design whose neighbours are looked at in one round of polishing.
SEEDS = 2
#: Mappings ranked for each of them, as some were looked at before.
LOOKED_AT = 6


class Search:
    """One search."""

    def __init__(self, request: DesignRequest, ctx: Context, settings: Settings) -> None:
        self._request, self._ctx, self._settings = request, ctx, settings
        target = ctx.plugin("targets", request.target)
        known = {parameter.name for parameter in target.design_space().parameters}
        for name in request.limits:
            if name not in known | {AREA}:
                raise InvalidInput(f"limits: {name!r} is unknown, expected one of {', '.join(sorted(known | {AREA}))}")
        self._sizes = Sizes(target, request.limits)
        largest = self._sizes.architecture(self._sizes.largest)
        tasks = [(task, each.weight) for each in request.workloads for task in each.workload.tasks if task.operator.is_contraction]
        if not tasks:
            raise InvalidInput("workloads: no contraction among their operators, expected at least one to design for")
        constraints = target.constraints()
        if settings.space == "named" or (settings.space == "" and named(largest)):
            constraints = narrowed(constraints)
        self._problems = [ln.Problem(task.operator, largest, target.constraints()) for task, _ in tasks]
        self._counts = [task.count * weight for task, weight in tasks]
        self._spaces = [Mapspace(ln.Problem(task.operator, largest, constraints)) for task, _ in tasks]
        self._pools = Pools(self._problems, self._counts, request.objective, self._sizes, request.limits.get(AREA, math.inf), ctx)
        self._varied: list[set[bytes]] = [set() for _ in tasks]
        budget = ctx.budget.evaluations
        #: Evaluations per operator after which the search ends.
        self._share = SHARE if budget is None else budget // len(tasks)

    def run(self) -> Iterator[DesignCandidate]:
        """Yield every improvement."""
        best: Choice | None = None
        try:
            best = self._given()
            if best is not None:
                yield self._pools.candidate(best)
            while not self._ctx.cancelled and (starts := self._affordable()) >= FEWEST:
                for found in self._cycle(best, starts):
                    if best is None or found.value < best.value:
                        best = found
                        yield self._pools.candidate(best)
                        self._ctx.progress("improved", value=best.value)
        except BudgetExhausted:
            if best is None:
                raise

    def _given(self) -> Choice | None:
        """The mappings of the request's schedules are candidates too; where every operator has one, the best hardware for them."""
        given = {schedule.operator: schedule.mapping for schedule in self._request.start}
        for operator, problem in enumerate(self._problems):
            if problem.operator in given:
                self._pools.add(operator, ln.Batch.from_mappings(problem, [given[problem.operator]]))
        if any(problem.operator not in given for problem in self._problems):
            return None
        return self._priced([self._sizes.largest], None)

    def _affordable(self) -> int:
        """Starts of the next cycle: as wanted, or as many as a third of the budget, and what is left of it, allow."""
        each = self._settings.rounds * (self._settings.steps + len(self._problems[0].tensors))
        left = self._share - self._ctx.evaluations // len(self._problems)
        return min(self._settings.starts, self._share // 3 // each, left // each)

    def _cycle(self, best: Choice | None, starts: int) -> Iterator[Choice]:
        """Descend from new starts, then polish the best designs."""
        tried: list[Hardware] = []
        for hardware in self._descend(best, starts):
            tried += hardware
            found = self._priced(hardware, best)
            if found is not None:
                best = found
                yield best
        if best is not None:
            yield from self._polished(best, tried)

    def _polished(self, best: Choice, tried: list[Hardware]) -> Iterator[Choice]:
        """Improve the mappings of the best designs, on hardware apart from each other, until nothing new is left or the budget is used."""
        designs = self._apart([best, *filter(None, map(self._pools.choose, dict.fromkeys(tried[-PRICED:])))])
        while not self._ctx.cancelled:
            designs = self._pools.thin([design.hardware for design in designs])
            if not self._vary(designs):
                return
            again = self._apart([choice for choice in (self._pools.choose(design.hardware) for design in designs) if choice is not None])
            designs = self._apart([self._pools.improve(again[0]), *again])
            yield designs[0]

    @staticmethod
    def _apart(choices: list[Choice]) -> list[Choice]:
        """The best ones whose hardware differs enough, best first."""
        found: list[Choice] = []
        for choice in sorted(choices, key=lambda choice: choice.value):
            logs = np.log(choice.hardware)
            if all(np.abs(logs - np.log(other.hardware)).max() > APART for other in found):
                found.append(choice)
        return found[:DESIGNS]

    def _priced(self, hardware: list[Hardware], best: Choice | None) -> Choice | None:
        """The best choice on some hardware and that of the best design, improved."""
        unique = dict.fromkeys([*([best.hardware] if best is not None else []), *hardware])
        found = [choice for choice in map(self._pools.choose, unique) if choice is not None]
        return self._pools.improve(min(found, key=lambda choice: choice.value)) if found else None

    def _descend(self, best: Choice | None, count: int) -> Iterator[list[Hardware]]:
        """Descend; after each rounding the mappings are in the pools, and the hardware of the best starts comes out."""
        settings, rng = self._settings, self._ctx.rng
        layers = [Layer(space, self._drawn(space, count), n) for space, n in zip(self._spaces, self._counts, strict=True)]
        orders = [stationary_orders(space) for space in self._spaces]
        around = None if best is None else np.log(best.hardware)
        sizes = torch.as_tensor(self._sizes.draw(rng, count, around)).requires_grad_()
        low, high = torch.as_tensor(self._sizes.low), torch.as_tensor(self._sizes.high)
        machine = Machine(self._sizes)
        adam = Adam([*(layer.logits for layer in layers), sizes], settings.rate)
        total, done = settings.rounds * settings.steps, 0
        for _ in range(settings.rounds):
            figures = machine.around(sizes.detach().numpy())
            for _ in range(settings.steps):
                self._ctx.charge(count * len(layers))
                adam.rate = settings.rate * (0.1 + 0.9 * math.cos(math.pi / 2 * done / total))
                adam.step(loss(layers, figures, sizes, self._request.objective, done / total).sum())
                with torch.no_grad():
                    sizes.clamp_(low, high)
                done += 1
            values = self._rounded(layers, orders, machine, sizes.detach())
            ranked = np.argsort(values, kind="stable")[:PRICED]
            yield [self._sizes.nearest(sizes.detach().numpy()[start]) for start in ranked.tolist()]

    def _rounded(self, layers: list[Layer], orders: list[Orders], machine: Machine, sizes: Tensor) -> Floats:
        """Round all starts, each layer with the best of the orders; float64[A]: the logarithm of the objective."""
        hardware = machine.around(sizes.numpy()).of(sizes)
        energy = cycles = np.zeros(len(sizes))
        for operator, (layer, choices) in enumerate(zip(layers, orders, strict=True)):
            factors = rounded(layer.space, layer.factors())
            found = []
            for order in choices:
                points = Points(factors, np.broadcast_to(order, layer.order.shape), layer.keep)
                layer.order = points.order.copy()
                self._pools.add(operator, self._batch(operator, points))
                with torch.no_grad():
                    found.append([each.numpy() for each in layer.costs(torch.as_tensor(factors, dtype=torch.float64).log(), hardware)[:2]])
            scores = np.array([e * c for e, c in found])
            pick = scores.argmin(axis=0)
            layer.place(Points(factors, choices[pick], layer.keep))
            energy, cycles = (t + layer.count * np.choose(pick, [f[i] for f in found]) for i, t in enumerate((energy, cycles)))
        return EXPONENTS[self._request.objective] @ np.log([energy, cycles])

    def _drawn(self, space: Mapspace, count: int) -> Points:
        """Some points, with many loops in space for some and few for others."""
        drawn = space.sample(self._ctx.rng, count)
        drawn = drawn.take(np.arange(count) % len(drawn))
        return widened(space, drawn, self._ctx.rng)

    def _vary(self, designs: list[Choice]) -> bool:
        """Add the neighbours of the best mappings on the hardware of each design; False when nothing new is left, or no budget."""
        neighbours: list[list[Points]] = [[] for _ in self._spaces]
        for design in designs:
            for operator, (energy, cycles) in enumerate(self._pools.figures(design.hardware)):
                pick = design.picks[operator]
                scores = energy / energy[pick] + cycles / cycles[pick]
                ranked = [pick, *np.argsort(scores, kind="stable")[: SEEDS * LOOKED_AT].tolist()]
                neighbours[operator] += self._neighbours(operator, [at for at in ranked if np.isfinite(scores[at])])
        found = [self._pools.add(at, self._batch(at, Points.concatenate(each))) for at, each in enumerate(neighbours) if each]
        return sum(found) > 0

    def _neighbours(self, operator: int, ranked: list[int]) -> list[Points]:
        """Neighbours of the first few mappings whose neighbours are not known."""
        space, batch = self._spaces[operator], self._pools.batches[operator]
        found: list[Points] = []
        seeds = 0
        for at in ranked:
            (key,) = keys(batch[at : at + 1])
            point = space.points(batch[at : at + 1])
            if seeds < SEEDS and key not in self._varied[operator] and space.complete(point)[0]:
                self._varied[operator].add(key)
                found += [space.moves(point), space.swaps(point), space.reorders(point)]
                seeds += 1
        return found

    def _batch(self, operator: int, points: Points) -> ln.Batch:
        """Mappings, also those of a narrower mapspace, as the target's."""
        batch = self._spaces[operator].batch(points)
        batch.problem = self._problems[operator]
        return batch


def stationary_orders(space: Mapspace) -> Orders:
    """``int8[T, L, D]``: orders in which the loops that leave one tensor alone are innermost.

    The same tensor at all levels, but for those inside of which it is not kept: there it is the first that is.
    """
    relevant, tensors = space.problem.relevant, len(space.problem.tensors)
    inner = [[t for t in range(tensors) if space.keep[:level, t].any()] for level in range(len(space.keep))]
    still = [[t if t in kept or not kept else kept[0] for kept in inner] for t in range(tensors)]
    orders = [[sorted(range(relevant.shape[1]), key=lambda d: (bool(relevant[t, d]), d)) for t in row] for row in still]
    return np.array(orders, dtype=np.int8)


def named(architecture: Architecture) -> bool:
    """Is it built like Gemmini?"""
    return architecture.level_names == ("Registers", "Accumulator", "Scratchpad", "DRAM")


def narrowed(constraints: Constraints) -> Constraints:
    """The constraints without loops at registers (the accumulator's do the same) and scratchpad."""
    return Constraints(
        tuple(replace(each, temporal_dims=()) if each.level in ("Registers", "Scratchpad") else each for each in constraints.levels)
    )


def widened(space: Mapspace, points: Points, rng: np.random.Generator) -> Points:
    """The points with prime factors moved from time to space: drawn evenly, few would use many compute units."""
    spatial, temporal = (np.flatnonzero((space.kind == TEMPORAL) == which) for which in (False, True))
    if not len(spatial):
        return points
    rows = np.arange(len(points))
    effort = rng.random(len(points))
    for _ in range(WIDENINGS):
        slot, source = rng.choice(spatial, len(points)), rng.choice(temporal, len(points))
        dim = (rng.random((len(points), space.allowed.shape[1])) * space.allowed[slot]).argmax(axis=1)
        there = points.factors[rows, source, dim]
        smallest = {number: min(prime_factors(number), default=1) for number in np.unique(there).tolist()}
        step = np.array([smallest[number] for number in there.tolist()], dtype=np.int64)
        moved = points.factors.copy()
        moved[rows, source, dim] //= step
        moved[rows, slot, dim] *= step
        accepted = space.fits(Points(moved, points.order, points.keep)) & (rng.random(len(points)) < effort)
        points = Points(np.where(accepted[:, None, None], moved, points.factors), points.order, points.keep)
    return points
