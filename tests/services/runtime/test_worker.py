"""A worker on a real server: every way in which a job can end, and that nothing is lost in any of them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from tilewright.protocol import subjects
from tilewright.protocol.bus import Bus
from tilewright.protocol.codec import MAX_MESSAGE, decode, encode
from tilewright.protocol.errors import Backlog, NoConnection
from tilewright.protocol.keys import message_id
from tilewright.protocol.messages import Envelope, Event, Failure, Mapped, RunRequest, StartJob, pack, unpack
from tilewright.protocol.plugin import Budget
from tilewright.protocol.run import RunState
from tilewright.services.runtime import assignment, worker
from tilewright.services.runtime.attempts import add_failure
from tilewright.services.runtime.reporter import PACE
from tilewright.services.runtime.results import ResultStore
from tilewright.services.runtime.runs import Runs, carry_out_cancel

from .conftest import Bench, Jobs, running

Eventually = Callable[..., Awaitable[Any]]


async def start_run(bus: Bus, run: str = "run") -> None:
    await (await bus.bucket(subjects.RUNS_BUCKET)).create(run, encode(RunState(run, RunRequest("model", "target"))))


async def cancel(bus: Bus) -> RunState | None:
    """What the pipeline does when it is asked to cancel."""
    return await carry_out_cancel(bus, await Runs.open(bus), "run", 7.0)


async def test_a_job_becomes_a_recorded_answer_and_one_outcome(bench: Bench, jobs: Jobs, eventually: Eventually) -> None:
    await bench.work()
    await bench.publish(jobs.job(), generation=3)
    envelope, outcome = await bench.outcome()
    assert (envelope.run, envelope.task, envelope.generation) == ("run", "map-0", 3)
    assert (outcome.status, outcome.cached, outcome.complete, outcome.failure) == ("done", False, True, None)
    answer = await ResultStore(bench.bus).get(outcome.result)
    assert answer is not None
    assert hashlib.sha256(answer).hexdigest() == outcome.answer
    assert decode(answer, Mapped).schedule is not None
    assert outcome.record is not None
    assert outcome.record.attempts == 1
    assert outcome.record.worker == "mapper-0"
    assert outcome.record.cpu_seconds <= outcome.record.seconds
    assert "mappers:tilewright-unruly==1.0:unruly, simulators:tilewright==" in outcome.record.plugin
    await eventually(bench.idle)
    await eventually(lambda: _kinds(bench, "result"))
    kinds = [kind for kind, _ in await bench.events()]
    assert (kinds[0], kinds[-1]) == ("started", "result")
    assert set(kinds) <= {"started", "progress", "partial", "result"}


async def _kinds(bench: Bench, wanted: str) -> bool:
    return wanted in [kind for kind, _ in await bench.events()]


async def test_an_equal_question_is_answered_from_the_store(bench: Bench, jobs: Jobs, eventually: Eventually) -> None:
    counting = await bench.work()
    first, second = jobs.job(), jobs.job(budget=Budget(seconds=1000.0))
    await bench.publish(first)
    _, computed = await bench.outcome()
    await bench.publish(second, run="other")
    _, known = await bench.outcome()
    assert known.cached
    assert not computed.cached
    assert (known.result, known.answer) == (computed.result, computed.answer)
    assert len(jobs.started()) == 1
    await bench.publish(first, run="third", use_cache=False)
    _, again = await bench.outcome()
    assert not again.cached
    assert again.answer == computed.answer
    assert len(jobs.started()) == 2
    await eventually(lambda: counting.stats() == {"slots": 1, "busy": 0, "done": 2, "cached": 1})


async def test_a_task_that_keeps_failing_is_given_up_with_the_reason(bench: Bench, jobs: Jobs, eventually: Eventually) -> None:
    await bench.work()
    await bench.publish(jobs.job("fail"))
    _, outcome = await bench.outcome()
    assert outcome.status == "failed"
    assert outcome.failure is not None
    assert outcome.failure.reason == "exception"
    assert "ValueError: it is no use, job" in outcome.failure.message
    assert outcome.record is not None
    assert outcome.record.attempts == 3
    assert len(jobs.started()) == 3
    ((envelope, letter),) = await bench.dead()
    assert letter.reason == f"exception: {outcome.failure.message}"
    assert (envelope.run, envelope.task, letter.subject) == ("run", "map-0", "tw.v1.job.map.run.map-0")
    assert decode(letter.message, Envelope).task == "map-0"
    await eventually(bench.idle)
    await eventually(lambda: _kinds(bench, "error"))
    events = await bench.events()
    assert [event.text for kind, event in events if kind == "retry"] == [
        "attempt 1 failed, trying again in 0.05 s",
        "attempt 2 failed, trying again in 0.1 s",
    ]
    assert any("Traceback" in event.text for kind, event in events if kind == "log")


async def test_the_same_failures_are_new_ones_in_a_new_generation(bench: Bench, jobs: Jobs) -> None:
    await bench.work()
    await bench.publish(jobs.job("fail"))
    await bench.outcome()
    await bench.publish(jobs.job("crash once"), generation=1)
    envelope, outcome = await bench.outcome()
    assert (envelope.generation, outcome.status) == (1, "done")


async def test_a_crash_is_one_failure(bench: Bench, jobs: Jobs) -> None:
    await bench.work()
    await bench.publish(jobs.job("crash once"))
    _, outcome = await bench.outcome()
    assert outcome.status == "done"
    assert outcome.record is not None
    assert outcome.record.attempts == 2
    assert await bench.dead() == []


@pytest.mark.parametrize(
    ("job", "failure"),
    [
        (
            {"options": {"foldr": "x"}},
            Failure("bad input", "options.foldr: mapper 'unruly' has no such option; did you mean 'folder'?", 2),
        ),
        ({"mapper": "unable"}, Failure("broken plugin", "mapper tilewright-unruly==1.0:unable: has no method search(self, request, ctx)")),
    ],
)
async def test_what_cannot_get_better_is_not_tried_again(
    bench: Bench, jobs: Jobs, job: dict[str, Any], failure: Failure, eventually: Eventually
) -> None:
    await bench.work()
    await bench.publish(jobs.job(**job))
    _, outcome = await bench.outcome()
    assert outcome.status == "failed"
    assert outcome.failure is not None
    assert (outcome.failure.reason, outcome.failure.exit_code) == (failure.reason, failure.exit_code)
    assert outcome.failure.message.startswith(failure.message.partition("(")[0])
    assert outcome.record is not None
    assert outcome.record.attempts == 1
    await eventually(bench.idle)


async def test_a_job_of_the_wrong_shape_fails_with_its_path(bench: Bench, jobs: Jobs) -> None:
    await bench.work()
    wrong = msgspec.to_builtins(jobs.job()) | {"budget": {"evaluations": "many"}}
    await bench.publish(wrong)
    _, outcome = await bench.outcome()
    assert outcome.failure == Failure("bad input", "MapJob: Expected `int | null`, got `str` - at `$.budget.evaluations`", 2)


def _envelope(jobs: Jobs, **changes: Any) -> bytes:
    return encode(msgspec.to_builtins(decode(pack(StartJob("map", jobs.job()), "run", task="map-0"), Envelope)) | changes)


MALFORMED: dict[str, tuple[Callable[[Jobs], bytes], str]] = {
    "noise": (lambda jobs: b"\xc1\x00garbage", "not MessagePack"),
    "empty": (lambda jobs: b"", "not MessagePack"),
    "truncated": (lambda jobs: _envelope(jobs)[:-10], "not MessagePack"),
    "another message": (lambda jobs: pack(Event("hello"), "run", task="map-0"), "kind: event, expected job.start"),
    "wrong type": (lambda jobs: _envelope(jobs, generation="first"), "Envelope: Expected `int`, got `str` - at `$.generation`"),
    "another stage": (
        lambda jobs: _envelope(jobs, payload={"stage": "kernel"}),
        "task 'map-0' of stage 'kernel', expected one of stage 'map'",
    ),
    "no task": (lambda jobs: _envelope(jobs, task="map-x"), "task: 'map-x', expected <stage>-<index>"),
    "a run that is no name": (lambda jobs: _envelope(jobs, run="a.b\r\n*"), "run: 'a.b\\r\\n*', expected 1 to 64 letters"),
    "too long": (
        lambda jobs: b"\xc6" + bytes(MAX_MESSAGE + 20_000),
        f"message of {MAX_MESSAGE + 20_001} bytes, expected at most {MAX_MESSAGE}",
    ),
}


@pytest.mark.parametrize("kind", MALFORMED)
async def test_a_message_that_nobody_can_use_is_kept_with_the_reason(bench: Bench, jobs: Jobs, kind: str, eventually: Eventually) -> None:
    make, reason = MALFORMED[kind]
    counting = await bench.work()
    data = make(jobs)
    await bench.put(data, identity="malformed")
    await bench.publish(jobs.job(), task="map-1")
    envelope, outcome = await bench.outcome()
    assert (envelope.task, outcome.status) == ("map-1", "done"), "the service lives on"
    ((_, letter),) = await bench.dead()
    assert letter.reason.startswith(reason)
    assert data.startswith(letter.message)
    assert letter.truncated == (letter.message != data) == (kind == "too long")
    assert counting.stats()["refused"] == 1
    await eventually(bench.idle)


@pytest.mark.parametrize("changes", [{"kind": "job.restart"}, {"schema": 2}])
async def test_a_message_from_the_future_is_offered_to_others_first(
    bench: Bench, jobs: Jobs, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(worker, "UNKNOWN_DELAY", 0.05)
    await bench.work()
    await bench.put(_envelope(jobs, **changes), identity="unknown")
    await eventually(bench.dead)
    ((_, letter),) = await bench.dead()
    assert letter.reason.startswith(f"message kind {changes.get('kind', 'job.start')}/{changes.get('schema', 1)} is unknown")
    info = await bench.bus.connection.api("CONSUMER.INFO.TW_JOB_MAP.tw_job_map_workers")
    assert info["delivered"]["consumer_seq"] == 1 + worker.UNKNOWN_DELIVERIES
    assert jobs.started() == []


async def test_a_large_job_comes_as_a_blob(bench: Bench, jobs: Jobs) -> None:
    await bench.work()
    await bench.publish(None, blob=await bench.bus.put_blob(encode(jobs.job())))
    _, outcome = await bench.outcome()
    assert outcome.status == "done"


async def test_a_job_whose_blob_is_gone_fails(bench: Bench, jobs: Jobs) -> None:
    await bench.work()
    await bench.publish(None, blob="0" * 64)
    _, outcome = await bench.outcome()
    assert outcome.failure == Failure("exception", f"blob {'0' * 64}, which holds the job, is not in the store any more")


async def test_a_long_job_stays_ours_while_it_lives(bench: Bench, jobs: Jobs, ack_wait: float, eventually: Eventually) -> None:
    await bench.work(slots=2)
    await bench.publish(jobs.job("wait"))
    await eventually(jobs.started)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5 * ack_wait):
            await eventually(lambda: len(jobs.started()) > 1)
    jobs.go()
    _, outcome = await bench.outcome()
    assert outcome.record is not None
    assert (outcome.status, outcome.record.attempts) == ("done", 1)
    assert len(jobs.started()) == 1


async def test_a_hung_job_is_stopped_and_given_up(bench: Bench, jobs: Jobs) -> None:
    await bench.work(idle_limit=0.6)
    await bench.publish(jobs.job("hang"))
    _, outcome = await bench.outcome()
    assert outcome.failure == Failure("limit", "hung: neither CPU use nor a sign of life for 0.6 s")
    assert len(jobs.started()) == 3
    assert not any(map(running, jobs.started()))


async def test_cancelling_kills_whatever_the_job_has_started(
    bench: Bench, jobs: Jobs, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assignment, "PATIENCE", 0.3)
    await bench.work()
    await start_run(bench.bus)
    await bench.publish(jobs.job("breed"))
    await eventually(jobs.bred)
    state = await cancel(bench.bus)
    assert state is not None
    assert state.cancelled
    _, outcome = await bench.outcome()
    assert (outcome.status, outcome.failure, outcome.result) == ("cancelled", None, "")
    await eventually(lambda: not running(jobs.bred()))
    assert not any(map(running, jobs.started()))
    await eventually(bench.idle)
    await bench.publish(jobs.job(label="next"), run="other")
    _, outcome = await bench.outcome()
    assert outcome.status == "done"


async def test_a_cancelled_search_keeps_what_it_has_found(bench: Bench, jobs: Jobs, eventually: Eventually) -> None:
    await bench.work()
    await start_run(bench.bus)
    await bench.publish(jobs.job("yield first"))
    await eventually(lambda: _kinds(bench, "partial"))
    await cancel(bench.bus)
    _, outcome = await bench.outcome()
    assert (outcome.status, outcome.complete, outcome.result) == ("done", False, "map.run.map-0")
    answer = await ResultStore(bench.bus).get(outcome.result)
    assert answer is not None
    mapped = decode(answer, Mapped)
    assert mapped.schedule is not None
    assert not mapped.complete
    assert [key for key in await (await bench.bus.bucket(subjects.RESULTS_BUCKET)).keys()] == ["map.run.map-0"]


async def test_a_cancellation_whose_signal_was_missed_is_noticed(bench: Bench, jobs: Jobs, eventually: Eventually) -> None:
    await bench.work()
    await start_run(bench.bus)
    await bench.publish(jobs.job("yield first"))
    await eventually(jobs.started)
    bucket = await bench.bus.bucket(subjects.RUNS_BUCKET)
    await bucket.put("run", encode(RunState("run", RunRequest("model", "target"), status="cancelled")))
    _, outcome = await bench.outcome()
    assert not outcome.complete


async def test_a_job_of_a_cancelled_run_is_not_started(bench: Bench, jobs: Jobs, eventually: Eventually) -> None:
    await start_run(bench.bus)
    await cancel(bench.bus)
    await bench.publish(jobs.job())
    await bench.work()
    _, outcome = await bench.outcome()
    assert outcome.status == "cancelled"
    assert jobs.started() == []
    await eventually(bench.idle)


async def test_a_time_limit_cuts_and_says_so(bench: Bench, jobs: Jobs) -> None:
    await bench.work()
    await bench.publish(jobs.job("yield first", budget=Budget(seconds=0.2)))
    _, outcome = await bench.outcome()
    assert (outcome.status, outcome.complete, outcome.result) == ("done", False, "map.run.map-0")


async def test_a_job_whose_deadline_has_passed_is_not_started(bench: Bench, jobs: Jobs) -> None:
    await bench.work()
    await bench.put(_envelope(jobs, deadline=1.0), identity="late")
    _, outcome = await bench.outcome()
    assert outcome.failure is not None
    assert outcome.failure.reason == "limit"
    assert jobs.started() == []


async def test_of_two_answers_the_first_recorded_counts(bench: Bench, jobs: Jobs) -> None:
    await bench.work()
    await bench.work()
    await bench.publish(jobs.job("differ"), run="one")
    await bench.publish(jobs.job("differ"), run="two")
    outcomes = [outcome for _, outcome in (await bench.outcome(), await bench.outcome())]
    assert len(set(jobs.started())) == 2
    assert len({outcome.answer for outcome in outcomes}) == 1
    answer = await ResultStore(bench.bus).get(outcomes[0].result)
    assert answer is not None
    assert hashlib.sha256(answer).hexdigest() == outcomes[0].answer
    assert not any(outcome.cached for outcome in outcomes)


async def test_what_was_given_up_before_a_crash_of_the_worker_is_not_tried_again(bench: Bench, jobs: Jobs, eventually: Eventually) -> None:
    """The worker died between the third failure and the outcome."""
    bucket = await bench.bus.bucket(subjects.ATTEMPTS_BUCKET)
    for text in ("first", "second", "third"):
        await add_failure(bucket, "run", "map-0", 0, Failure("crash", text))
    await bench.publish(jobs.job())
    delivery = await (await bench.bus.queue(subjects.job_stream("map"))).fetch()
    assert delivery is not None
    await delivery.nak()
    await bench.work()
    _, outcome = await bench.outcome()
    assert outcome.failure == Failure("crash", "third")
    assert [letter.reason for _, letter in await bench.dead()] == ["crash: third"]
    assert jobs.started() == []


async def test_the_last_delivery_is_the_last_try(bench: Bench, jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignment, "MAX_DELIVERIES", 1)
    await bench.work()
    await bench.publish(jobs.job("fail"))
    _, outcome = await bench.outcome()
    assert outcome.status == "failed"
    assert len(jobs.started()) == 1
    assert len(await bench.dead()) == 1


async def test_a_job_that_somebody_else_interrupts_is_handed_back(bench: Bench, jobs: Jobs, eventually: Eventually) -> None:
    """A service manager that stops a machine signals every process, children first perhaps."""
    await bench.work()
    await bench.publish(jobs.job("yield first"))
    await eventually(jobs.started)
    os.kill(jobs.started()[0], signal.SIGTERM)
    await eventually(lambda: len(jobs.started()) == 2)
    await start_run(bench.bus)
    await cancel(bench.bus)
    _, outcome = await bench.outcome()
    assert outcome.record is not None
    assert outcome.record.attempts == 1


async def test_a_signal_between_jobs_changes_nothing(bench: Bench, jobs: Jobs) -> None:
    await bench.work()
    await bench.publish(jobs.job())
    await bench.outcome()
    os.kill(jobs.started()[0], signal.SIGTERM)
    await bench.publish(jobs.job(label="next"), run="other")
    _, outcome = await bench.outcome()
    assert outcome.record is not None
    assert (outcome.status, outcome.record.attempts) == ("done", 1)
    assert jobs.started("next") == jobs.started()


async def test_a_record_that_cannot_be_read_is_the_trouble_of_its_job_only(bench: Bench, jobs: Jobs) -> None:
    await (await bench.bus.bucket(subjects.RUNS_BUCKET)).create("run", b"no state")
    await bench.work()
    await bench.publish(jobs.job())
    _, outcome = await bench.outcome()
    assert outcome.failure is not None
    assert outcome.failure.message.startswith("InvalidMessage: ")
    await bench.publish(jobs.job(), run="other")
    _, outcome = await bench.outcome()
    assert outcome.status == "done"


async def test_an_outcome_waits_for_room_on_its_queue(bench: Bench, jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignment, "FULL_PAUSE", 0.01)
    refused, publish = 0, Bus.publish

    async def full_at_first(self: Bus, subject: str, *rest: Any, **more: Any) -> bool:
        nonlocal refused
        if subject == subjects.done_subject("run", "map") and refused < 3:
            refused += 1
            raise Backlog("full")
        return await publish(self, subject, *rest, **more)

    monkeypatch.setattr(Bus, "publish", full_at_first)
    await bench.work()
    await bench.publish(jobs.job())
    _, outcome = await bench.outcome()
    assert (outcome.status, refused) == ("done", 3)


async def test_a_job_that_loses_the_server_comes_again(bench: Bench, jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    lost, put = 0, ResultStore.put

    async def lose(self: ResultStore, key: str, answer: bytes) -> bytes:
        nonlocal lost
        lost += 1
        if lost == 1:
            raise NoConnection("no answer for 30 s")
        return await put(self, key, answer)

    monkeypatch.setattr(ResultStore, "put", lose)
    await bench.work()
    await bench.publish(jobs.job())
    _, outcome = await bench.outcome()
    assert outcome.record is not None
    assert (outcome.status, outcome.record.attempts) == ("done", 1)
    assert len(jobs.started()) == 2


async def test_an_outcome_is_published_once(bench: Bench, jobs: Jobs, eventually: Eventually) -> None:
    """The worker died between outcome and acknowledgement: the job comes again."""
    await bench.work()
    await bench.publish(jobs.job())
    await bench.outcome()
    data = pack(StartJob("map", jobs.job()), "run", task="map-0")
    await bench.put(data, identity=message_id("run", "map-0", 0, "again"))
    await eventually(bench.idle)
    assert await bench.bus.lag(subjects.DONE_STREAM) == (0, 0)
    assert len(jobs.started()) == 1


async def test_events_are_paced(bench: Bench, jobs: Jobs, eventually: Eventually) -> None:
    """A plugin that reports all the time is heard twice a second."""
    await bench.work()
    await bench.publish(jobs.job("wait"))
    await eventually(lambda: _progress(bench, 4))
    sent = await _progress(bench, 4)
    assert all(later - earlier > 0.9 * PACE for earlier, later in pairwise(sent))
    jobs.go()
    await bench.outcome()


async def _progress(bench: Bench, least: int) -> list[float]:
    """When progress was reported, if often enough."""
    subject = subjects.event_subject("run", "map", "map-0", "progress")
    sent = [unpack(each.data)[0].sent async for each in bench.bus.events(subject, follow=False)]
    return sent if len(sent) >= least else []


async def test_what_an_attempt_found_is_there_for_the_next(bench: Bench, jobs: Jobs, eventually: Eventually) -> None:
    """The first attempt yields a mapping and is handed back; the second finds nothing before its run is cancelled."""
    await start_run(bench.bus)
    checkpoints = await bench.bus.bucket(subjects.CHECKPOINTS_BUCKET)
    await bench.work(checkpoint_every=0.001)
    await bench.publish(jobs.job("yield once"))
    (key,) = await eventually(checkpoints.keys)
    assert key.startswith("map.")
    await bench.stop()
    await bench.work()
    await eventually(lambda: len(jobs.started()) == 2)
    await cancel(bench.bus)
    _, outcome = await bench.outcome()
    assert (outcome.status, outcome.complete) == ("done", False)
    answer = await ResultStore(bench.bus).get(outcome.result)
    assert answer is not None
    assert decode(answer, Mapped).schedule is not None
