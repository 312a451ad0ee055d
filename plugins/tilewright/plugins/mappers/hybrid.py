"""Timeloop's hybrid search: random tilings, and for each of them all loop orders that can make a difference.

Source: Parashar et al., "Timeloop: A Systematic Approach to DNN Accelerator Evaluation", ISPASS 2019, and the mapper of its
release. A search ends after `victory` consecutive valid mappings without improvement. Orders are pruned: all that can make a
difference (sliding windows aside) is which loops are innermost at a level, those that leave one of the tensors alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from tilewright import loopnest as ln
from tilewright.loopnest.mapspace import TEMPORAL, Mapspace, Points, scores
from tilewright.protocol.plugin import Candidate, Context, MapRequest

#: Timeloop's recommendation, and what CoSA was compared with.
VICTORY = 500
#: Tilings drawn, and orders scored, at a time.
TILINGS, ORDERS = 64, 256


class Hybrid:
    """The mapper plugin."""

    options: ClassVar[dict[str, str]] = {
        "victory": f"valid mappings in a row without improvement that end the search (default {VICTORY})",
    }

    def search(self, request: MapRequest, ctx: Context) -> Iterator[Candidate]:
        """Yield every improvement."""
        space = Mapspace(ln.Problem(request.operator, request.architecture, request.constraints))
        victory = int(request.options.get("victory", VICTORY))
        best, idle = np.inf, 0
        while not ctx.cancelled and idle < victory:
            tilings = space.sample(ctx.rng, TILINGS)
            tilings = tilings if len(tilings) else space.sample(ctx.rng, TILINGS, fit=False)
            if not len(tilings):
                return
            for row in np.flatnonzero(space.share(tilings, *request.subspace)).tolist():
                for points in pruned_orders(space, tilings.take([row])):
                    batch = space.batch(points)
                    values = scores(ctx.evaluate(batch), request.objective)
                    chosen = int(np.argmin(values))
                    idle += int(np.isfinite(values).sum())
                    if values[chosen] < best:
                        best, idle = float(values[chosen]), 0
                        yield Candidate(batch.mapping(chosen))
                if idle >= victory:
                    return


def pruned_orders(space: Mapspace, tiling: Points) -> Iterator[Points]:
    """All choices per level of a tensor that stays there, for one tiling; a few at a time, the outermost level changing slowest."""
    per_level = []
    for level, order in enumerate(tiling.order[0].tolist()):
        factors = tiling.factors[0, space.slots.index((level, TEMPORAL))]
        loops = [d for d in order if factors[d] > 1]
        rest = [d for d in order if factors[d] == 1]
        orders = {(*sorted(loops, key=lambda d, moves=moves: bool(moves[d])), *rest) for moves in space.problem.relevant}  # type: ignore[misc]
        per_level.append(sorted(orders))
    choices = itertools.product(*reversed(per_level))
    while part := list(itertools.islice(choices, ORDERS)):
        chosen = np.array([choice[::-1] for choice in part], dtype=np.int8)
        many = tiling.repeat(len(chosen))
        yield Points(many.factors, chosen, many.keep)
