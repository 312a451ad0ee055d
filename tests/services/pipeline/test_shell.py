"""Replicas on a real server, with workers that answer at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from tilewright.protocol import subjects
from tilewright.protocol.bus import Bus
from tilewright.protocol.codec import BLOB_THRESHOLD, encode
from tilewright.protocol.errors import NoConnection
from tilewright.protocol.keys import message_id
from tilewright.protocol.messages import DeadLetter, Failure, Mapped, Outcome, RunRequest, Submit, pack, unpack
from tilewright.protocol.run import RunState
from tilewright.protocol.subjects import STAGES, Limits
from tilewright.protocol.workload import Workload, matmul
from tilewright.services.pipeline.port import NatsPort
from tilewright.services.pipeline.shell import Replica
from tilewright.services.runtime.runs import Runs, digest, load_run, request_cancel, submit

from .fakes import ARCHITECTURE, Worker, answer, infeasible

REQUEST = RunRequest("toy", "toy")

Connect = Callable[[], Awaitable[Bus]]
Eventually = Callable[..., Awaitable[Any]]


@contextlib.asynccontextmanager
async def replica(bus: Bus, *, tick: float = 30.0, port: type[NatsPort] = NatsPort) -> AsyncIterator[asyncio.Task[None]]:
    """A replica at work; leaving stops it in order."""
    stop = asyncio.Event()
    task = asyncio.create_task(Replica(bus, await port.open(bus), tick).run(stop))
    try:
        yield task
    finally:
        stop.set()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


async def ended(bus: Bus, run: str, eventually: Eventually) -> RunState:
    runs = await Runs.open(bus)

    async def look() -> RunState | None:
        stored = await runs.read(run)
        return stored.state if stored and not stored.state.active else None

    state: RunState = await eventually(look)
    return state


async def test_a_whole_run(bus: Bus, eventually: Eventually) -> None:
    async with Worker(bus) as worker, replica(bus):
        run = await submit(bus, REQUEST)
        state = await ended(bus, run, eventually)
    assert (state.status, state.exit_code, state.notes) == ("done", 0, ())
    view = await load_run(bus, run)
    assert view is not None
    assert [record.task for record in view.records] == [
        "profile-0",
        *(f"map-{i}" for i in range(3)),
        "codesign-0",
        *(f"kernel-{i}" for i in range(3)),
        "simulate-0",
        "simulate-1",
    ]
    assert set(view.answers) == {record.task for record in view.records}
    assert [record.name for record in view.records if record.task.startswith("map")] == ["block.0", "block.1", "block.2"]
    assert set(worker.executed.values()) == {1}
    # The co-designer starts from the mapped schedules, counted; the simulator gets base and winner.
    assert [task.count for task in worker.jobs[run, "codesign-0"].start] == [2, 1, 1]
    assert len(worker.jobs[run, "simulate-0"].tasks) == len(worker.jobs[run, "simulate-1"].tasks) == 3
    assert await bus.subjects(subjects.DONE_STREAM, ">") == {}


async def test_events_tell_the_story(bus: Bus, eventually: Eventually) -> None:
    async with Worker(bus), replica(bus):
        run = await submit(bus, msgspec.structs.replace(REQUEST, stages=("map",)))
        await ended(bus, run, eventually)
        final = subjects.event_subject(run, "run", "-", "state")

        async def told() -> bool:
            return bool(await bus.subjects(subjects.EVENT_STREAM, final))

        await eventually(told)
    told_of = []
    async for event in bus.events(subjects.events_of(run), follow=False):
        told_of.append((event.subject.removeprefix(f"tw.v1.evt.{run}."), unpack(event.data)[1].text))
    assert told_of[0] == ("run.-.accepted", "toy on toy: profile, map")
    assert told_of[-1] == ("run.-.state", "done")
    assert ("map.map-1.queued", "block.1") in told_of
    assert ("map.-.queued", "3 tasks") in told_of
    assert ("map.-.state", "complete") in told_of


async def test_two_runs_at_once_and_a_second_run_from_the_store(bus: Bus, connect: Connect, eventually: Eventually) -> None:
    other = await connect()
    async with Worker(bus) as worker, replica(bus), replica(other):
        one, two = await asyncio.gather(submit(bus, REQUEST), submit(other, msgspec.structs.replace(REQUEST, seed=1)))
        states = [await ended(bus, run, eventually) for run in (one, two)]
        again = await submit(bus, REQUEST)
        states.append(await ended(bus, again, eventually))
    assert [state.status for state in states] == ["done"] * 3
    assert sum(stage.cached for stage in states[2].stages) == 10
    assert not any(run == again for run, _ in worker.executed)
    views = [await load_run(bus, run) for run in (one, again)]
    assert len({digest(view.records) for view in views if view}) == 1


async def test_asked_for_twice_is_one_run(bus: Bus, eventually: Eventually) -> None:
    async with Worker(bus) as worker, replica(bus):
        run = await submit(bus, REQUEST, "theone")
        assert await submit(bus, REQUEST, "theone") == run
        # The same submission with another message id: past the duplicate window, say.
        await bus.publish(subjects.SUBMIT, pack(Submit(REQUEST), run), "another id")
        await ended(bus, run, eventually)

        async def taken() -> bool:
            return not await bus.subjects(subjects.RUN_STREAM, ">")

        await eventually(taken)
    assert set(worker.executed.values()) == {1}
    assert await (await Runs.open(bus)).ids() == ["theone"]


async def test_a_stage_alone_runs_what_it_needs(bus: Bus, eventually: Eventually) -> None:
    async with Worker(bus) as worker, replica(bus):
        run = await submit(bus, msgspec.structs.replace(REQUEST, stages=("simulate",)))
        state = await ended(bus, run, eventually)
    assert [stage.stage for stage in state.stages] == ["profile", "map", "simulate"]
    assert state.status == "done"
    assert (run, "simulate-1") not in worker.jobs


class DiesBeforeTheSwap(NatsPort):
    """A replica that ends, as if killed, between publishing the map jobs and writing the state that says so."""

    async def write(self, state: RunState, revision: int) -> None:
        mapped = state.stage("map")
        if mapped is not None and mapped.outstanding:
            raise asyncio.CancelledError
        await super().write(state, revision)


async def test_killed_between_publish_and_swap(bus: Bus, connect: Connect, eventually: Eventually) -> None:
    async with Worker(bus) as worker:
        run = await submit(bus, REQUEST)
        async with replica(await connect(), port=DiesBeforeTheSwap) as victim:
            await eventually(victim.done)
        runs = await Runs.open(bus)
        stored = await runs.read(run)
        assert stored is not None
        # It died with the jobs published and the state not written; workers do them and report to nobody.
        assert [stage.total for stage in stored.state.stages] == [1, -1, -1, -1, -1]

        async def reported() -> bool:
            return sum(task.startswith("map") for _, task in worker.executed) == 3

        await eventually(reported)
        async with replica(bus):
            state = await ended(bus, run, eventually)
    assert state.status == "done"
    assert set(worker.executed.values()) == {1}


async def test_restarted_in_the_middle(bus: Bus, connect: Connect, eventually: Eventually) -> None:
    async with Worker(bus) as worker:
        worker.open.clear()
        run = await submit(bus, REQUEST)
        async with replica(await connect()):

            async def sent() -> bool:
                return bool(await bus.subjects(subjects.job_stream("profile"), ">"))

            await eventually(sent)
        worker.open.set()
        async with replica(await connect()):
            state = await ended(bus, run, eventually)
    assert state.status == "done"
    assert set(worker.executed.values()) == {1}


async def mapping(bus: Bus, run: str, eventually: Eventually) -> None:
    """Wait until the three map jobs of a run are queued and its state says so."""
    runs = await Runs.open(bus)

    async def queued() -> bool:
        stored = await runs.read(run)
        return stored is not None and stored.state.stages[1].outstanding == 0b111

    await eventually(queued)
    assert len(await bus.subjects(subjects.job_stream("map"), ">")) == 3


async def test_cancel(bus: Bus, eventually: Eventually) -> None:
    async with replica(bus, tick=0.1):
        async with Worker(bus, stages=("profile",)):
            run = await submit(bus, REQUEST)
            await mapping(bus, run, eventually)
        listening = aiter(bus.listen(subjects.cancel_subject(run)))
        heard = asyncio.ensure_future(anext(listening))
        await asyncio.sleep(0)
        state = await request_cancel(bus, run)
        assert state is not None
        assert (state.status, state.exit_code) == ("cancelled", 4)
        assert await asyncio.wait_for(heard, 5.0) == run.encode()
        assert await request_cancel(bus, run) == state
        async with Worker(bus) as worker:

            async def quiet() -> bool:
                queues = [subjects.DONE_STREAM, *(subjects.job_stream(stage) for stage in STAGES)]
                return not any([await bus.subjects(queue, ">") for queue in queues])

            await eventually(quiet)
        stored = await (await Runs.open(bus)).read(run)
        assert stored is not None
        assert stored.state == state
        # What was queued when it was cancelled was not done, and nothing followed.
        assert not worker.executed
    assert await request_cancel(bus, "nosuchrun") is None


async def test_lost_jobs_are_sent_again(bus: Bus, eventually: Eventually) -> None:
    async with replica(bus, tick=0.1):
        async with Worker(bus, stages=("profile",)):
            run = await submit(bus, REQUEST)
            await mapping(bus, run, eventually)
        await bus.connection.api(f"STREAM.PURGE.{subjects.job_stream('map')}")
        async with Worker(bus) as worker:
            state = await ended(bus, run, eventually)
    assert state.status == "done"
    assert [stage.generation for stage in state.stages] == [0, 1, 0, 0, 0]
    assert set(worker.executed.values()) == {1}


async def test_a_job_that_the_server_has_given_up_is_sent_again(bus: Bus, eventually: Eventually) -> None:
    """After `MAX_DELIVERIES` a job stays in its stream and nobody ever gets it."""
    async with replica(bus, tick=0.1):
        async with Worker(bus, stages=("profile",)):
            run = await submit(bus, msgspec.structs.replace(REQUEST, stages=("map",)))
            await mapping(bus, run, eventually)
        queue = await bus.queue(subjects.job_stream("map"))
        for _ in range(3 * subjects.MAX_DELIVERIES):
            delivery = await queue.fetch()
            assert delivery is not None
            await delivery.nak()
        await queue.close()
        async with Worker(bus) as worker:
            state = await ended(bus, run, eventually)
    assert state.status == "done"
    assert [stage.generation for stage in state.stages] == [0, 1]
    assert set(worker.executed.values()) == {1}


async def test_the_look_for_lost_jobs_survives_trouble(
    bus: Bus, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Troubled(NatsPort):
        looks = 0

        async def ids(self) -> list[str]:
            Troubled.looks += 1
            if Troubled.looks == 1:
                raise NoConnection("the server is being restarted")
            return await super().ids()

    async with Worker(bus), replica(bus, tick=0.01, port=Troubled):
        await eventually(lambda: Troubled.looks > 2)
        run = await submit(bus, REQUEST)
        assert (await ended(bus, run, eventually)).status == "done"
    assert "looking for lost jobs: the server is being restarted" in caplog.text


async def test_a_server_that_does_not_answer_leaves_the_message_for_later(
    bus: Bus, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    class Cut(NatsPort):
        tries = 0

        async def write(self, state: RunState, revision: int) -> None:
            Cut.tries += 1
            if Cut.tries == 3:
                raise NoConnection("nobody answers")
            await super().write(state, revision)

    async with Worker(bus), replica(bus, port=Cut):
        run = await submit(bus, REQUEST)
        assert (await ended(bus, run, eventually)).status == "done"
    assert "nobody answers" in caplog.text


async def test_nothing_lost_is_not_sent_again(bus: Bus, eventually: Eventually) -> None:
    """A reconciler that looks all the time finds no job lost in a run where none is."""
    async with Worker(bus) as worker, replica(bus, tick=0.001):
        run = await submit(bus, REQUEST)
        state = await ended(bus, run, eventually)
    assert [stage.generation for stage in state.stages] == [0] * 5
    assert set(worker.executed.values()) == {1}


class TestFullQueue:
    """The stream of map jobs takes two."""

    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(job_messages=2)

    async def test_the_rest_waits_its_turn(self, bus: Bus, eventually: Eventually) -> None:
        async with Worker(bus) as worker, replica(bus, tick=0.1):
            worker.reply = lambda task, job: answer(job, operators=20)
            run = await submit(bus, REQUEST)
            state = await ended(bus, run, eventually)
        assert state.status == "done"
        assert sum(task.startswith("map") for _, task in worker.executed) == 20
        assert set(worker.executed.values()) == {1}


async def test_failures_and_infeasible_operators(bus: Bus, eventually: Eventually) -> None:
    def reply(task: str, job: Any) -> Any:
        if task == "map-0":
            return Mapped(infeasible=infeasible(job.operator))
        return Failure("exception", f"{task} broke") if task in ("map-1", "codesign-0") else answer(job)

    async with Worker(bus) as worker, replica(bus):
        worker.reply = reply
        run = await submit(bus, REQUEST)
        state = await ended(bus, run, eventually)
    assert (state.status, state.exit_code) == ("partial", 3)
    assert state.failure == Failure("exception", "map-1 broke")
    assert state.notes == (
        "map: 1 of 3 failed: map-1 broke",
        "map: 1 of 3 operators have no valid mapping on toy",
        "codesign: 1 of 1 failed: codesign-0 broke",
        "kernel: 2 of 3 left out because they have no schedule",
    )
    view = await load_run(bus, run)
    assert view is not None
    assert [record.task for record in view.records] == ["profile-0", "map-0", "map-1", "map-2", "codesign-0", "kernel-2", "simulate-0"]
    assert [task.schedule.operator for task in worker.jobs[run, "codesign-0"].start] == [worker.jobs[run, "map-2"].operator]


async def test_a_bad_model_ends_the_run_with_its_exit_code(bus: Bus, eventually: Eventually) -> None:
    async with Worker(bus) as worker, replica(bus):
        worker.reply = lambda task, job: Failure("bad input", "model 'tyo' is unknown", exit_code=2)
        run = await submit(bus, REQUEST)
        state = await ended(bus, run, eventually)
    assert (state.status, state.exit_code, state.failure) == ("failed", 2, Failure("bad input", "model 'tyo' is unknown", 2))


async def test_a_workload_of_the_client_travels_as_a_blob(bus: Bus, eventually: Eventually) -> None:
    own = Workload.build("own", [(f"layer.{i:05}", matmul(p=i % 2 + 1, c=8, k=8)) for i in range(6000)])
    assert len(encode(own)) > BLOB_THRESHOLD
    async with Worker(bus) as worker, replica(bus):
        run = await submit(bus, msgspec.structs.replace(REQUEST, workload=own, architecture=ARCHITECTURE))
        state = await ended(bus, run, eventually)
    assert state.status == "done"
    assert worker.jobs[run, "profile-0"].workload == own
    assert worker.jobs[run, "codesign-0"].workload == own.nameless()
    assert worker.blobs == 1
    assert len(encode(state)) < 2000


async def test_an_answer_that_vanished(bus: Bus, eventually: Eventually) -> None:
    """A worker that says it recorded an answer which is not there: the task failed, the run ends."""
    async with Worker(bus, stages=("profile",)) as worker, replica(bus):
        run = await submit(bus, REQUEST)

        async def mapping() -> bool:
            return len(await bus.subjects(subjects.job_stream("map"), ">")) == 3

        await eventually(mapping)
        for index in range(3):
            task = f"map-{index}"
            outcome = Outcome("map", "done", result=f"map.{index}", answer="0" * 64)
            await bus.publish(subjects.done_subject(run, outcome.stage), pack(outcome, run, task=task), message_id(run, task, 0, "done"))
        state = await ended(bus, run, eventually)
        assert worker.executed
    assert (state.status, state.exit_code) == ("failed", 1)
    assert state.failure is not None
    assert "not in the result store" in state.failure.message


@pytest.mark.parametrize(
    ("subject", "data", "reason"),
    [
        (subjects.SUBMIT, b"\xc1", "not MessagePack"),
        (subjects.SUBMIT, pack(Submit(REQUEST), "Not.A.Run"), "expected 1 to 64 letters"),
        (subjects.SUBMIT, pack(Outcome("map", "done"), "abc"), "expected run.submit or run.cancel"),
        (
            subjects.SUBMIT,
            encode({"kind": "run.submit", "schema": 1, "run": "abc", "payload": {"request": 3}}),
            "Submit: Expected `object`",
        ),
        (subjects.done_subject("abc", "map"), pack(Submit(REQUEST), "abc"), "expected task.outcome"),
        (subjects.done_subject("abc", "map"), pack(Outcome("map", "done"), "abc", task="map-x"), "expected <stage>-<index>"),
        (subjects.done_subject("abc", "map"), pack(Outcome("kernel", "done"), "abc", task="kernel-0"), "expected tw.v1.done.abc.kernel"),
        (subjects.done_subject("abc", "map"), pack(Outcome("kernel", "done"), "abc", task="map-0"), "expected tw.v1.done.abc.map"),
        (subjects.done_subject("abc", "map"), pack(Outcome("map", "done"), "abd", task="map-0"), "expected tw.v1.done.abd.map"),
        (subjects.done_subject("abc", "map"), pack(Outcome("map", "done", "kernel.1"), "abc", task="map-0"), "an answer of stage map"),
    ],
    ids=[
        *("garbage", "bad run id", "outcome on the submit subject", "wrong type", "submit on the done subject", "bad task id"),
        *("outcome of another stage", "outcome of two stages", "outcome of another run", "answer of another stage"),
    ],
)
async def test_messages_that_cannot_be_used_are_put_aside(bus: Bus, eventually: Eventually, subject: str, data: bytes, reason: str) -> None:
    async with Worker(bus), replica(bus):
        await bus.publish(subject, data, "bad")

        async def dead() -> list[Any]:
            return [event async for event in bus.events(subjects.dead_subject("pipeline"), stream=subjects.DEAD_STREAM, follow=False)]

        (event,) = await eventually(dead)
        letter = unpack(event.data)[1]
        assert isinstance(letter, DeadLetter)
        assert (letter.subject, letter.message) == (subject, data)
        assert reason in letter.reason
        # The replica lives on.
        run = await submit(bus, REQUEST)
        assert (await ended(bus, run, eventually)).status == "done"


async def test_an_outcome_of_an_unknown_run_is_put_aside_in_the_end(
    bus: Bus, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilewright.services.pipeline.shell.PAUSES", (0.01, 0.01))
    async with replica(bus):
        await bus.publish(subjects.done_subject("gone", "map"), pack(Outcome("map", "done"), "gone", task="map-0"), "late")

        async def dead() -> bool:
            return bool(await bus.subjects(subjects.DEAD_STREAM, ">"))

        await eventually(dead)
    assert await bus.subjects(subjects.DONE_STREAM, ">") == {}


async def test_answers_that_vanish_between_stages(bus: Bus, connect: Connect, eventually: Eventually) -> None:
    """The store drops the profile while the operators wait to be mapped: what needs it fails, what does not goes on."""
    async with Worker(bus, stages=("profile",)), replica(await connect()):
        run = await submit(bus, REQUEST)
        await mapping(bus, run, eventually)
    await bus.connection.api(f"STREAM.PURGE.KV_{subjects.RESULTS_BUCKET}")
    async with Worker(bus), replica(bus):
        state = await ended(bus, run, eventually)
    assert state.status == "partial"
    assert state.failure is not None
    assert "profile-0: its answer profile." in state.failure.message
    view = await load_run(bus, run)
    assert view is not None
    assert [(record.name, record.status) for record in view.records[1:]] == [
        *((f"map-{index}", "done") for index in range(3)),
        ("pareto on toy", "failed"),
        *((f"kernel-{index}", "done") for index in range(3)),
        ("base design", "failed"),
    ]


async def test_a_request_whose_workload_vanished(bus: Bus, eventually: Eventually) -> None:
    own = Workload.build("own", [("layer", matmul(p=2, c=2, k=2))])
    run = await submit(bus, msgspec.structs.replace(REQUEST, workload=own))
    await bus.connection.api(f"STREAM.PURGE.{subjects.BLOB_STREAM}")
    async with replica(bus):
        state = await ended(bus, run, eventually)
    assert (state.status, state.exit_code) == ("failed", 1)
    assert state.failure is not None
    assert "the request is not in the store any more" in state.failure.message


async def test_a_newer_sender_is_waited_for(bus: Bus, eventually: Eventually, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilewright.services.pipeline.shell.PAUSES", (0.01, 0.01))
    async with replica(bus):
        await bus.publish(subjects.SUBMIT, encode({"kind": "run.submit", "schema": 99, "run": "new", "payload": {}}), "newer")

        async def told() -> bool:
            return bool(await bus.subjects(subjects.EVENT_STREAM, subjects.event_subject("new", "run", "-", "error")))

        await eventually(told)
        assert await bus.subjects(subjects.RUN_STREAM, ">") == {}


async def test_a_mistake_of_ours_does_not_stop_the_replica(
    bus: Bus, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tilewright.services.pipeline.shell.PAUSES", (0.01, 0.01))
    tries = 0

    class Mistaken(NatsPort):
        async def record(self, state: RunState, stage: Any, index: int, outcome: Outcome) -> Any:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise ZeroDivisionError
            return await super().record(state, stage, index, outcome)

    async with Worker(bus), replica(bus, port=Mistaken):
        run = await submit(bus, REQUEST)
        assert (await ended(bus, run, eventually)).status == "done"
    assert caplog.text.count("ZeroDivisionError") >= 2


async def test_the_server_restarts_in_the_middle(own_server: Any, own_bus: Bus, eventually: Eventually) -> None:
    async with Worker(own_bus) as worker, replica(own_bus, tick=0.2):
        worker.reply = lambda task, job: answer(job, operators=12)
        run = await submit(own_bus, REQUEST)
        for due in (3, 9, 18):
            await eventually(lambda due=due: sum(worker.executed.values()) >= due)
            await own_server.kill()
            await own_server.start()
        state = await ended(own_bus, run, eventually)
    assert state.status == "done"
