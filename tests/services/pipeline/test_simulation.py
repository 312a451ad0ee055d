"""The pipeline's own step functions in a world where everything that can go wrong does, from a seed."""

from __future__ import annotations

import pytest

from tilewright.protocol.subjects import STAGES
from tilewright.services.pipeline import reduce as reducer

from . import simulation
from .simulation import BlindPort, Broken, ForgetfulPort, LastWriterPort, Scenario, SimulatedPort, simulate

SCHEDULES = 1500


def test_every_schedule_ends_well() -> None:
    total = simulation.Report()
    for seed in range(SCHEDULES):
        total.add(simulate(seed))
    # The schedules were as bad as they were meant to be.
    assert total.executions > total.tasks > 5 * SCHEDULES
    assert min(total.crashes, total.redelivered, total.conflicts) > SCHEDULES
    assert total.cancelled > SCHEDULES // 20


def test_without_faults_nothing_has_to_be_repaired() -> None:
    for seed in range(400):
        report = simulate(seed, faults=False)
        assert report.executions == report.tasks


def test_tasks_whose_outcome_changes_from_try_to_try() -> None:
    for seed in range(300):
        simulate(seed, flaky=True)


def test_a_narrow_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reducer, "WINDOW", 1)
    for seed in range(200):
        simulate(seed)


SCENARIOS = {
    "whole": Scenario(STAGES, 4, {"map-1": "empty", "kernel-2": "fails"}),
    "other": Scenario(("simulate",), 2, {}),
}


def test_one_digest_whatever_the_schedule() -> None:
    reports = [simulate(seed, scenarios=SCENARIOS) for seed in range(100)]
    assert len({tuple(sorted(report.digests.items())) for report in reports}) == 1
    assert len({report.steps for report in reports}) > 50


def complaints(port: type[SimulatedPort], *, flaky: bool = False) -> str:
    found = []
    for seed in range(150):
        try:
            simulate(seed, port, flaky=flaky)
        except Broken as error:
            found.append(str(error))
    return "\n".join(found)


def test_without_the_swap_it_breaks() -> None:
    found = complaints(BlindPort)
    assert "settled tasks were forgotten" in found
    assert "a run that was cancelled is running" in found


def test_when_the_last_record_wins_it_breaks() -> None:
    assert "recorded as" in complaints(LastWriterPort, flaky=True)


def test_when_a_full_queue_counts_as_sent_it_breaks() -> None:
    assert "not over" in complaints(ForgetfulPort)
