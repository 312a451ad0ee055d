"""Random search: valid mappings drawn uniformly, prime by prime, and scored in batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from tilewright import loopnest as ln
from tilewright.loopnest.mapspace import Mapspace, scores
from tilewright.protocol.plugin import Candidate, Context, MapRequest

#: Mappings of the first batch, and of the largest; each is twice as large as the one before.
FIRST, MOST = 200, 1600
#: Consecutive evaluations without improvement after which the search gives up.
PATIENCE = 50_000


class Random:
    """The mapper plugin. Mappings come from `Mapspace.sample`: only ones that keep every constraint, fan-out and capacity."""

    options: ClassVar[dict[str, str]] = {
        "samples": f"mappings to draw (default: until the budget ends, or nothing improved for {PATIENCE})",
    }

    def search(self, request: MapRequest, ctx: Context) -> Iterator[Candidate]:
        """Yield every improvement over the best mapping so far."""
        problem = ln.Problem(request.operator, request.architecture, request.constraints)
        space = Mapspace(problem)
        samples = int(request.options.get("samples", 0))
        drawn = idle = 0
        size = FIRST
        best = np.inf
        while not ctx.cancelled and (drawn < samples if samples else idle < PATIENCE):
            count = min(size, samples - drawn) if samples else size
            size = min(MOST, 2 * size)
            points = space.sample(ctx.rng, count)
            # Where nothing fits, mappings that do not fit are scored too: their violations say why.
            points = points if len(points) else space.sample(ctx.rng, count, fit=False)
            if not len(points):
                return
            drawn += len(points)
            idle += len(points)
            points = points.take(space.share(points, *request.subspace))
            batch = space.batch(points)
            values = scores(ctx.evaluate(batch), request.objective)
            chosen = int(np.argmin(values)) if len(values) else 0
            if len(values) and values[chosen] < best:
                best, idle = float(values[chosen]), 0
                yield Candidate(batch.mapping(chosen))
