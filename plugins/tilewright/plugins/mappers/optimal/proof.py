"""The proof: parts of a mapspace bounded in the order of their bounds, until nothing may be better than the best mapping found."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from tilewright import loopnest as ln
from tilewright.loopnest.mapspace import scores
from tilewright.protocol.cost import Claim, Cost
from tilewright.protocol.mapping import Mapping
from tilewright.protocol.plugin import Candidate, Context, MapRequest
from tilewright.protocol.workload import Operator

from .ground import Ground
from .search import Bounded, Bounds
from .spaces import marked

#: Blocks and cycles are whole numbers, bounds are not: a smaller relative gap than this is none. Where a second objective decides
#: among equals, it moves the value by no more than this.
EQUAL, NEXT_TO_NOTHING = 1e-6, 1e-12
#: Configurations of a part in a row whose cheapest nests were no better, after which only bounds are looked at.
FUTILE = 12


@dataclass
class Part:
    """A part with the bounds of what is left of it."""

    bounds: Bounds
    left: Bounded
    #: Configurations in a row whose cheapest nests were no better.
    futile: int = 0

    @property
    def least(self) -> float:
        """Nothing that is left is better."""
        return float(self.left.bounds[0]) if len(self.left.bounds) else np.inf

    def take(self) -> Bounded:
        """The most promising configurations, as many as a plan treats at once."""
        width = self.bounds.width
        taken = Bounded(self.left.chosen[:, :width], self.left.bounds[:width])
        self.left = Bounded(self.left.chosen[:, width:], self.left.bounds[width:])
        return taken

    def put_back(self, batch: Bounded) -> None:
        """Configurations to be bounded again."""
        bounds = np.concatenate([batch.bounds, self.left.bounds])
        order = np.argsort(bounds, kind="stable")
        self.left = Bounded(np.concatenate([batch.chosen, self.left.chosen], axis=1)[:, order], bounds[order])

    def limited(self, nests: list[Mapping], best: Cost) -> bool:
        """Whether one of some nests is limited by a port that bounds did not count, but do from now on."""
        problem = self.bounds.problem
        valid = ln.check(ln.Batch.from_mappings(problem, nests)).valid.tolist() if nests else []
        return any([self.bounds.meet(ln.cost(problem, nest), best) for nest, fits in zip(nests, valid, strict=True) if fits])


class Proof:
    """The best mapping so far and the bound on all others; `tolerance` is the relative gap that is good enough."""

    def __init__(self, request: MapRequest, ctx: Context, parts: list[ln.Problem], space: str, tolerance: float, effort: float) -> None:
        self._request, self._ctx, self._problems, self._space = request, ctx, parts, space
        lexicographic = "then" in request.objective
        self._equal = NEXT_TO_NOTHING if lexicographic else EQUAL
        self._tolerance, self._effort = max(tolerance, self._equal), effort
        self._grounds: dict[Operator, Ground] = {}
        #: The best mapping, and the part it is of.
        self.best: Mapping | None = None
        self.part = parts[0]
        self.value, self.bound = np.inf, 0.0
        self._cost: Cost | None = None
        #: The least bound of all that was looked at closely, or not at all for its rough bound.
        self._closed = np.inf
        #: Array elements that plans wrote.
        self._work = 0

    def consider(self, problem: ln.Problem, mappings: list[Mapping]) -> Iterator[Candidate]:
        """Score some mappings of a part; yield the best of them if it is better than what there was."""
        if mappings:
            values = scores(self._ctx.evaluate(ln.Batch.from_mappings(problem, mappings)), self._request.objective)
            if values.min() < self.value:
                self.best, self.part, self.value = mappings[int(np.argmin(values))], problem, float(values.min())
                self._cost = ln.cost(problem, self.best)
                yield Candidate(marked(self.best, self._request.operator, problem.operator))

    def run(self) -> Iterator[Candidate]:
        """Yield better mappings while the bound rises to the value of the best: first in the part as given, then in all others."""
        first, *others = self._problems
        heap = [self._opened(first)]
        yield from self._close(heap, self._effort / 2 if others else self._effort)
        for problem in others:
            if self._stopped(self._effort):
                # What was not looked at may be anything: no bound.
                self.bound = 0.0
                return
            heap.append(self._opened(problem))
        yield from self._close(heap, self._effort)

    def _close(self, parts: list[Part], effort: float) -> Iterator[Candidate]:
        """Bound the most promising configurations of some parts until nothing is left to gain, or the work done is that much."""
        heap = [(part.least, number, part) for number, part in enumerate(parts)]
        heapq.heapify(heap)
        while heap[0][0] < self._wanted and not self._stopped(effort):
            self.bound = min(self._closed, heap[0][0])
            _, number, part = heapq.heappop(heap)
            batch = part.take()
            self._ctx.charge(len(batch.bounds))
            before = part.bounds.work
            if self._cost is not None:
                part.bounds.aim(self._cost)
            found = part.bounds.tight(batch.chosen, self.value)
            for n, bound in enumerate(found.bounds.tolist()):
                if bound >= self._wanted or part.futile > FUTILE or self._ctx.cancelled:
                    break
                part.futile += 1
                nests = list(takewhile(lambda _: not self._ctx.cancelled, part.bounds.nests(found.chosen[:, [n]])))
                for better in self.consider(part.bounds.problem, nests):
                    part.futile = 0
                    yield better
                if part.futile and self._cost is not None and part.limited(nests, self._cost):
                    # With one more port counted these, and all others, are bounded again.
                    part.put_back(found)
                    found = Bounded(found.chosen[:, :0], found.bounds[:0])
                    break
            self._work += part.bounds.work - before
            self._closed = min([self._closed, *found.bounds.tolist()])
            heapq.heappush(heap, (part.least, number, part))
            self._ctx.progress("bounding", left=sum(len(each.left.bounds) for each in parts), value=self.value, bound=self.bound)
        self.bound = min(self._closed, self.value, heap[0][0])

    def _opened(self, problem: ln.Problem) -> Part:
        """A part with bounds on all of its configurations that may hold something better."""
        ground = self._grounds.get(problem.operator) or Ground(problem)
        self._grounds[problem.operator] = ground
        bounds = Bounds(problem, self._request.objective, ground)
        if self._cost is not None:
            bounds.aim(self._cost)
        part = Part(bounds, bounds.rough(self.value, self._request.subspace))
        self._work += bounds.work
        return part

    def _stopped(self, effort: float) -> bool:
        return self._ctx.cancelled or self._work >= effort

    @property
    def open(self) -> bool:
        """True while something may be left to gain."""
        return self.best is not None and self.bound < self._wanted

    @property
    def _wanted(self) -> float:
        """A bound of this or more needs no closer look."""
        return self.value / (1 + self._tolerance)

    def certified(self) -> Candidate:
        """The best mapping with what is proven of it."""
        assert self.best is not None
        gap = self.value / self.bound - 1 if self.bound else None
        proven = gap is not None and gap <= self._equal
        claim = Claim("optimal" if proven else "best found", self._space, self.bound or None, gap)
        return Candidate(marked(self.best, self._request.operator, self.part.operator), claim)
