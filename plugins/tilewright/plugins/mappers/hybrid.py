"""Timeloop's hybrid search: random tilings, and for each of them all loop orders that can make a difference.

Source: Parashar et al., "Timeloop: A Systematic Approach to DNN Accelerator Evaluation", ISPASS 2019, and the mapper of its
release. A search ends after `victory` consecutive valid mappings without improvement. Orders are pruned: only loops with a
factor above 1 count, and of those only which one is innermost at a level (further out, no order changes what is kept between steps,
sliding windows aside).
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
    """All choices of an innermost loop per level for one tiling, a few at a time, the outermost level changing slowest."""
    order = tiling.order[0]
    inner = []
    for level in range(len(order)):
        factors = tiling.factors[0, space.slots.index((level, TEMPORAL))]
        inner.append([d for d in order[level].tolist() if factors[d] > 1] or [int(order[level, 0])])
    choices = itertools.product(*reversed(inner))
    while part := list(itertools.islice(choices, ORDERS)):
        orders = np.array([[_first(order[level], dim) for level, dim in enumerate(reversed(choice))] for choice in part], dtype=np.int8)
        many = tiling.repeat(len(orders))
        yield Points(many.factors, orders, many.keep)


def _first(order: np.ndarray[tuple[int], np.dtype[np.int8]], dim: int) -> list[int]:
    return [dim, *(d for d in order.tolist() if d != dim)]
