"""The simulator service: costs of schedules as they came over the wire."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import pytest

from tilewright.protocol.codec import decode, encode
from tilewright.protocol.design import ScheduledTask
from tilewright.protocol.errors import BrokenPlugin, InvalidInput
from tilewright.protocol.messages import SimulateJob
from tilewright.protocol.plugin import SimRequest, SimResult
from tilewright.services import simulator
from tilewright.services.runtime.host import Host
from tilewright.testing import samples

from .conftest import Offer

ARCHITECTURE = samples.architecture()
TASKS = tuple(ScheduledTask(samples.schedule(samples.OPERATORS[name], ARCHITECTURE), 2, name) for name in ("matmul", "conv"))
JOB = SimulateJob(TASKS, ARCHITECTURE, "analytical")


def test_the_same_model_says_the_same_and_says_so(host: Host) -> None:
    found = simulator.perform(decode(encode(JOB), SimulateJob), host)
    assert found.costs == tuple(task.schedule.cost for task in TASKS)
    assert found.same_model
    assert found.model == TASKS[0].schedule.cost.model
    assert all(max(shares.values()) == 1.0 for shares in found.attribution)
    assert simulator.plugins(JOB, host) == (("simulators", "analytical"),)


def test_another_model_is_something_new(host: Host, offer: Offer) -> None:
    class Slow:
        options: ClassVar[dict[str, str]] = {}

        def run(self, request: SimRequest, ctx: Any) -> SimResult:
            costs = tuple(msgspec.structs.replace(each.cost, model="slow/1", cycles=2 * each.cost.cycles) for each in request.schedules)
            return SimResult(costs, "slow/1")

    offer("simulators", "slow", Slow)
    found = simulator.perform(msgspec.structs.replace(JOB, simulator="slow"), host)
    assert (found.same_model, found.model) == (False, "slow/1")
    assert [cost.cycles for cost in found.costs] == [2 * task.schedule.cost.cycles for task in TASKS]


def test_a_cost_that_its_mapping_does_not_have_is_rejected(host: Host) -> None:
    schedule = TASKS[1].schedule
    tampered = msgspec.structs.replace(schedule, cost=msgspec.structs.replace(schedule.cost, cycles=schedule.cost.cycles - 1))
    job = msgspec.structs.replace(JOB, tasks=(TASKS[0], msgspec.structs.replace(TASKS[1], schedule=tampered)))
    with pytest.raises(InvalidInput, match=f"schedule 1: its cost says cycles = {schedule.cost.cycles - 1}"):
        simulator.perform(job, host)


def test_a_schedule_of_other_hardware_is_rejected(host: Host) -> None:
    other = msgspec.structs.replace(ARCHITECTURE, clock_ghz=2.0)
    with pytest.raises(InvalidInput, match=r"tasks.0.schedule.architecture: [0-9a-f]{64}, expected that of sample, [0-9a-f]{64}"):
        simulator.perform(msgspec.structs.replace(JOB, architecture=other), host)


def test_one_cost_per_schedule(host: Host, offer: Offer) -> None:
    class Lazy:
        options: ClassVar[dict[str, str]] = {}

        def run(self, request: SimRequest, ctx: Any) -> SimResult:
            return SimResult((), "lazy/1")

    offer("simulators", "lazy", Lazy)
    with pytest.raises(BrokenPlugin, match="simulator 'lazy' gave 0 costs for 2 schedules"):
        simulator.perform(msgspec.structs.replace(JOB, simulator="lazy"), host)


def test_unknown_options_are_refused(host: Host) -> None:
    with pytest.raises(InvalidInput, match=r"options.semantic: simulator 'analytical' has no such option; did you mean 'semantics'\?"):
        simulator.perform(msgspec.structs.replace(JOB, options={"semantic": "walk"}), host)
