"""The search: starts, descent, roundings with choices of loop order, and the exact scores at the end.

Symbols: ``A`` starts, ``N`` layers, ``D`` = 7 dims. The starts do not influence each other; one torch program descends them together.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tilewright import loopnest as ln
from tilewright.protocol.cost import Objective
from tilewright.protocol.plugin import BudgetExhausted, Context, DesignCandidate

from .descent import Descent, normalised
from .layers import Ints, Layers
from .model import DATAFLOWS, Factors, Model, Orders
from .rounding import rounded
from .settings import Settings
from .space import PARAMETERS, Sizes, Space
from .starts import hardware, mappings

#: A start is rejected when its predicted objective exceeds the lowest one before it by more than this factor.
REJECTED = 10.0
#: Hardware drawn, at most, for each start that is wanted.
DRAWS = 30


@dataclass(frozen=True)
class Points:
    """Legal mappings of all starts: factors int64[A, N, 4, D] each, DRAM orders int64[A, N, D], and what the model says of them."""

    spatial: Ints
    temporal: Ints
    order: Ints
    #: float64[A]: the objective, predicted.
    value: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.value)

    def better(self, other: Points) -> Points:
        """Of each start what has the lower value; what is here where they are equal."""
        parts = [(self if mine else other)._start(index) for index, mine in enumerate(self.value <= other.value)]
        return Points.concatenate(parts)

    def _start(self, index: int) -> Points:
        one = slice(index, index + 1)
        return Points(self.spatial[one], self.temporal[one], self.order[one], self.value[one])

    @staticmethod
    def concatenate(parts: list[Points]) -> Points:
        """All starts of some points."""
        names = ("spatial", "temporal", "order", "value")
        return Points(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


class Search:
    """One search."""

    def __init__(self, layers: Layers, space: Space, objective: Objective, settings: Settings, seed: int, ctx: Context) -> None:
        self._layers, self._space, self._objective, self._settings, self._ctx = layers, space, objective, settings, ctx
        self._model = Model(layers, published=settings.as_published)
        self._seed = seed

    def run(self) -> Iterator[DesignCandidate]:
        """Yield the best design predicted so far at the start and at every rounding, and the best by exact scores at the end."""
        best = points = self._starts()
        yield from self._predicted(best)
        descent = Descent(self._model, self._objective, self._settings, self._space.largest_array, self._seed)
        for steps in self._segments(len(points)):
            orders = Orders(points.order)
            descent.place(points.spatial, points.temporal)
            for _ in range(steps):
                self._charge(len(points) * self._per_step)
                descent.step(orders)
            with torch.no_grad():
                points = self._rounded(descent.factors(), points.order)
            best = best.better(points)
            self._ctx.progress("rounded", value=float(best.value.min()))
            yield from self._predicted(best)
        yield from self._scored(best)

    def _starts(self) -> Points:
        """CoSA's mappings for drawn hardware; as many starts as are wanted, or as the budget has room for."""
        found: list[Points] = []
        lowest = np.inf
        for sizes in itertools.islice(hardware(self._seed), DRAWS * self._settings.starts):
            try:
                drawn = mappings(self._layers, self._space, self._space.within(sizes), self._ctx)
                self._charge(1)
            except BudgetExhausted:
                if not found:
                    raise
                break
            if drawn is None:
                continue
            points = self._points(*(each[None] for each in drawn))
            if points.value[0] > REJECTED * lowest:
                self._ctx.progress(f"start rejected: array {sizes[0]}, {sizes[1]} KiB, {sizes[2]} KiB", value=float(points.value[0]))
                continue
            lowest = min(lowest, float(points.value[0]))
            found.append(points)
            if len(found) == self._settings.starts:
                break
        return Points.concatenate(found)

    def _segments(self, starts: int) -> list[int]:
        """Steps before each rounding: as wanted, or as many as the budget leaves room for beside roundings and exact scores."""
        wanted, every = self._settings.steps, self._settings.rounding
        left = self._ctx.budget.evaluations
        if left is not None:
            roundings = self._per_rounding * max(1, -(-wanted // every))
            wanted = min(wanted, (left // (starts * len(self._layers)) - roundings - 1) // self._per_step)
        if wanted < 0:
            return []
        return [min(every, wanted - done) for done in range(0, wanted, every)] or [0]

    @property
    def _per_step(self) -> int:
        """Evaluations of a layer in one step of one start."""
        return len(DATAFLOWS) if self._settings.strategy in ("softmax", "gumbel") else 1

    @property
    def _per_rounding(self) -> int:
        return 1 if self._settings.strategy == "none" else 1 + len(DATAFLOWS)

    def _charge(self, each: int) -> None:
        """Count evaluations of every layer."""
        self._ctx.charge(each * len(self._layers))

    def _rounded(self, factors: Factors, order: Ints) -> Points:
        """The legal mappings near some factors, with the best orders that the strategy tries."""
        spatial, temporal = rounded(self._layers.bounds, factors.spatial.numpy(), factors.temporal[..., :3, :].numpy())
        self._charge(len(spatial) * self._per_rounding)
        if self._settings.strategy != "none":
            order = self._ordered(spatial, temporal, order)
        return self._points(spatial, temporal, order)

    def _ordered(self, spatial: Ints, temporal: Ints, order: Ints) -> Ints:
        """Layer by layer the order, of the one there is and the three, with the lowest objective of the whole network; int64[A, N, D]."""
        choices = np.stack([order, *(np.broadcast_to(np.array(each), order.shape) for each in DATAFLOWS)])
        prepared = self._model.prepare(_factors(spatial, temporal))
        costs = self._model.costs(prepared, Orders(choices), self._model.hardware(prepared.needs))
        energy, cycles = ((self._model.counts * each).numpy() for each in costs)
        picks = np.zeros(order.shape[:2], dtype=np.int64)
        totals = [energy[0].sum(axis=1), cycles[0].sum(axis=1)]
        starts = np.arange(len(order))
        for layer in range(len(self._layers)):
            options = [total + each[:, :, layer] - each[0, :, layer] for total, each in zip(totals, (energy, cycles), strict=True)]
            scores = options[0] if self._objective == "energy" else options[0] * options[1]
            picks[:, layer] = scores.argmin(axis=0)
            totals = [option[picks[:, layer], starts] for option in options]
        return choices[picks, starts[:, None], np.arange(len(self._layers))]

    def _points(self, spatial: Ints, temporal: Ints, order: Ints) -> Points:
        """Legal mappings with the objective by which the candidates of a start are compared."""
        prepared = self._model.prepare(_factors(spatial, temporal))
        needed = self._model.hardware(prepared.needs)
        built = needed if self._settings.as_published else needed.whole()
        totals = self._model.totals(self._model.costs(prepared, Orders(order), built))
        return Points(spatial, temporal, order, normalised(totals, self._objective).numpy())

    def _predicted(self, points: Points) -> Iterator[DesignCandidate]:
        """The start with the lowest predicted objective whose hardware is in the design space."""
        sizes = self._sizes(points)
        ranked = np.argsort(points.value, kind="stable").tolist()
        start = next((start for start in ranked if self._space.holds(sizes[start])), None)
        if start is not None:
            yield self._candidate(points, start, sizes[start])

    def _scored(self, points: Points) -> Iterator[DesignCandidate]:
        """The best start by the one cost model, of those whose hardware is in the design space."""
        sizes = self._sizes(points)
        designs = [self._candidate(points, start, built) for start, built in enumerate(sizes) if self._space.holds(built)]
        scores = [self._exact(design) for design in designs]
        if scores:
            yield designs[int(np.argmin(scores))]

    def _sizes(self, points: Points) -> list[Sizes]:
        """Whole hardware of every start."""
        built = self._model.hardware(self._model.prepare(_factors(points.spatial, points.temporal)).needs).whole()
        return [(int(a), int(b), int(c)) for a, b, c in zip(*(each.tolist() for each in built), strict=True)]

    def _exact(self, design: DesignCandidate) -> float:
        """The objective of a design by the one cost model; infinite when a mapping is invalid there."""
        architecture = self._space.target.architecture(**design.parameters)
        energy = cycles = 0.0
        for operator, mapping, weight in zip(self._layers.operators, design.mappings, self._layers.weights, strict=True):
            problem = ln.Problem(operator, architecture, self._space.constraints)
            found = self._ctx.evaluate(ln.Batch.from_mappings(problem, [mapping]))
            energy += weight * (float(found.energy_pj[0]) if found.valid[0] else np.inf)
            cycles += weight * float(found.cycles[0])
        return energy if self._objective == "energy" else energy * cycles

    def _candidate(self, points: Points, start: int, sizes: Sizes) -> DesignCandidate:
        architecture = self._space.architecture(sizes)
        found = tuple(
            self._layers.mapping(
                layer, architecture, points.spatial[start, layer], points.temporal[start, layer], points.order[start, layer]
            )
            for layer in range(len(self._layers))
        )
        return DesignCandidate(dict(zip(PARAMETERS, sizes, strict=True)), found)


def _factors(spatial: Ints, temporal: Ints) -> Factors:
    """Whole factors, int64[..., N, 4, D] each, as the model takes them."""
    return Factors(torch.as_tensor(spatial[..., :3, :], dtype=torch.float64), torch.as_tensor(temporal, dtype=torch.float64))
