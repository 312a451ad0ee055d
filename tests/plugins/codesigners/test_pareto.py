"""The co-designer `pareto`, against the published results of the method that it competes with."""

from __future__ import annotations

import itertools
import math

import pytest

from tilewright import loopnest as ln
from tilewright.protocol import registry
from tilewright.protocol.context import HostContext
from tilewright.protocol.cost import Cost, Objective
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Budget, BudgetExhausted, DesignCandidate, DesignRequest, WeightedWorkload
from tilewright.protocol.workload import Workload, matmul
from tilewright.testing import CodesignerConformance, samples

#: DOSA's BERT: (rows, contraction, columns, count) of each distinct product (ucb-bar/dosa, BSD-2-Clause).
DOSA_BERT = [(128, 768, 768, 2), (128, 64, 128, 1), (128, 128, 64, 1), (128, 768, 3072, 1), (128, 3072, 768, 1)]
#: Lowest EDP (uJ x cycles) of five seeds of DOSA on it, at 10,500 samples per layer.
DOSA_BERT_BEST = 1.828e9


class TestPareto(CodesignerConformance):
    name = "pareto"


def bert() -> Workload:
    return Workload.build("bert", [(f"mm{i}", matmul(p=p, c=c, k=k)) for i, (p, c, k, n) in enumerate(DOSA_BERT) for _ in range(n)])


def search(
    workload: Workload, evaluations: int, *, objective: Objective = "edp", limits: dict[str, float] | None = None
) -> list[DesignCandidate]:
    ctx = HostContext("codesigners", "pareto", Budget(evaluations=evaluations), granted=("targets:gemmini",))
    request = DesignRequest((WeightedWorkload(workload),), "gemmini", objective, limits or {})
    found = []
    try:
        for candidate in registry.load("codesigners", "pareto").search(request, ctx):
            found.append(candidate)
    except BudgetExhausted:
        pass
    return found


def costs(workload: Workload, candidate: DesignCandidate) -> list[tuple[int, Cost]]:
    target = registry.load("targets", "gemmini")
    architecture = target.architecture(**candidate.parameters)
    return [
        (task.count, ln.cost(ln.Problem(task.operator, architecture, target.constraints()), mapping))
        for task, mapping in zip(workload.tasks, candidate.mappings, strict=True)
    ]


def totals(workload: Workload, candidate: DesignCandidate) -> tuple[float, int]:
    each = costs(workload, candidate)
    return math.fsum(n * cost.energy_pj for n, cost in each), sum(n * cost.cycles for n, cost in each)


def test_beats_dosa_on_bert_at_a_fifth_of_its_samples() -> None:
    energy, cycles = totals(bert(), search(bert(), 2000 * len(DOSA_BERT))[-1])
    assert energy * 1e-6 * cycles < DOSA_BERT_BEST


def test_each_candidate_improves() -> None:
    values = [math.prod(totals(samples.workload(), candidate)) for candidate in search(samples.workload(), 3000)]
    assert len(values) > 1
    assert all(better <= worse * (1 + 1e-12) for worse, better in itertools.pairwise(values))


def test_objectives_differ_as_they_should() -> None:
    energy, _ = totals(bert(), search(bert(), 4000, objective="energy")[-1])
    _, cycles = totals(bert(), search(bert(), 4000, objective="latency")[-1])
    both = totals(bert(), search(bert(), 4000)[-1])
    assert energy <= both[0]
    assert cycles <= both[1]


def test_limits_are_kept() -> None:
    free = search(samples.workload(), 3000)[-1]
    tight = search(samples.workload(), 3000, limits={"pe": 8, "scratchpad_kib": 16})[-1]
    assert tight.parameters["pe"] <= 8
    assert tight.parameters["scratchpad_kib"] <= 16
    assert math.prod(totals(samples.workload(), tight)) >= math.prod(totals(samples.workload(), free))


def test_area_limit_is_kept() -> None:
    target = registry.load("targets", "gemmini")
    for limit in (0.5, 1.0):
        candidate = search(samples.workload(), 3000, limits={"area_mm2": limit})[-1]
        prices = ln.Prices(target.architecture(**candidate.parameters))
        assert prices.compute_area + sum(prices.area) <= limit


def test_unknown_limit_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"'voltage' is unknown, expected one of accumulator_kib, area_mm2, pe, scratchpad_kib"):
        search(samples.workload(), 100, limits={"voltage": 1})
