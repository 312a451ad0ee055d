"""The mapper plugin: a polished start, bounds on everything else, and a certificate of what is left to gain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from tilewright import loopnest as ln
from tilewright.loopnest.mapspace import scores
from tilewright.protocol.cost import Claim
from tilewright.protocol.mapping import Mapping
from tilewright.protocol.plugin import BudgetExhausted, Candidate, Context, MapRequest, Options

from .search import Bounds, unsupported

#: Blocks and cycles are whole numbers, bounds are not: a smaller gap than this is none.
EQUAL = 1e-6
#: Configurations in a row whose cheapest nests were no better, after which only bounds are looked at.
FUTILE = 20


class Optimal:
    """Finds the best mapping of the mapspace ``<architecture>-cosa`` and proves a lower bound on all others.

    Where no bound can be proven (`search.unsupported` says why), it is what ``polish`` finds.

    That mapspace: keep sets as given, any split of the prime factors, any order at every level, fan-outs, capacities and
    constraints as the cost model checks them. A spatial configuration bounded counts as one evaluation.
    """

    uses: ClassVar[tuple[str, ...]] = ("mappers:polish", "mappers:cosa")
    options: ClassVar[dict[str, str]] = {
        "gap": "stop at this relative gap to the proven bound (default: that of the budget, else 0)",
        "kicks": "kicks of the local search that makes the first mapping (default 3)",
    }

    def search(self, request: MapRequest, ctx: Context) -> Iterator[Candidate]:
        """Yield every improvement; the last candidate carries the bound that was proven."""
        best: Mapping | None = None
        for candidate in ctx.plugin("mappers", "polish").search(_polish(request), ctx):
            best = candidate.mapping
            yield candidate
        reason = unsupported(ln.Problem(request.operator, request.architecture, request.constraints))
        if reason:
            ctx.progress(f"no bound: {reason}")
            return
        proof = Proof(request, ctx, best)
        try:
            for better in proof.run():
                yield Candidate(better)
            if proof.open:
                for candidate in ctx.plugin("mappers", "polish").search(_polish(request, proof.best), ctx):
                    yield from (Candidate(better) for better in proof.consider([candidate.mapping]))
        except BudgetExhausted:
            if proof.best is not None:
                yield proof.certified()
            raise
        if proof.best is not None:
            yield proof.certified()


class Proof:
    """The best mapping so far and the bound on all others."""

    def __init__(self, request: MapRequest, ctx: Context, best: Mapping | None) -> None:
        self._request, self._ctx = request, ctx
        self._problem = ln.Problem(request.operator, request.architecture, request.constraints)
        self.best = best
        cost = None if best is None else ln.cost(self._problem, best)
        self.value = np.inf if cost is None else cost.objective(request.objective)
        self.bound = 0.0
        self._bounds = Bounds(self._problem, request.objective)
        if cost is not None:
            self._bounds.aim(cost)
        self._tolerance = float(request.options.get("gap", ctx.budget.gap or 0.0))

    def run(self) -> Iterator[Mapping]:
        """Yield better mappings while the bound rises to the value of the best."""
        ctx, bounds = self._ctx, self._bounds
        closed = np.inf
        chosen, rough = bounds.rough(self.value)
        done = futile = 0
        while done < len(rough) and rough[done] < self._wanted and not ctx.cancelled:
            self.bound = min(closed, rough[done])
            batch = slice(done, done + bounds.width)
            ctx.charge(len(rough[batch]))
            found = bounds.tight(chosen[:, batch], self.value)
            done += len(rough[batch])
            for n, bound in enumerate(found.bounds.tolist()):
                if bound >= self._wanted or futile > FUTILE:
                    break
                futile += 1
                for better in self.consider(list(bounds.nests(found.chosen[:, [n]]))):
                    futile = 0
                    yield better
            closed = min([closed, *found.bounds.tolist()])
            ctx.progress("bounding", bounded=done, left=len(rough) - done, value=self.value, bound=self.bound)
        self.bound = min([closed, self.value, *rough[done : done + 1].tolist()])

    def consider(self, mappings: list[Mapping]) -> Iterator[Mapping]:
        """Score some mappings; yield the best of them if it is better than what there was."""
        if mappings:
            values = scores(self._ctx.evaluate(ln.Batch.from_mappings(self._problem, mappings)), self._request.objective)
            if values.min() < self.value:
                self.best, self.value = mappings[int(np.argmin(values))], float(values.min())
                yield self.best

    @property
    def open(self) -> bool:
        """True while something may be left to gain."""
        return self.best is not None and self.bound < self._wanted

    @property
    def _wanted(self) -> float:
        """A bound of this or more needs no closer look."""
        return self.value / (1 + max(self._tolerance, EQUAL))

    def certified(self) -> Candidate:
        """The best mapping with what is proven of it."""
        assert self.best is not None
        gap = self.value / self.bound - 1 if self.bound else None
        space = f"{self._request.architecture.name}-cosa"
        proven = gap is not None and gap <= EQUAL
        return Candidate(self.best, Claim("optimal" if proven else "best found", space, self.bound or None, gap))


def _polish(request: MapRequest, best: Mapping | None = None) -> MapRequest:
    """The request to polish the best mapping, or what there is at the start."""
    start = request.start if best is None else (best,)
    options: Options = {"kicks": int(request.options.get("kicks", 3))}
    return MapRequest(request.operator, request.architecture, request.constraints, request.objective, start, options=options)
