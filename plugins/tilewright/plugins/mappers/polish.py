"""Discrete local search: steepest descent over single changes of a mapping, all scored at once, with random kicks.

A change moves a factor of one dim from one slot to another, exchanges two primes between two slots, or moves one loop to
another place of its level. Only changes that keep every constraint and capacity are scored.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from tilewright import loopnest as ln
from tilewright.loopnest.mapspace import Mapspace, Points, problem_of, scores
from tilewright.protocol.plugin import Candidate, Context, MapRequest

#: Kicks in a row that led nowhere better after which the search gives up.
PATIENCE = 30
#: Random changes of one kick.
KICK = (2, 3, 4)
#: Mappings drawn when there is no start.
DRAWN = 200


class Polish:
    """The mapper plugin. It starts from the request's mappings; without any, from CoSA's; where that has none, from random ones."""

    uses: ClassVar[tuple[str, ...]] = ("mappers:cosa",)
    options: ClassVar[dict[str, str]] = {
        "kicks": f"random kicks that may fail in a row before the search ends (default {PATIENCE})",
    }

    def search(self, request: MapRequest, ctx: Context) -> Iterator[Candidate]:
        """Yield every improvement."""
        space = Mapspace(problem_of(request))
        patience = int(request.options.get("kicks", PATIENCE))
        start = self._start(request, space, ctx)
        if start is None:
            return
        descent = Descent(space, request, ctx)
        best, value = start
        yield Candidate(space.batch(best).mapping(0))
        for point, better in descent.run(best, value):
            best, value = point, better
            yield Candidate(space.batch(best).mapping(0))
        failed = 0
        while failed < patience and not ctx.cancelled:
            kicked = descent.kick(best)
            failed += 1
            if kicked is None:
                continue
            for point, found in descent.run(*kicked):
                if found < value:
                    best, value, failed = point, found, 0
                    yield Candidate(space.batch(best).mapping(0))

    @staticmethod
    def _start(request: MapRequest, space: Mapspace, ctx: Context) -> tuple[Points, float] | None:
        """The best valid mapping to start from."""
        mappings = list(request.start)
        if not mappings:
            mappings = [candidate.mapping for candidate in ctx.plugin("mappers", "cosa").search(request_without_options(request), ctx)]
        points = space.points(ln.Batch.from_mappings(space.problem, mappings)) if mappings else space.sample(ctx.rng, DRAWN)
        points = points.take(space.complete(points))
        for tried in (points, space.sample(ctx.rng, DRAWN)):
            best = _best(space, tried, request, ctx)
            if best is not None:
                return best
        return _nearest(space, request, ctx)


class Descent:
    """Steepest descent and kicks on one problem."""

    def __init__(self, space: Mapspace, request: MapRequest, ctx: Context) -> None:
        self._space, self._request, self._ctx = space, request, ctx

    def run(self, point: Points, value: float) -> Iterator[tuple[Points, float]]:
        """Take the best change as long as it improves; yield every step. Exchanges are only looked at where no move improves."""
        space = self._space
        while not self._ctx.cancelled:
            best = self._best(Points.concatenate([space.moves(point, whole=True), space.reorders(point)]))
            if best is None or best[1] >= value:
                best = self._best(space.swaps(point))
            if best is None or best[1] >= value:
                return
            point, value = best
            yield best

    def kick(self, point: Points) -> tuple[Points, float] | None:
        """A few random changes, scored."""
        rng = self._ctx.rng
        for _ in range(int(rng.choice(KICK))):
            options = [self._space.moves(point), self._space.reorders(point)]
            chosen = options[int(rng.random() < 0.25)]
            if len(chosen):
                point = chosen.take([int(rng.integers(len(chosen)))])
        return self._best(point)

    def _best(self, points: Points) -> tuple[Points, float] | None:
        return _best(self._space, points, self._request, self._ctx)


def request_without_options(request: MapRequest) -> MapRequest:
    """The request as another mapper is asked it."""
    return MapRequest(request.operator, request.architecture, request.constraints, request.objective, subspace=request.subspace)


def _nearest(space: Mapspace, request: MapRequest, ctx: Context) -> tuple[Points, float] | None:
    """Where hardly anything fits: steps that make the tiles exceed the capacities by less, from the least that does.

    Mappings that do not fit are evaluated too, and where the steps end alone, so that the host can say what rejects them all and
    what the smallest change would be.
    """
    points = Points.concatenate([space.unrolled_nowhere(), space.sample(ctx.rng, DRAWN, fit=False)])
    found = _best(space, points, request, ctx)
    if found is not None:
        return found
    points = points.take(space.obeys(points.factors))
    if not len(points):
        return _best(space, space.unrolled_nowhere(), request, ctx)
    point, excess = _least(space, points)
    while excess > 0 and not ctx.cancelled:
        moves = space.moves(point, whole=True, fit=False)
        if not len(moves):
            break
        nearer, less = _least(space, moves)
        if less >= excess:
            break
        point, excess = nearer, less
    return _best(space, point, request, ctx)


def _least(space: Mapspace, points: Points) -> tuple[Points, int]:
    """The point that exceeds the capacities by the fewest words, and by how many."""
    excess = np.maximum(space.overflow(points), 0).sum(axis=1)
    chosen = int(np.argmin(excess))
    return points.take([chosen]), int(excess[chosen])


def _best(space: Mapspace, points: Points, request: MapRequest, ctx: Context) -> tuple[Points, float] | None:
    """The best of some points, with its value; None when none is valid."""
    if not len(points):
        return None
    values = scores(ctx.evaluate(space.batch(points)), request.objective)
    chosen = int(np.argmin(values))
    return (points.take([chosen]), float(values[chosen])) if np.isfinite(values[chosen]) else None
