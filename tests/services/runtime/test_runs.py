"""Runs as they are stored, on a real server."""

from __future__ import annotations

import pytest

from tilewright.protocol import subjects
from tilewright.protocol.bus import Bus
from tilewright.protocol.codec import decode, encode
from tilewright.protocol.errors import Conflict, InvalidInput, NoConnection
from tilewright.protocol.messages import Cancel, Failure, Mapped, Record, RunRequest, Submit, unpack
from tilewright.protocol.run import RunState, TaskRecord
from tilewright.protocol.workload import Workload, matmul
from tilewright.services.runtime.results import ResultStore
from tilewright.services.runtime.runs import Runs, cancel_run, carry_out_cancel, digest, list_runs, load_run, request_cancel, submit

REQUEST = RunRequest("model", "target")


async def test_states_change_by_compare_and_swap(bus: Bus) -> None:
    runs = await Runs.open(bus)
    assert await runs.read("one") is None
    await runs.write(RunState("one", REQUEST), 0)
    with pytest.raises(Conflict):
        await runs.write(RunState("one", REQUEST), 0)
    stored = await runs.read("one")
    assert stored is not None
    assert stored.state == RunState("one", REQUEST)
    await runs.write(RunState("one", REQUEST, status="done"), stored.revision)
    with pytest.raises(Conflict):
        await runs.write(RunState("one", REQUEST, status="failed"), stored.revision)
    await runs.write(RunState("another", REQUEST), 0)
    assert [state.run for state in await list_runs(bus)] == ["another", "one"]
    with pytest.raises(InvalidInput, match="key: 'no such run'"):
        await load_run(bus, "no such run")


async def test_the_first_record_of_a_task_stands(bus: Bus) -> None:
    runs = await Runs.open(bus)
    first = TaskRecord("map-10", "ten", "done", result="map.x", answer="a")
    assert await runs.record("run", first) == first
    assert await runs.record("run", TaskRecord("map-10", "ten", "failed")) == first
    for task in ("map-2", "kernel-0", "profile-0"):
        await runs.record("run", TaskRecord(task, task, "done"))
    await runs.record("runner", TaskRecord("map-0", "of another run", "done"))
    assert [record.task for record in await runs.records("run")] == ["profile-0", "map-2", "map-10", "kernel-0"]


async def test_a_run_as_a_whole(bus: Bus) -> None:
    runs, results = await Runs.open(bus), ResultStore(bus)
    assert await load_run(bus, "run") is None
    await runs.write(RunState("run", REQUEST), 0)
    await results.put("map.kept", encode(Mapped(evaluations=3)))
    await runs.record("run", TaskRecord("map-0", "kept", "done", result="map.kept"))
    await runs.record("run", TaskRecord("map-1", "dropped", "done", result="map.dropped"))
    await runs.record("run", TaskRecord("map-2", "broken", "failed", failure=Failure("crash", "signal 9")))
    view = await load_run(bus, "run")
    assert view is not None
    assert [record.name for record in view.records] == ["kept", "dropped", "broken"]
    assert view.answers == {"map-0": Mapped(evaluations=3)}


def test_digest_is_of_results_only() -> None:
    done = TaskRecord("map-0", "a name", "done", result="map.x", answer="aa")
    failed = TaskRecord("map-1", "a name", "failed", failure=Failure("crash", "signal 9 on host a"))
    same = [
        TaskRecord("map-1", "other", "failed", failure=Failure("crash", "signal 11 on host b")),
        TaskRecord("map-0", "other", "done", result="map.y", answer="aa", cached=True, record=Record("w", 1.0, 2.0)),
    ]
    assert digest([done, failed]) == digest(same)
    assert digest([done]) != digest([done, failed])
    assert digest([done]) != digest([TaskRecord("map-0", "a name", "done", answer="ab")])
    assert len(digest([])) == 64


async def test_submit(bus: Bus) -> None:
    run = await submit(bus, REQUEST)
    assert await submit(bus, REQUEST, run) == run
    own = Workload.build("own", [("layer", matmul(p=2, c=2, k=2))])
    large = RunRequest("own", "target", workload=own)
    await submit(bus, large)
    queue = await bus.queue(subjects.RUN_STREAM)
    messages = []
    while delivery := await queue.fetch(0.2):
        messages.append(unpack(delivery.data)[1])
        await delivery.ack()
    assert messages[0] == Submit(REQUEST)
    assert len(messages) == 2
    assert messages[1].request == RunRequest("own", "target")
    blob = await bus.get_blob(messages[1].blob)
    assert blob is not None
    assert decode(blob, RunRequest) == large


async def test_cancel(bus: Bus) -> None:
    runs = await Runs.open(bus)
    assert await carry_out_cancel(bus, runs, "run", 3.0) is None
    await runs.write(RunState("run", REQUEST), 0)
    await runs.write(RunState("over", REQUEST, status="done", finished=5.0), 0)
    state = await carry_out_cancel(bus, runs, "run", 7.0)
    assert state is not None
    assert (state.cancelled, state.finished) == (True, 7.0)
    assert await cancel_run(runs, "run", 99.0) == state
    over = await carry_out_cancel(bus, runs, "over", 7.0)
    assert over is not None
    assert (over.status, over.finished) == ("done", 5.0)
    told = [event.subject async for event in bus.events(subjects.events_of("*"), follow=False)]
    assert set(told) <= {subjects.event_subject("run", "run", "-", "state")}


async def test_a_cancellation_that_nobody_carries_out_is_said_to_be_queued(bus: Bus) -> None:
    assert await request_cancel(bus, "run") is None
    await (await Runs.open(bus)).write(RunState("run", REQUEST), 0)
    with pytest.raises(NoConnection, match=r"no pipeline has taken up the cancellation of run run within 0\.1 s; it is queued"):
        await request_cancel(bus, "run", patience=0.1)
    queue = await bus.queue(subjects.RUN_STREAM)
    delivery = await queue.fetch()
    assert delivery is not None
    assert unpack(delivery.data)[1] == Cancel()


async def test_cancel_that_loses_a_race_tries_again(bus: Bus) -> None:
    runs = await Runs.open(bus)
    await runs.write(RunState("run", REQUEST), 0)

    class Slow(Runs):
        """Somebody else writes between our read and our write, once."""

        raced = False

        async def write(self, state: RunState, revision: int) -> None:
            if not self.raced:
                self.raced = True
                await runs.write(RunState("run", REQUEST, submitted=3.0), revision)
            await super().write(state, revision)

    state = await cancel_run(await Slow.open(bus), "run", 7.0)
    assert state is not None
    assert (state.status, state.submitted, state.finished) == ("cancelled", 3.0, 7.0)
