"""An installed unruly plugin, jobs for it, and workers that do them on a real server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from tilewright.protocol.architecture import Constraints
from tilewright.protocol.bus import Bus, Queue
from tilewright.protocol.keys import message_id
from tilewright.protocol.messages import DeadLetter, Envelope, Event, MapJob, Outcome, StartJob, pack, unpack
from tilewright.protocol.plugin import Budget
from tilewright.protocol.subjects import DEAD_STREAM, DONE_STREAM, dead_subject, events_of, job_stream, job_subject
from tilewright.protocol.workload import matmul
from tilewright.services.runtime.settings import Settings
from tilewright.services.runtime.worker import Stop, Worker
from tilewright.testing import samples

from .unruly import install

OPERATOR = matmul(p=4, c=4, k=4)


class Jobs:
    """Makes jobs for the unruly mapper and reads the traces that it leaves."""

    def __init__(self, folder: Path, module: Path) -> None:
        self.folder = folder
        self.module = module

    def job(self, do: str = "work", label: str = "job", **changes: Any) -> MapJob:
        options = {"do": do, "folder": str(self.folder), "label": label}
        job = MapJob(OPERATOR, samples.architecture(), Constraints(), "edp", "unruly", Budget(), options=options)
        return msgspec.structs.replace(job, **changes)

    def started(self, label: str = "job") -> list[int]:
        """Process ids of the executions so far."""
        path = self.folder / f"{label}.started"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def bred(self, label: str = "job") -> int:
        """Process id that the job has started; 0 as long as it has not."""
        path = self.folder / f"{label}.bred"
        return int(path.read_text() or 0) if path.exists() else 0

    def go(self, label: str = "job") -> None:
        (self.folder / f"{label}.go").touch()


def running(pid: int) -> bool:
    """True while a process is there and no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    site, folder = tmp_path / "site", tmp_path / "traces"
    folder.mkdir()
    module = install(site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    made = Jobs(folder, module)
    yield made
    bred = [int(path.read_text()) for path in folder.glob("*.bred")]
    left = [pid for pid in bred if running(pid)]
    for pid in left:
        psutil.Process(pid).kill()


@pytest.fixture
def settings() -> Settings:
    return Settings(ack_wait=2.0, retry_delay=0.05)


class Bench:
    """Puts jobs on the queue, runs workers in this process, and takes out what they say."""

    def __init__(self, bus: Bus, done: Queue, settings: Settings, connect: Callable[[], Awaitable[Bus]]) -> None:
        self.bus = bus
        self._done = done
        self._settings = settings
        self._connect = connect
        #: Of the last outcome.
        self.last_headers: dict[str, str] = {}
        self._workers: list[tuple[Stop, asyncio.Task[None]]] = []

    async def publish(
        self,
        job: MapJob | None,
        *,
        run: str = "run",
        task: str = "map-0",
        generation: int = 0,
        headers: dict[str, str] | None = None,
        **start: Any,
    ) -> None:
        """A job as the pipeline publishes it."""
        data = pack(StartJob("map", job, **start), run, task=task, generation=generation)
        await self.put(data, run=run, task=task, identity=message_id(run, task, generation, "job"), headers=headers)

    async def put(
        self, data: bytes, *, run: str = "run", task: str = "map-0", identity: str, headers: dict[str, str] | None = None
    ) -> None:
        """Any bytes."""
        await self.bus.publish(job_subject("map", run, task), data, identity, headers=headers)

    def adopt(self, worker: Worker, stop: Stop) -> None:
        """Run a worker that a test has made."""
        self._workers.append((stop, asyncio.create_task(worker.run())))

    async def work(self, **changes: Any) -> Worker:
        """Start a worker."""
        settings = msgspec.structs.replace(self._settings, **changes)
        stop = Stop()
        worker = Worker(await self._connect(), "map", settings, f"mapper-{len(self._workers)}", stop)
        self._workers.append((stop, asyncio.create_task(worker.run())))
        return worker

    async def stop(self, index: int = -1) -> None:
        """Stop a worker, handing back what it does, and wait for it."""
        stop, task = self._workers.pop(index)
        stop.asked.set()
        stop.over.set()
        async with asyncio.timeout(20):
            await task

    async def close(self) -> None:
        while self._workers:
            await self.stop()

    async def outcome(self) -> tuple[Envelope, Outcome]:
        """The next outcome."""
        async with asyncio.timeout(30):
            while (delivery := await self._done.fetch(5)) is None:
                pass
        await delivery.ack()
        self.last_headers = delivery.headers
        envelope, outcome = unpack(delivery.data)
        assert isinstance(outcome, Outcome)
        return envelope, outcome

    async def events(self, run: str = "run") -> list[tuple[str, Event]]:
        """Kinds and contents of the events so far."""
        found = []
        async for each in self.bus.events(events_of(run), follow=False):
            _, event = unpack(each.data)
            found.append((each.subject.rpartition(".")[2], event))
        return found

    async def dead(self) -> list[tuple[Envelope, DeadLetter]]:
        """The dead letters so far."""
        return [unpack(each.data) async for each in self.bus.events(dead_subject("map"), stream=DEAD_STREAM, follow=False)]

    async def idle(self) -> bool:
        """True when nothing is queued or in work."""
        return await self.bus.lag(job_stream("map")) == (0, 0)


@pytest.fixture
async def bench(bus: Bus, connect: Callable[[], Awaitable[Bus]], settings: Settings) -> AsyncIterator[Bench]:
    made = Bench(bus, await bus.queue(DONE_STREAM), settings, connect)
    try:
        yield made
    finally:
        await made.close()
