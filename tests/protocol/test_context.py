"""What a plugin works in: budgets that count, time limits that cut, other plugins only as declared."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from tilewright.protocol import registry
from tilewright.protocol.context import HostContext
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Budget, BudgetExhausted
from tilewright.protocol.registry import PluginRef


@pytest.fixture(autouse=True)
def declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapper ``asking`` that uses ``helper``, which uses ``deep`` and ``asking``."""
    used = {"asking": ("helper",), "helper": ("deep", "asking"), "deep": ()}
    monkeypatch.setattr(registry, "find", lambda kind, name: PluginRef(kind, name, "acme", "1", "x:y"))
    monkeypatch.setattr(registry, "uses", lambda ref: tuple(PluginRef("mappers", name, "acme", "1", "x:y") for name in used[ref.name]))


class Scorer:
    """Scores a list of numbers."""

    loads = 0

    def evaluate(self, batch: list[int]) -> list[int]:
        return [number * number for number in batch]


def load(kind: str, name: str) -> Any:
    if (kind, name) == ("simulators", "analytical"):
        Scorer.loads += 1
        return Scorer()
    return f"{kind}:{name}"


def context(budget: Budget | None = None, **more: Any) -> HostContext:
    return HostContext("mappers", "asking", budget or Budget(), load=load, **more)


def test_evaluations_count_and_are_cut_to_the_budget() -> None:
    seen: list[Any] = []
    ctx = context(Budget(evaluations=5, gap=0.1), observe=seen.append)
    assert ctx.evaluate([1, 2, 3]) == [1, 4, 9]
    assert (ctx.evaluations, ctx.budget) == (3, Budget(evaluations=2, gap=0.1))
    assert ctx.evaluate([4, 5, 6]) == [16, 25]
    with pytest.raises(BudgetExhausted, match="budget of 5 evaluations used"):
        ctx.evaluate([7])
    assert seen == [[1, 4, 9], [16, 25]]


def test_the_scorer_is_loaded_once() -> None:
    Scorer.loads = 0
    ctx = context()
    for _ in range(3):
        ctx.evaluate([1])
    assert Scorer.loads == 1
    assert ctx.evaluations == 3
    assert ctx.budget == Budget()


def test_other_evaluations_are_charged() -> None:
    ctx = context(Budget(evaluations=5))
    ctx.charge(5)
    with pytest.raises(BudgetExhausted, match="budget of 5"):
        ctx.charge(1)
    assert ctx.evaluations == 5


def test_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    ctx = context(Budget(seconds=10.0))
    now = 104.0
    assert ctx.budget == Budget(seconds=6.0)
    ctx.charge(1)
    now = 111.0
    assert ctx.cancelled
    assert ctx.cut
    assert ctx.budget.seconds == 0.0
    with pytest.raises(BudgetExhausted, match=r"stopped after 1 evaluations: time limit of 10\.0 s"):
        ctx.charge(1)


def test_a_cancelled_run_stays_cancelled() -> None:
    stop = False
    ctx = context(cancelled=lambda: stop)
    assert not ctx.cancelled
    stop = True
    assert not ctx.cut, "not seen yet"
    with pytest.raises(BudgetExhausted, match=r"stopped after 0 evaluations$"):
        ctx.evaluate([1])
    assert ctx.cut
    stop = False
    assert ctx.cancelled


def test_only_declared_plugins_can_be_reached() -> None:
    ctx = context(granted=("targets:gemmini",))
    assert ctx.plugin("mappers", "helper") == "mappers:helper"
    assert ctx.plugin("mappers", "deep") == "mappers:deep"
    assert ctx.plugin("targets", "gemmini") == "targets:gemmini"
    with pytest.raises(
        InvalidInput, match=r"mapper 'asking' asked for mappers:random, expected one of its `uses`: \['mappers:asking', 'mappers:deep'"
    ):
        ctx.plugin("mappers", "random")


def test_the_seed_is_the_requests() -> None:
    numbers = [context(seed=seed).rng.integers(1 << 30) for seed in (7, 7, 8)]
    assert numbers[0] == numbers[1] != numbers[2]


def test_progress_is_passed_on() -> None:
    told: list[Any] = []
    ctx = context(progress=lambda message, figures: told.append((message, figures)))
    ctx.progress("best so far", edp=1.5)
    assert told == [("best so far", {"edp": 1.5})]
    context().progress("nobody listens")


def test_figures_of_progress_are_plain_floats() -> None:
    """They go over a wire that knows no numpy."""
    told: list[dict[str, float]] = []
    context(progress=lambda message, figures: told.append(figures)).progress("bounding", bound=np.float64(2.5), done=np.int64(3))
    assert told == [{"bound": 2.5, "done": 3.0}]
    assert {type(value) for value in told[0].values()} == {float}
