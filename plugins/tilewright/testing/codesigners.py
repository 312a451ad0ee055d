"""What every co-designer must do."""

from __future__ import annotations

import math
from typing import ClassVar

from tilewright import loopnest as ln
from tilewright.protocol import registry
from tilewright.protocol.context import HostContext
from tilewright.protocol.plugin import Budget, BudgetExhausted, DesignCandidate, DesignRequest, Options, WeightedWorkload
from tilewright.protocol.workload import Workload

from . import samples


class CodesignerConformance:
    """Subclass it and set `name`."""

    #: Entry-point name of the co-designer.
    name: ClassVar[str]
    #: Target whose design space is searched.
    target: ClassVar[str] = "gemmini"
    options: ClassVar[Options] = {}
    evaluations: ClassVar[int] = 6000

    def workload(self) -> Workload:
        """The workload designed for."""
        return samples.workload()

    def search(self, *, seed: int = 0) -> tuple[list[DesignCandidate], HostContext]:
        """All candidates of one search, and the context afterwards."""
        ctx = HostContext("codesigners", self.name, Budget(evaluations=self.evaluations), seed, granted=(f"targets:{self.target}",))
        request = DesignRequest((WeightedWorkload(self.workload()),), self.target, options=self.options)
        found = []
        try:
            for candidate in registry.load("codesigners", self.name).search(request, ctx):
                found.append(candidate)
        except BudgetExhausted:
            pass
        return found, ctx

    def edp(self, candidate: DesignCandidate) -> float:
        """EDP of the whole workload under the one cost model; `InvalidMapping` when a mapping is invalid on the candidate's hardware."""
        target = registry.load("targets", self.target)
        architecture = target.architecture(**candidate.parameters)
        tasks = [task for task in self.workload().tasks if task.operator.is_contraction]
        assert len(tasks) == len(candidate.mappings)
        costs = [
            (task.count, ln.cost(ln.Problem(task.operator, architecture, target.constraints()), mapping))
            for task, mapping in zip(tasks, candidate.mappings, strict=True)
        ]
        return math.fsum(n * cost.energy_pj for n, cost in costs) * sum(n * cost.cycles for n, cost in costs)

    def test_finds_valid_designs_in_the_space(self) -> None:
        """Parameters lie within their limits, and every mapping is valid on the hardware they make."""
        found, _ = self.search()
        assert found
        space = {parameter.name: parameter for parameter in registry.load("targets", self.target).design_space().parameters}
        for candidate in found:
            assert set(candidate.parameters) <= set(space)
            assert all(space[name].low <= value <= space[name].high for name, value in candidate.parameters.items())
            assert self.edp(candidate) > 0

    def test_same_seed_same_designs(self) -> None:
        """A search depends on its request and seed alone."""
        assert self.search(seed=3)[0] == self.search(seed=3)[0]

    def test_keeps_its_budget(self) -> None:
        """Never more evaluations than given."""
        assert self.search()[1].evaluations <= self.evaluations

    def test_bounds_are_bounds(self) -> None:
        """A stated lower bound is never above what was found, and names its mapspace."""
        found, _ = self.search()
        best = min(self.edp(candidate) for candidate in found)
        for candidate in found:
            if candidate.claim.lower_bound is not None:
                assert candidate.claim.lower_bound <= best * (1 + 1e-9)
                assert candidate.claim.mapspace
