"""The reducer alone: order does not matter, repetition does not matter, and every rule for how a run ends."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.protocol.codec import decode, encode
from tilewright.protocol.messages import Failure, RunRequest
from tilewright.protocol.run import RunState, TaskRecord, bits, cancel, members, packed, parse_task, task_id
from tilewright.protocol.subjects import STAGES, Stage
from tilewright.services.pipeline.news import news
from tilewright.services.pipeline.reduce import WINDOW, Ended, Event, Lost, PublishJob, Submitted, Tick, expects, reduce, unsent

from .simulation import Scenario, draw_scenario


def submitted(stages: tuple[Stage, ...] = STAGES) -> Submitted:
    return Submitted("run", RunRequest("model", "target", stages=stages), "", 1.0)


def record(scenario: Scenario, task: str) -> TaskRecord:
    outcome = scenario.outcome(task, 2)
    usable = scenario.usable(task) if outcome.status == "done" else 0
    return TaskRecord(task, task, outcome.status, outcome.result, outcome.answer, usable, outcome.failure)


def ended(scenario: Scenario, task: str, time: float = 2.0) -> Ended:
    stage, index = parse_task(task)
    return Ended(stage, index, record(scenario, task), time)


def begin(scenario: Scenario) -> tuple[RunState, list[str]]:
    """The state after submission, and the tasks that it sent."""
    state, commands = reduce(None, submitted(scenario.stages))
    assert not [command for command in commands if isinstance(command, PublishJob)]
    return after(state, Tick(1.0))


def after(state: RunState | None, event: Event) -> tuple[RunState, list[str]]:
    state, commands = reduce(state, event)
    assert state is not None
    return state, [task_id(command.stage, command.index) for command in commands if isinstance(command, PublishJob)]


def play(scenario: Scenario, rng: random.Random, *, repeat: float = 0.0) -> RunState:
    """A run whose outcomes come in any order, some of them again and again."""
    state, pending = begin(scenario)
    past: list[str] = []
    sent = list(pending)
    while pending:
        if past and rng.random() < repeat:
            same, jobs = after(state, ended(scenario, rng.choice(past)))
            assert same is state
            assert not jobs
            continue
        task = pending.pop(rng.randrange(len(pending)))
        past.append(task)
        state, jobs = after(state, ended(scenario, task))
        pending += jobs
        sent += jobs
    assert len(sent) == len(set(sent))
    return state


@given(st.randoms(use_true_random=False), st.randoms(use_true_random=False))
def test_the_order_of_outcomes_does_not_matter(shape: random.Random, order: random.Random) -> None:
    scenario = draw_scenario(shape, flaky=False)
    state = play(scenario, order, repeat=0.3)
    assert state == play(scenario, random.Random(0))
    status, fate = scenario.expected()
    assert state.status == status
    settled = {task_id(stage.stage, i) for stage in state.stages for i in members(bits(stage.done) | bits(stage.failed))}
    assert settled == set(fate)


@given(st.randoms(use_true_random=False))
def test_a_run_that_ended_stays_as_it_is(shape: random.Random) -> None:
    scenario = draw_scenario(shape, flaky=False)
    state = play(scenario, shape)
    events = [submitted(scenario.stages), Tick(9.0), Lost("map", 3, 0), ended(scenario, "profile-0", 9.0), ended(scenario, "map-0", 9.0)]
    assert all(reduce(state, event) == (state, ()) for event in events)
    assert state.exit_code is not None
    assert cancel(state, 9.0) is state


@given(st.randoms(use_true_random=False))
def test_outcomes_that_come_before_their_stage_is_known(shape: random.Random) -> None:
    """Jobs were published by somebody who died before writing the state: their outcomes count all the same."""
    scenario = draw_scenario(shape, flaky=False)
    expected = play(scenario, random.Random(0))
    _, fate = scenario.expected()
    state, _ = begin(scenario)
    early = [task for task in fate if task != "profile-0"]
    shape.shuffle(early)
    for task in [*early, "profile-0"]:
        state, _ = after(state, ended(scenario, task))
    assert state == expected


@given(st.randoms(use_true_random=False), st.data())
def test_nothing_is_sent_after_cancel(order: random.Random, data: st.DataObject) -> None:
    scenario = Scenario(STAGES, 4, {})
    state, pending = begin(scenario)
    for _ in range(data.draw(st.integers(0, 5))):
        state, jobs = after(state, ended(scenario, pending.pop(order.randrange(len(pending)))))
        pending += jobs
    state = cancel(state, 5.0)
    assert (state.status, state.exit_code, state.finished) == ("cancelled", 4, 5.0)
    for event in (Tick(6.0), submitted(), *(Lost(stage, 255, 0) for stage in STAGES)):
        assert reduce(state, event) == (state, ())
    for task in pending:
        assert reduce(state, Ended(*parse_task(task), TaskRecord(task, task, "cancelled"), 6.0)) == (state, ())
        state, jobs = after(state, ended(scenario, task, 6.0))  # it was nearly done: what it found is kept
        assert not jobs
        assert not expects(state, *parse_task(task))
    assert (state.status, state.finished) == ("cancelled", 5.0)


def test_lost_jobs_are_sent_again_under_a_new_generation() -> None:
    scenario = Scenario(STAGES, 4, {})
    state, _ = begin(scenario)
    state, _ = after(state, ended(scenario, "profile-0"))
    state, _ = after(state, ended(scenario, "map-1"))
    lost, jobs = after(state, Lost("map", 0b0011, 0))
    assert not jobs  # first the new generation is written
    assert lost.stages[1].generation == 1
    assert after(lost, Lost("map", 0b0011, 0)) == (lost, [])  # old evidence
    assert after(lost, Lost("map", 0b0010, 1)) == (lost, [])  # a task that is done is not lost
    _, commands = reduce(lost, Tick(3.0))
    assert commands == (PublishJob("map", 0, 1),)  # map-1 is done, whatever the evidence says
    # An outcome of the first generation still counts, once.
    late, jobs = after(lost, ended(scenario, "map-0"))
    assert not jobs
    assert late.stages[1].counts["done"] == 2


def test_a_window_of_tasks_at_a_time() -> None:
    scenario = Scenario(("map",), 10_000, {})
    state, _ = begin(scenario)
    state, jobs = after(state, ended(scenario, "profile-0"))
    assert jobs == [f"map-{i}" for i in range(WINDOW)]
    state, jobs = after(state, ended(scenario, "map-7"))
    assert jobs == [f"map-{WINDOW}"]
    for index in range(3000):
        state, jobs = after(state, ended(scenario, f"map-{index}"))
        assert state.stages[1].outstanding.bit_count() == WINDOW
    assert len(encode(state)) < 64 * 1024
    assert decode(encode(state), RunState) == state


def test_refused_jobs_wait() -> None:
    scenario = Scenario(("map",), 3, {})
    state, _ = begin(scenario)
    state, commands = reduce(state, ended(scenario, "profile-0"))
    assert state is not None
    jobs = [command for command in commands if isinstance(command, PublishJob)]
    state = unsent(state, jobs[1:])
    assert list(members(bits(state.stages[1].sent))) == [0]
    assert after(state, Tick(3.0))[1] == ["map-1", "map-2"]
    assert unsent(state, []) is state


@pytest.mark.parametrize(
    ("stages", "operators", "fate", "status", "code", "text"),
    [
        (STAGES, 3, {}, "done", 0, ""),
        (STAGES, 3, {"profile-0": "fails"}, "failed", 1, "profile-0 breaks"),
        (STAGES, 3, {"map-1": "fails"}, "partial", 3, "map-1 breaks"),
        (STAGES, 3, {"map-2": "fails", "map-1": "fails", "kernel-0": "fails"}, "partial", 3, "map-1 breaks"),
        (STAGES, 3, {"map-1": "empty"}, "partial", 3, "no valid mapping on target"),
        (STAGES, 2, {"map-0": "empty", "map-1": "empty"}, "failed", 1, "no valid mapping on target"),
        (STAGES, 2, {"map-0": "fails", "map-1": "empty"}, "failed", 1, "map-0 breaks"),
        (STAGES, 2, {"codesign-0": "fails", "simulate-0": "fails"}, "partial", 3, "codesign-0 breaks"),
        (("codesign",), 2, {"codesign-0": "fails"}, "failed", 1, "codesign-0 breaks"),
        (("kernel",), 2, {"kernel-0": "fails"}, "partial", 3, "kernel-0 breaks"),
        (("profile",), 0, {}, "done", 0, ""),
        (("map",), 0, {}, "failed", 2, "nothing to map"),
    ],
)
def test_how_a_run_ends(stages: tuple[Stage, ...], operators: int, fate: dict[str, str], status: str, code: int, text: str) -> None:
    state = play(Scenario(stages, operators, fate), random.Random(1))
    assert (state.status, state.exit_code) == (status, code)
    assert text in (state.failure.message if state.failure else "")
    assert bool(state.notes) == (status != "done")


def test_a_failed_run_has_the_exit_code_of_its_failure() -> None:
    state, _ = begin(Scenario(STAGES, 1, {}))
    failure = Failure("bad input", "sequence length 0, expected >= 1", exit_code=2)
    state, _ = after(state, Ended("profile", 0, TaskRecord("profile-0", "model", "failed", failure=failure), 2.0))
    assert (state.status, state.failure, state.exit_code) == ("failed", failure, 2)


def test_a_task_that_stopped_although_nobody_cancelled_the_run_has_failed() -> None:
    state, _ = begin(Scenario(STAGES, 1, {}))
    state, _ = after(state, Ended("profile", 0, TaskRecord("profile-0", "model", "cancelled"), 2.0))
    assert state.failure is not None
    assert (state.status, state.failure.reason) == ("failed", "cancelled")


def test_outcomes_nobody_waits_for() -> None:
    state, _ = begin(Scenario(("map",), 2, {}))
    assert not expects(state, "kernel", 0)  # the run has no such stage
    assert expects(state, "map", 99)  # nobody knows yet
    assert not expects(state, "map", 100_000)
    state, _ = after(state, ended(Scenario(("map",), 2, {}), "profile-0"))
    assert expects(state, "map", 1)
    assert not expects(state, "map", 2)
    assert reduce(None, Tick(1.0)) == (None, ())


def test_news() -> None:
    scenario = Scenario(("map",), 2, {"map-1": "fails"})
    state, commands = reduce(None, submitted(("map",)))
    (accepted,) = commands
    assert (accepted.stage, accepted.kind, accepted.event.text) == ("run", "accepted", "model on target: profile, map")
    assert state is not None
    state, _ = after(state, Tick(1.0))
    opened, commands = reduce(state, ended(scenario, "profile-0"))
    told = [command for command in commands if not isinstance(command, PublishJob)]
    assert [(each.stage, each.kind) for each in told] == [("profile", "state"), ("map", "queued")]
    assert told[1].event.figures == {"tasks": 2.0, "skipped": 0.0}
    state, _ = after(opened, ended(scenario, "map-0"))
    _, commands = reduce(state, ended(scenario, "map-1"))
    last = commands[-1]
    assert not isinstance(last, PublishJob)
    assert (last.stage, last.kind, last.event.text) == ("run", "state", "partial")
    assert last.event.failure == Failure("exception", "map-1 breaks")
    assert news(state, state) == ()


@given(st.sets(st.integers(0, 300)))
def test_bitmaps(tasks: set[int]) -> None:
    whole = sum(1 << task for task in tasks)
    assert bits(packed(whole)) == whole
    assert list(members(whole)) == sorted(tasks)


@settings(max_examples=20)
@given(st.randoms(use_true_random=False))
def test_states_survive_the_wire(shape: random.Random) -> None:
    state = play(draw_scenario(shape, flaky=False), shape)
    assert decode(encode(state), RunState) == state
    assert msgspec.structs.replace(state, run="other") != state
