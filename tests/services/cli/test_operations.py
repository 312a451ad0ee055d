"""What whoever runs a house for others looks at and cleans up: queues, dead letters, the store, logs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from typer.testing import CliRunner, Result

from tilewright.protocol import subjects
from tilewright.protocol.bootstrap import bootstrap
from tilewright.protocol.bus import Bus, BusSettings
from tilewright.protocol.codec import encode
from tilewright.protocol.keys import message_id
from tilewright.protocol.messages import DeadLetter, Event, Failure, RunRequest, StartJob, Submit, pack, unpack
from tilewright.protocol.run import RunState, StageState, TaskRecord
from tilewright.services.cli import storage
from tilewright.services.cli.app import app
from tilewright.services.runtime.results import ResultStore
from tilewright.services.runtime.runs import Runs

T = TypeVar("T")
REQUEST = RunRequest("toy-net", "toy", frontend="toy")


class House:
    """The command line on a server, and what the server holds."""

    def __init__(self, settings: BusSettings) -> None:
        self._settings = settings

    def do(self, work: Callable[[Bus], Awaitable[T]]) -> T:
        async def connected() -> T:
            async with await Bus.connect(self._settings) as bus:
                return await work(bus)

        return asyncio.run(connected())

    def say(self, *words: str, code: int = 0) -> str:
        result: Result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
        assert result.exit_code == code, result.output
        return result.output

    def objects(self, *words: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.say(*words, "--json").splitlines()]


@pytest.fixture
def house(nats_server: BusSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    (tmp_path / "token").write_text(nats_server.token)
    monkeypatch.setenv("TILEWRIGHT_NATS_URL", nats_server.url)
    monkeypatch.setenv("TILEWRIGHT_NATS_TOKEN_FILE", str(tmp_path / "token"))
    made = House(nats_server)

    async def fresh(bus: Bus) -> None:
        for stream in (await bus.connection.api("STREAM.NAMES"))["streams"] or ():
            await bus.connection.api(f"STREAM.DELETE.{stream}")
        await bootstrap(bus)

    made.do(fresh)
    yield made


async def bury(bus: Bus, subject: str, data: bytes, *, run: str = "", task: str = "", truncated: bool = False) -> None:
    letter = DeadLetter("crash: it is no use\nat all", subject, data, truncated)
    await bus.publish(subjects.dead_subject("map"), pack(letter, run, task=task), f"dead.{subject}.{task}")


JOB = subjects.job_subject("map", "run1", "map-0")


def test_queues(house: House) -> None:
    async def fill(bus: Bus) -> None:
        for task in range(3):
            subject = subjects.job_subject("map", "run1" if task else "run2", f"map-{task}")
            await bus.publish(subject, pack(StartJob("map", None), "run1", task=f"map-{task}"), f"{task}")
        await bus.publish(subjects.SUBMIT, pack(Submit(REQUEST), "run3"), "submit")
        queue = await bus.queue(subjects.job_stream("map"))
        assert await queue.fetch() is not None

    house.do(fill)
    found = {each["queue"]: each for each in house.objects("queue")}
    assert list(found) == ["TW_RUN", *(subjects.job_stream(stage) for stage in subjects.STAGES), "TW_DONE"]
    assert found["TW_JOB_MAP"] == {"queue": "TW_JOB_MAP", "waiting": 2, "in_work": 1, "held": 3, "runs": {"run1": 2, "run2": 1}}
    assert (found["TW_RUN"]["waiting"], found["TW_DONE"]["held"]) == (1, 0)
    assert "run1 (2), run2 (1)" in house.say("queue")


def test_dead_letters_are_listed_shown_and_dropped(house: House) -> None:
    assert house.say("dlq", "list") == "no dead letters\n"

    async def fill(bus: Bus) -> None:
        await bury(bus, JOB, pack(StartJob("map", None), "run1", task="map-0", generation=2), run="run1", task="map-0")
        await bury(bus, subjects.SUBMIT, b"\xc1")

    house.do(fill)
    first, second = house.objects("dlq", "list")
    assert (first["number"], first["by"], first["run"], first["task"], first["subject"]) == (1, "map", "run1", "map-0", JOB)
    assert first["contents"] == "job.start/1 of run run1, task map-0, generation 2"
    assert "not MessagePack" in second["contents"]
    assert "crash: it is no use" in house.say("dlq", "list")
    assert "at all" not in house.say("dlq", "list")
    assert "at all" in house.say("dlq", "show", "1")
    assert house.objects("dlq", "show", "2")[0]["bytes"] == 1
    assert house.say("dlq", "drop", "2", "1", "2") == "2: dropped\n1: dropped\n"
    assert house.objects("dlq", "list") == []
    assert "NUMBER 1: there is no such dead letter, expected one of none" in house.say("dlq", "show", "1", code=2)


def test_a_message_goes_back_where_it_came_from(house: House) -> None:
    data = pack(StartJob("map", None), "run1", task="map-0")

    async def fill(bus: Bus) -> None:
        await bus.publish(JOB, data, message_id("run1", "map-0", 0, "job"))
        queue = await bus.queue(subjects.job_stream("map"))
        delivery = await queue.fetch()
        assert delivery is not None
        await delivery.term()
        await bury(bus, JOB, data, run="run1", task="map-0")
        await bury(bus, subjects.SUBMIT, b"half", truncated=True)

    house.do(fill)
    assert house.say("dlq", "requeue", "1") == f"1: back on {JOB}\n"

    async def fetch(bus: Bus) -> bytes:
        delivery = await (await bus.queue(subjects.job_stream("map"))).fetch()
        assert delivery is not None
        return delivery.data

    assert house.do(fetch) == data
    assert [each["number"] for each in house.objects("dlq", "list")] == [2]
    assert "only the beginning of its message was kept" in house.say("dlq", "requeue", "2", code=2)


@pytest.mark.parametrize("large", [False, True])
def test_a_task_of_a_run_that_ended_is_asked_for_again(house: House, large: bool) -> None:
    async def fill(bus: Bus) -> None:
        blob = await bus.put_blob(encode(REQUEST)) if large else ""
        failure = Failure("crash", "no use")
        runs = await Runs.open(bus)
        await runs.write(RunState("over", REQUEST, blob, "failed", failure=failure), 0)
        await runs.write(RunState("live", REQUEST, blob), 0)
        for run in ("over", "live"):
            await runs.record(run, TaskRecord("map-0", "a", "failed", failure=failure))
            subject = subjects.job_subject("map", run, "map-0")
            await bury(bus, subject, pack(StartJob("map", None), run, task="map-0"), run=run, task="map-0")

    house.do(fill)
    said = house.say("dlq", "requeue", "1")
    assert said.startswith("1: run over had ended, it was submitted again as ")
    assert "run live goes on without map-0, expected a run that has ended" in house.say("dlq", "requeue", "2", code=2)

    async def fetch(bus: Bus) -> tuple[str, Any]:
        delivery = await (await bus.queue(subjects.RUN_STREAM)).fetch()
        assert delivery is not None
        envelope, message = unpack(delivery.data)
        return envelope.run, message

    run, message = house.do(fetch)
    assert run in said
    assert message == Submit(REQUEST)


def test_the_store(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    large = bytes(300_000)

    async def fill(bus: Bus) -> None:
        store = ResultStore(bus)
        await store.put("map.old", b"old")
        await store.put("kernel.old", large)
        runs = await Runs.open(bus)
        await runs.write(RunState("over", REQUEST, status="done", stages=(StageState("map", 1),), finished=time.time()), 0)
        await runs.record("over", TaskRecord("map-0", "a", "done", "map.old"))

    house.do(fill)
    held = {each["what"]: each for each in house.objects("cache", "ls")}
    assert {what: each["entries"] for what, each in held.items()} == {"answers": 2, "blobs": 1, "runs": 1, "task records": 1}
    assert held["answers"]["limit"] == subjects.Limits().result_bytes
    assert abs(held["blobs"]["oldest"] - time.time()) < 60
    assert "300 kB" in house.say("cache", "ls")
    assert house.say("cache", "gc", "--older-than", "1d", "--runs") == "removed 0 answers, 0 runs, 0 blob parts\n"

    middle = time.time()

    async def more(bus: Bus) -> None:
        await ResultStore(bus).put("map.new", b"new")

    house.do(more)
    # A day has passed for blobs: what was put before `middle` is a day older than what is named since.
    monkeypatch.setattr(storage, "REFRESH_AFTER", 0.0)

    async def kept(bus: Bus) -> list[Any]:
        store = ResultStore(bus)
        return [await store.get(key) for key in ("map.old", "kernel.old", "map.new")]

    assert house.do(lambda bus: storage.collect(bus, middle, ["kernel"], runs=False)) == {"answers": 1}
    assert house.do(kept) == [b"old", None, b"new"]
    assert house.do(lambda bus: storage.collect(bus, middle, [], runs=True)) == {"answers": 1, "runs": 1, "blob parts": 1}
    assert house.do(kept) == [None, None, b"new"]
    assert {each["what"]: each["entries"] for each in house.objects("cache", "ls")} == {
        "answers": 1,
        "blobs": 0,
        "runs": 0,
        "task records": 0,
    }
    assert house.objects("runs") == []


def test_blobs_stay_while_a_run_is_live(house: House) -> None:
    async def fill(bus: Bus) -> dict[str, int]:
        await bus.put_blob(b"request")
        await (await Runs.open(bus)).write(RunState("live", REQUEST), 0)
        return await storage.collect(bus, time.time() + 2 * storage.REFRESH_AFTER, [], runs=True)

    assert house.do(fill) == {"answers": 0, "runs": 0}
    assert {each["what"]: each["entries"] for each in house.objects("cache", "ls")}["blobs"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--older-than", ""], "--older-than: expected a time, e.g. 7d"),
        (["--older-than", "soon"], "--older-than 'soon': expected a time above 0"),
        (["--older-than", "1h", "--stage", "mapp"], "--stage 'mapp': there is no such stage; did you mean 'map'?"),
    ],
)
def test_what_cannot_be_collected(house: House, words: list[str], said: str) -> None:
    assert said in house.say("cache", "gc", *words, code=2)


def test_logs(house: House) -> None:
    async def emit(bus: Bus, stage: str, task: str, kind: subjects.EventKind, event: Event, *, last: bool = False) -> None:
        await bus.emit(subjects.event_subject("run1", stage, task, kind), pack(event, "run1"), f"{stage}{task}{kind}{event.text}")
        await bus.connection.client.flush()

    async def fill(bus: Bus) -> None:
        await (await Runs.open(bus)).write(RunState("run1", REQUEST), 0)
        await emit(bus, "map", "map-0", "log", Event("one\ntwo\n"))
        await emit(bus, "map", "map-0", "progress", Event("not a log"))
        await emit(bus, "map", "map-0", "error", Event(failure=Failure("crash", "it fell over")))

    house.do(fill)
    lines = [line.split(maxsplit=1)[1] for line in house.say("logs", "run1").splitlines()]
    assert lines == ["map-0        log       one", "map-0        log       two", "map-0        error     it fell over"]
    first, second = house.objects("logs", "last")
    assert (first["task"], first["kind"], first["text"]) == ("map-0", "log", "one\ntwo\n")
    assert second["failure"]["reason"] == "crash"

    async def followed(bus: Bus) -> str:
        saying = asyncio.get_running_loop().run_in_executor(None, lambda: house.say("logs", "-f", "run1"))
        runs = await Runs.open(bus)
        stored = await runs.read("run1")
        assert stored is not None
        await emit(bus, "map", "map-1", "log", Event("three"))
        await runs.write(RunState("run1", REQUEST, status="done"), stored.revision)
        await emit(bus, "run", "-", "state", Event("done"))
        return await saying

    said = house.do(followed)
    assert said.index("one") < said.index("it fell over") < said.index("three")
