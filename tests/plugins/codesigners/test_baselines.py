"""The co-designers `random`, `evolutionary` and `bayesian`: baselines, each by its own means."""

from __future__ import annotations

import math
import sys
from typing import ClassVar

import numpy as np
import pytest

from tilewright import loopnest as ln
from tilewright.loopnest.designing import Designing, area
from tilewright.plugins.codesigners import bayesian
from tilewright.protocol import registry
from tilewright.protocol.context import HostContext
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Budget, BudgetExhausted, DesignCandidate, DesignRequest, Option, Options, WeightedWorkload
from tilewright.testing import CodesignerConformance, samples


class TestRandom(CodesignerConformance):
    name = "random"
    evaluations = 300


class TestEvolutionary(CodesignerConformance):
    name = "evolutionary"
    evaluations = 600
    options: ClassVar[Options] = {"population": 4, "mappings": 16}


class TestBayesian(CodesignerConformance):
    name = "bayesian"
    evaluations = 300
    options: ClassVar[Options] = {"hardware": 4, "ranked": 20}


class TestOptuna(CodesignerConformance):
    name = "bayesian"
    evaluations = 300
    options: ClassVar[Options] = {"method": "optuna", "hardware": 12}


def search(name: str, evaluations: int, limits: dict[str, float] | None = None, **options: Option) -> list[DesignCandidate]:
    ctx = HostContext("codesigners", name, Budget(evaluations=evaluations), granted=("targets:gemmini",))
    request = DesignRequest((WeightedWorkload(samples.workload()),), "gemmini", "edp", limits or {}, options=options)
    found = []
    try:
        for candidate in registry.load("codesigners", name).search(request, ctx):
            found.append(candidate)
    except BudgetExhausted:
        pass
    return found


def edp(candidate: DesignCandidate) -> float:
    target = registry.load("targets", "gemmini")
    architecture = target.architecture(**candidate.parameters)
    tasks = [task for task in samples.workload().tasks if task.operator.is_contraction]
    costs = [
        (task.count, ln.cost(ln.Problem(task.operator, architecture, target.constraints()), mapping))
        for task, mapping in zip(tasks, candidate.mappings, strict=True)
    ]
    return math.fsum(n * cost.energy_pj for n, cost in costs) * sum(n * cost.cycles for n, cost in costs)


@pytest.mark.parametrize("name", ["random", "evolutionary", "bayesian"])
def test_candidates_improve_and_keep_limits(name: str) -> None:
    options: Options = {"hardware": 6, "ranked": 20} if name == "bayesian" else {}
    found = search(name, 400, {"area_mm2": 1.5, "pe": 32}, **options)
    values = [edp(candidate) for candidate in found]
    assert values == sorted(values, reverse=True)
    target = registry.load("targets", "gemmini")
    for candidate in found:
        assert candidate.parameters["pe"] <= 32
        assert area(target.architecture(**candidate.parameters)) <= 1.5


def test_evolution_gets_further_than_its_first_generation() -> None:
    found = search("evolutionary", 2000, population=4, mappings=16)
    assert edp(found[-1]) < 0.7 * edp(found[0])


@pytest.mark.parametrize("name", ["random", "evolutionary", "bayesian"])
def test_limits_are_checked(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"limits: 'pee' is unknown; did you mean 'pe'"):
        search(name, 100, {"pee": 4})
    with pytest.raises(InvalidInput, match=r"limits: pe=1, expected at least 2"):
        search(name, 100, {"pe": 1})


def test_gaussian_process_is_the_textbooks() -> None:
    """Against the posterior written out with an inverse matrix."""
    rng = np.random.default_rng(0)
    points, values, asked = rng.normal(size=(12, 3)), rng.normal(size=12), rng.normal(size=(5, 3))
    scaled, at = ((each - points.mean(axis=0)) / points.std(axis=0) for each in (points, asked))

    def kernel(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * ((one[:, None] - other[None]) ** 2).sum(axis=2))

    inverse = np.linalg.inv(kernel(scaled, scaled) + bayesian.NOISE * np.eye(12))
    mean = kernel(at, scaled) @ inverse @ ((values - values.mean()) / values.std())
    spread = np.sqrt(1 - np.einsum("ij,jk,ik->i", kernel(at, scaled), inverse, kernel(at, scaled)))
    expected = values.mean() + values.std() * (mean - spread)
    assert bayesian.GaussianProcess(points, values).low(asked) == pytest.approx(expected, rel=1e-6)


def test_published_defect_picks_other_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways spend the first stage alike; the second one differs, and without the defect it takes what ranks first."""
    seen: list[list[tuple[int, ...]]] = []
    inner = bayesian._inner

    def watched(designing: Designing, hardware: tuple[int, ...], *more: int) -> object:
        seen[-1].append(hardware)
        return inner(designing, hardware, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(bayesian, "_inner", watched)
    monkeypatch.setattr(bayesian, "RANKED_HARDWARE", 200)
    for defect in (False, True):
        seen.append([])
        search("bayesian", 900, hardware=8, ranked=20, as_published=defect)
    assert seen[0][:8] == seen[1][:8]
    assert seen[0][8:] != seen[1][8:]


def test_options_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match=r"options.method: 'one-loop', expected one of two-loop, optuna"):
        search("bayesian", 100, method="one-loop")
    with pytest.raises(InvalidInput, match=r"options.sampler: 'cma', expected one of tpe, gp"):
        search("bayesian", 100, method="optuna", sampler="cma")
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InvalidInput, match="install tilewright with the extra bayesian"):
        search("bayesian", 100, method="optuna")
