"""Evolution of whole designs: hardware and one mapping per operator.

A child takes each parameter from one of two parents, changed by a factor of up to two; for every operator it tries the
mappings of both parents, and mutants of them (a prime moved, an order drawn anew), on its own hardware, and keeps the
best. What fits nowhere is drawn anew. Parents are the better half of the population.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tilewright import loopnest as ln
from tilewright.loopnest.designing import Designing, Hardware
from tilewright.loopnest.mapspace import Mapspace, Points, scores
from tilewright.protocol.mapping import Mapping
from tilewright.protocol.plugin import Context, DesignCandidate, DesignRequest

POPULATION = 12
#: Mappings tried per operator and child, and chance that one has an order drawn anew.
TRIED, REORDERED = 24, 0.3
#: Chance that a parameter of a child changes.
CHANGED = 0.5


@dataclass(frozen=True)
class Design:
    """A member of the population."""

    value: float
    hardware: Hardware
    mappings: tuple[Mapping, ...]


class Evolutionary:
    """The co-designer plugin."""

    options: ClassVar[dict[str, str]] = {
        "population": f"designs that are kept (default {POPULATION})",
        "mappings": f"mappings tried per operator and child (default {TRIED})",
    }

    def search(self, request: DesignRequest, ctx: Context) -> Iterator[DesignCandidate]:
        """Yield every design that improves, until the budget ends."""
        designing = Designing(request, ctx)
        size = max(2, int(request.options.get("population", POPULATION)))
        tried = max(4, int(request.options.get("mappings", TRIED)))
        people: list[Design] = []
        best = math.inf
        while not ctx.cancelled:
            if len(people) < size:
                hardware = designing.drawn(ctx.rng)
                parents: tuple[Design, ...] = ()
            else:
                one, other = (people[int(ctx.rng.integers(max(2, size // 2)))] for _ in range(2))
                hardware, parents = self._crossed(designing, one, other, ctx.rng), (one, other)
            if not designing.affordable(hardware):
                # Charged, so that a limit nothing keeps ends the search.
                ctx.charge(1)
                continue
            child = self._born(designing, hardware, parents, tried, ctx)
            if child is None:
                continue
            people = sorted([*people, child], key=lambda design: design.value)[:size]
            if child.value < best:
                best = child.value
                yield designing.candidate(child.hardware, child.mappings)

    @staticmethod
    def _crossed(designing: Designing, one: Design, other: Design, rng: np.random.Generator) -> Hardware:
        wanted = []
        for a, b in zip(one.hardware, other.hardware, strict=True):
            value = a if rng.random() < 0.5 else b
            wanted.append(value * 2 ** rng.uniform(-1, 1) if rng.random() < CHANGED else float(value))
        return designing.nearest(wanted)

    @staticmethod
    def _born(designing: Designing, hardware: Hardware, parents: tuple[Design, ...], tried: int, ctx: Context) -> Design | None:
        architecture = designing.architecture(hardware)
        energies, cycles, mappings = [], [], []
        for at, operator in enumerate(designing.operators):
            space = Mapspace(ln.Problem(operator, architecture, designing.target.constraints()))
            points = space.sample(ctx.rng, tried if not parents else max(1, tried // 8))
            if parents:
                known = space.points(ln.Batch.from_mappings(space.problem, [parent.mappings[at] for parent in parents]))
                mutants = space.shaken(ctx.rng, known.repeat(max(1, tried // 2 - 2)))
                mutants = mutants.take(space.complete(mutants))
                fresh = space.reordered(ctx.rng, mutants)
                anew = (ctx.rng.random(len(mutants)) < REORDERED)[:, None, None]
                mutants = Points(mutants.factors, np.where(anew, fresh.order, mutants.order), mutants.keep)
                points = Points.concatenate([known, mutants, points])
            points = points.take(space.fits(points))
            if not len(points):
                ctx.charge(1)
                return None
            batch = space.batch(points)
            evaluation = ctx.evaluate(batch)
            pick = int(np.argmin(scores(evaluation, designing.request.objective)))
            energies.append(float(evaluation.energy_pj[pick]))
            cycles.append(float(evaluation.cycles[pick]))
            mappings.append(batch.mapping(pick))
        return Design(designing.value(energies, cycles), hardware, tuple(mappings))
