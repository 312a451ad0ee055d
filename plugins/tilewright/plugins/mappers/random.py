"""Random search: valid mappings drawn uniformly, prime by prime, and scored in batches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import ClassVar

import msgspec
import numpy as np

from tilewright import loopnest as ln
from tilewright.loopnest.mapspace import Mapspace, scores
from tilewright.protocol.mapping import Mapping
from tilewright.protocol.plugin import Candidate, Context, MapRequest

#: Mappings of the first batch, and of the largest; each is twice as large as the one before.
FIRST, MOST = 200, 1600
#: Consecutive evaluations without improvement after which the search gives up.
PATIENCE = 50_000
#: Batches after which the best mapping is yielded again, for the state of the search that comes with it.
KEPT = 16


class Random:
    """The mapper plugin. Mappings come from `Mapspace.sample`: only ones that keep every constraint, fan-out and capacity."""

    options: ClassVar[dict[str, str]] = {
        "samples": f"mappings to draw (default: until the budget ends, or nothing improved for {PATIENCE})",
    }

    def search(self, request: MapRequest, ctx: Context) -> Iterator[Candidate]:
        """Yield every improvement over the best mapping so far, and it again now and then, each with where the search is."""
        problem = ln.Problem(request.operator, request.architecture, request.constraints)
        space = Mapspace(problem)
        samples = int(request.options.get("samples", 0))
        drawn = idle = batches = 0
        size = FIRST
        best = np.inf
        found = None
        if request.resume is not None:
            before = json.loads(request.resume)
            drawn, idle, size, best = before["drawn"], before["idle"], before["size"], before["best"]
            batches, found = before["batches"], msgspec.convert(before["found"], Mapping)
            ctx.rng.bit_generator.state = before["rng"]
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
            improved = len(values) and values[chosen] < best
            if improved:
                best, idle, found = float(values[chosen]), 0, batch.mapping(chosen)
            batches += 1
            if found is not None and (improved or batches % KEPT == 0):
                where = {"drawn": drawn, "idle": idle, "size": size, "best": best, "batches": batches}
                state = {**where, "found": msgspec.to_builtins(found), "rng": ctx.rng.bit_generator.state}
                yield Candidate(found, checkpoint=json.dumps(state).encode())
