"""From a mapping whose tiles do not fit to a near one whose tiles do."""

from __future__ import annotations

import numpy as np

from tilewright.loopnest.mapspace import TEMPORAL, Mapspace, Points, scores
from tilewright.protocol.cost import Objective
from tilewright.protocol.mapping import Mapping
from tilewright.protocol.plugin import Context


def repair(space: Mapspace, point: Points, objective: Objective, ctx: Context) -> Mapping | None:
    """Move primes outwards, one at a time, until every tile fits; of the moves that make it fit, take the best.

    Until one does, the move that leaves the least relative overflow is taken. Every move goes outwards, so it ends; None when
    the constraints leave no move.
    """
    while True:
        moved = _outward(space, point)
        if not len(moved):
            return None
        fitting = moved.take(space.fits(moved))
        if len(fitting):
            batch = space.batch(fitting)
            values = scores(ctx.evaluate(batch), objective)
            return batch.mapping(int(np.argmin(values))) if np.isfinite(values).any() else None
        point = moved.take([int(np.argmin(np.maximum(space.overflow(moved), 0).sum(axis=1)))])


def _outward(space: Mapspace, point: Points) -> Points:
    """Neighbours that move a prime from within an overflowing tile to a temporal block outside of it."""
    over = space.overflow(point)[0] > 0
    inner = int(np.max(np.flatnonzero(over), initial=-1))
    moved = space.moves(point, fit=False)
    change = moved.factors - point.factors
    source = (change < 0).any(axis=2).argmax(axis=1)
    target = (change > 0).any(axis=2).argmax(axis=1)
    outward = (space.level[source] <= inner) & (space.level[target] > inner) & (space.kind[target] == TEMPORAL)
    return moved.take(outward)
