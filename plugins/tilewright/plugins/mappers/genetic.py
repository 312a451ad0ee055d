"""A genetic search in the manner of GAMMA (Kao and Krishna, ICCAD 2020), on mappings that are valid by construction.

A genome is a point of the mapspace. Children take the split of each dim and the order of each level from either parent; a
mutation moves a prime of one dim to another slot or draws the order of a level anew. Children whose tiles do not fit are
replaced by one of their parents, mutated until it fits, so no evaluation is spent on invalid mappings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from tilewright import loopnest as ln
from tilewright.loopnest.mapspace import Mapspace, Points, scores
from tilewright.protocol.plugin import Candidate, Context, MapRequest

POPULATION, ELITE, PATIENCE = 100, 0.2, 60
#: Chances that a child has a prime moved, and that one of its levels is ordered anew.
MOVED, REORDERED = 0.7, 0.3
#: Draws after which a child that does not fit gives way to its parent.
TRIES = 4


class Genetic:
    """The mapper plugin."""

    options: ClassVar[dict[str, str]] = {
        "population": f"mappings per generation (default {POPULATION})",
        "generations": f"generations without improvement that end the search (default {PATIENCE})",
    }

    def search(self, request: MapRequest, ctx: Context) -> Iterator[Candidate]:
        """Yield the best of every generation that improves."""
        space = Mapspace(ln.Problem(request.operator, request.architecture, request.constraints))
        size = int(request.options.get("population", POPULATION))
        patience = int(request.options.get("generations", PATIENCE))
        people = _first(space, request, ctx, size)
        best, idle = np.inf, 0
        values = np.empty(0)
        while len(people) and idle < patience and not ctx.cancelled:
            fresh = people.take(slice(len(values), None))
            batch = space.batch(fresh)
            found = scores(ctx.evaluate(batch), request.objective)
            chosen = int(np.argmin(found))
            idle += 1
            if found[chosen] < best:
                best, idle = float(found[chosen]), 0
                yield Candidate(batch.mapping(chosen))
            values = np.concatenate([values, found])
            order = np.argsort(values, kind="stable")
            elite = order[: max(2, int(ELITE * size))]
            parents = people.take(order)
            values = values[elite]
            people = Points.concatenate([people.take(elite), self._children(space, parents, size - len(elite), ctx)])

    @staticmethod
    def _children(space: Mapspace, ranked: Points, count: int, ctx: Context) -> Points:
        """Children of parents drawn by rank: the better half is twice as likely."""
        rng = ctx.rng
        draws = (len(ranked) * rng.random((2, count)) ** 1.5).astype(np.int64)
        one, other = ranked.take(draws[0]), ranked.take(draws[1])
        children = space.crossed(rng, one, other)
        for _ in range(TRIES):
            moved = space.shaken(rng, children)
            mutate = rng.random(count) < MOVED
            tried = Points(np.where(mutate[:, None, None], moved.factors, children.factors), children.order, children.keep)
            fits = space.fits(tried)
            # Where the child does not fit, start again from its first parent.
            factors = np.where(fits[:, None, None], tried.factors, one.factors)
            children = Points(factors, children.order, children.keep)
            if fits.all():
                break
        anew = space.reordered(rng, children)
        which = rng.random((count, anew.order.shape[1], 1)) < REORDERED
        return Points(children.factors, np.where(which, anew.order, children.order), children.keep)


def _first(space: Mapspace, request: MapRequest, ctx: Context, size: int) -> Points:
    """The first generation: what the request starts from, and random mappings."""
    drawn = space.sample(ctx.rng, size)
    drawn = drawn if len(drawn) else space.sample(ctx.rng, size, fit=False)
    if not request.start:
        return drawn
    given = space.points(ln.Batch.from_mappings(space.problem, list(request.start)))
    return Points.concatenate([given.take(space.complete(given)), drawn]).take(slice(0, size))
