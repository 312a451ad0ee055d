"""Random hardware, each with random mappings: the baseline of DOSA (arXiv 2509.10702; ``specs`` of its repository).

Ten hardware configurations, every parameter drawn evenly on a logarithmic scale; on each, as many valid random mappings
per operator as the budget gives it; per operator the best by its own objective. The best whole wins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

from tilewright.loopnest.designing import Designing
from tilewright.protocol.plugin import Context, DesignCandidate, DesignRequest

HARDWARE = 10


class Random:
    """The co-designer plugin."""

    options: ClassVar[dict[str, str]] = {"hardware": f"hardware configurations drawn (default {HARDWARE})"}

    def search(self, request: DesignRequest, ctx: Context) -> Iterator[DesignCandidate]:
        """Yield every whole design that improves."""
        designing = Designing(request, ctx)
        count = int(request.options.get("hardware", HARDWARE))
        best = math.inf
        for _ in range(count):
            if ctx.cancelled:
                return
            hardware = designing.drawn(ctx.rng)
            if not designing.affordable(hardware):
                continue
            found = designing.sampled(hardware, max(1, designing.share // count), ctx)
            if found is not None and found[0] < best:
                best = found[0]
                yield designing.candidate(hardware, found[1])
