"""What every mapper must do."""

from __future__ import annotations

from typing import ClassVar

import pytest

from tilewright import loopnest as ln
from tilewright.protocol import registry
from tilewright.protocol.architecture import Architecture, Constraints, LevelConstraint
from tilewright.protocol.context import HostContext
from tilewright.protocol.plugin import Budget, BudgetExhausted, Candidate, MapRequest, Options
from tilewright.protocol.workload import Operator

from . import samples

EACH = pytest.mark.parametrize("operator", samples.OPERATORS.values(), ids=samples.OPERATORS)


class MapperConformance:
    """Subclass it, set `name`; override `options` or `architecture` where your mapper needs others."""

    #: Entry-point name of the mapper.
    name: ClassVar[str]
    options: ClassVar[Options] = {}
    #: Evaluations given to each search.
    evaluations: ClassVar[int] = 400

    def architecture(self) -> Architecture:
        """The architecture mapped to."""
        return samples.architecture()

    def search(
        self,
        operator: Operator,
        *,
        seed: int = 0,
        evaluations: int | None = None,
        cancelled: bool = False,
        constraints: Constraints | None = None,
    ) -> tuple[list[Candidate], HostContext]:
        """All candidates of one search, and the context afterwards."""
        budget = Budget(evaluations=self.evaluations if evaluations is None else evaluations)
        ctx = HostContext("mappers", self.name, budget, seed, cancelled=lambda: cancelled)
        request = MapRequest(operator, self.architecture(), constraints or Constraints(), options=self.options)
        found = []
        try:
            for candidate in registry.load("mappers", self.name).search(request, ctx):
                found.append(candidate)
        except BudgetExhausted:
            pass
        return found, ctx

    def values(self, operator: Operator, candidates: list[Candidate], constraints: Constraints | None = None) -> list[float]:
        """EDP of each candidate under the one cost model; `InvalidMapping` when one is invalid."""
        problem = ln.Problem(operator, self.architecture(), constraints or Constraints())
        return [ln.cost(problem, candidate.mapping).edp for candidate in candidates]

    def test_describes_its_options(self) -> None:
        """`options` maps each option to one line of help, and covers those used here."""
        options = registry.load("mappers", self.name).options
        assert all(isinstance(key, str) and isinstance(text, str) and text for key, text in options.items())
        assert set(self.options) <= set(options)

    @EACH
    def test_finds_valid_mappings(self, operator: Operator) -> None:
        """At least one candidate for a feasible operator, and none that the cost model rejects."""
        found, _ = self.search(operator)
        assert found
        assert min(self.values(operator, found)) > 0

    @EACH
    def test_same_seed_same_candidates(self, operator: Operator) -> None:
        """A search depends on its request and seed alone."""
        assert self.search(operator, seed=7)[0] == self.search(operator, seed=7)[0]

    def test_keeps_its_budget(self) -> None:
        """Never more evaluations than given."""
        assert self.search(samples.OPERATORS["conv"], evaluations=50)[1].evaluations <= 50

    def test_more_budget_is_never_worse(self) -> None:
        """With one seed, a longer search ends at least as well."""
        operator = samples.OPERATORS["conv"]
        short = self.values(operator, self.search(operator, evaluations=100)[0])
        long = self.values(operator, self.search(operator, evaluations=400)[0])
        assert min(long) <= min(short, default=float("inf"))

    def test_stops_when_cancelled(self) -> None:
        """A cancelled search uses at most a part of a big budget."""
        assert self.search(samples.OPERATORS["conv"], evaluations=1_000_000, cancelled=True)[1].evaluations < 100_000

    def test_honours_constraints(self) -> None:
        """Only allowed dims are spatial."""
        limits = Constraints(
            (
                LevelConstraint("Registers", spatial_dims=()),
                LevelConstraint("Buffer", spatial_dims=("K",)),
                LevelConstraint("DRAM", spatial_dims=()),
            )
        )
        found, _ = self.search(samples.OPERATORS["matmul"], constraints=limits)
        assert found
        for candidate in found:
            spatial = {(level.level, loop.dim) for level in candidate.mapping.levels for loop in level.spatial if loop.factor > 1}
            assert spatial <= {("Buffer", "K")}

    @EACH
    def test_bounds_are_bounds(self, operator: Operator) -> None:
        """A stated lower bound is never above what was found; an optimum equals it."""
        found, _ = self.search(operator)
        best = min(self.values(operator, found))
        for candidate in found:
            if candidate.claim.lower_bound is not None:
                assert candidate.claim.lower_bound <= best * (1 + 1e-9)
            if candidate.claim.kind == "optimal":
                assert candidate.claim.lower_bound is not None
                assert candidate.claim.mapspace
