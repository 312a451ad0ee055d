"""Several mappers, one after the other on one operator, each starting from the best mapping of those before.

The first, ``optimal``, proves how good its mapping is; when nothing is left to gain the others do not run. Where it cannot prove
anything, or leaves a gap, the local and the genetic search use what is left of the budget.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import msgspec
import numpy as np

from tilewright import loopnest as ln
from tilewright.loopnest.mapspace import problem_of, scores
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.mapping import Mapping
from tilewright.protocol.plugin import Candidate, Context, MapRequest, Options

#: Mapper -> the options it runs with.
MEMBERS: dict[str, Options] = {
    "cosa": {},
    "optimal": {},
    "polish": {"kicks": 12},
    "genetic": {"generations": 12},
    "hybrid": {},
    "random": {},
}
DEFAULT = "optimal,polish,genetic"
#: No search is worth a gain of less than this.
NEGLIGIBLE = 1e-3


class Portfolio:
    """The mapper plugin. Its last candidate carries the claim with the best proof."""

    uses: ClassVar[tuple[str, ...]] = tuple(f"mappers:{name}" for name in MEMBERS)
    options: ClassVar[dict[str, str]] = {
        "members": f"mappers to run, in this order, of {', '.join(MEMBERS)} (default {DEFAULT})",
    }

    def search(self, request: MapRequest, ctx: Context) -> Iterator[Candidate]:
        """Yield every improvement of every member."""
        problem = problem_of(request)
        best: Candidate | None = None
        value = np.inf
        for name in _members(request):
            start = request.start if best is None else (best.mapping,)
            asked = msgspec.structs.replace(request, start=start, options=MEMBERS[name])
            last: Candidate | None = None
            for last in ctx.plugin("mappers", name).search(asked, ctx):
                yield last
            if last is None:
                continue
            found = self._score(problem, last.mapping, request, ctx)
            if found < value or last.claim.lower_bound is not None:
                best, value = self._better(best, last, found < value), min(value, found)
            if best is not None and best.claim.gap is not None and best.claim.gap < NEGLIGIBLE:
                return
        if best is not None and best.claim.lower_bound is not None:
            claim = msgspec.structs.replace(best.claim, gap=value / best.claim.lower_bound - 1)
            yield msgspec.structs.replace(best, claim=claim)

    @staticmethod
    def _better(old: Candidate | None, new: Candidate, improves: bool) -> Candidate:
        """The better mapping with the claim that proves more."""
        if old is None:
            return new
        mapping = new.mapping if improves else old.mapping
        claim = new.claim if old.claim.lower_bound is None else old.claim
        return Candidate(mapping, claim)

    @staticmethod
    def _score(problem: ln.Problem, mapping: Mapping, request: MapRequest, ctx: Context) -> float:
        return float(scores(ctx.evaluate(ln.Batch.from_mappings(problem, [mapping])), request.objective)[0])


def _members(request: MapRequest) -> list[str]:
    names = [name.strip() for name in str(request.options.get("members", DEFAULT)).split(",")]
    for name in names:
        if name not in MEMBERS:
            raise InvalidInput(f"options.members: {name!r}, expected some of {', '.join(MEMBERS)}")
    return names
