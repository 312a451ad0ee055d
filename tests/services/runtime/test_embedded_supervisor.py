"""What the supervisor decides: which services it starts, and when it leaves. In this process, with children that only are noted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from tilewright.protocol.bus import Bus, BusSettings
from tilewright.protocol.codec import encode
from tilewright.protocol.errors import NoConnection, TilewrightError
from tilewright.protocol.keys import message_id, new_run_id
from tilewright.protocol.messages import Event, RunRequest, unpack
from tilewright.protocol.run import RunState, StageState, closure
from tilewright.protocol.subjects import RUN_STREAM, RUNS_BUCKET, SUBMIT, Stage, event_subject
from tilewright.services.runtime import supervisor as module
from tilewright.services.runtime.embedded import Record, StateFolder
from tilewright.services.runtime.nats_server import NatsServer
from tilewright.services.runtime.runs import submit
from tilewright.services.runtime.supervisor import Supervisor

Eventually = Callable[..., Awaitable[Any]]


class NotedChild:
    """Stands for a service."""

    started: ClassVar[dict[str, dict[str, str]]] = {}
    stopped: ClassVar[list[str]] = []
    reports: ClassVar[dict[str, Callable[[str], None]]] = {}

    def __init__(self, name: str, command: list[str], environment: dict[str, str], log: Path, died: Callable[[str], None]) -> None:
        self.name = name
        assert command[-1] == name
        self.started[name] = dict(environment)
        self.reports[name] = died

    async def stop(self) -> None:
        self.stopped.append(self.name)


@pytest.fixture(autouse=True)
def noted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    NotedChild.started, NotedChild.stopped, NotedChild.reports = {}, [], {}
    monkeypatch.setattr(module, "Child", NotedChild)
    monkeypatch.setattr(module, "TICK", 0.01)
    monkeypatch.setattr(module, "GRACE", 0.05)
    yield


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "state")


@pytest.fixture
def client(folder: StateFolder) -> Iterator[Callable[[], None]]:
    """A client is connected until the fixture is called."""
    lock = folder.lock_clients(shared=True)
    assert lock is not None
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, lock)
        yield lambda: stack.close()


@pytest.fixture
async def supervising(folder: StateFolder, own_server: NatsServer, own_bus: Bus) -> AsyncIterator[asyncio.Task[None]]:
    supervisor = Supervisor(folder, own_server, own_server.settings, own_bus)
    folder.announce(Record(os.getpid(), own_server.settings.url, own_server.settings.token, "0"))
    task = asyncio.create_task(supervisor.run())
    yield task
    supervisor.leaving.set()
    async with asyncio.timeout(20):
        await asyncio.wait([task])
    assert folder.record is None
    assert sorted(NotedChild.stopped) == sorted(NotedChild.started)


def state(*stages: Stage, **fields: Any) -> RunState:
    return RunState(new_run_id(), RunRequest("m", "t", stages=stages), stages=tuple(StageState(each) for each in closure(stages)), **fields)


async def put(bus: Bus, state: RunState) -> None:
    await (await bus.bucket(RUNS_BUCKET)).put(state.run, encode(state))


async def test_it_leaves_when_nobody_needs_it(supervising: asyncio.Task[None], folder: StateFolder) -> None:
    async with asyncio.timeout(20):
        await supervising
    assert NotedChild.started == {}
    # Whoever comes now waits for the process to end.
    assert folder.lock_clients(shared=True) is None


async def test_a_client_keeps_it(supervising: asyncio.Task[None], client: Callable[[], None], eventually: Eventually, own_bus: Bus) -> None:
    run = state("map")
    await put(own_bus, run)
    await put(own_bus, msgspec.structs.replace(run, status="done"))
    for _ in range(20):
        assert not supervising.done()
        await own_bus.services(timeout=0.01)
    client()
    await eventually(supervising.done)


async def test_live_runs_keep_it_and_get_their_services(
    own_bus: Bus, folder: StateFolder, own_server: NatsServer, eventually: Eventually
) -> None:
    run = state("map")
    await put(own_bus, run)
    await put(own_bus, state("kernel", status="failed"))
    supervisor = Supervisor(folder, own_server, own_server.settings, own_bus)
    task = asyncio.create_task(supervisor.run())
    await eventually(lambda: NotedChild.started)
    assert list(NotedChild.started) == ["pipeline", "profiler", "mapper"]
    assert not task.done()
    await put(own_bus, msgspec.structs.replace(run, status="done"))
    await eventually(task.done)
    await task


async def test_a_submitted_run_gets_its_services_at_once(
    supervising: asyncio.Task[None], client: Callable[[], None], own_bus: Bus, eventually: Eventually
) -> None:
    await submit(own_bus, RunRequest("m", "t", stages=("simulate",)))
    await eventually(lambda: len(NotedChild.started) == 4)
    assert list(NotedChild.started) == ["pipeline", "profiler", "mapper", "simulator"]
    environment = NotedChild.started["mapper"]
    assert environment["TILEWRIGHT_NATS_URL"].startswith("nats://127.0.0.1:")
    assert environment["TILEWRIGHT_SLOTS"] == str(os.cpu_count())
    assert "TILEWRIGHT_SLOTS" not in NotedChild.started["pipeline"]
    # Nobody has taken it up: it waits in the queue, and the supervisor with it.
    client()
    await own_bus.services(timeout=0.2)
    assert not supervising.done()
    assert await own_bus.lag(RUN_STREAM) == (1, 0)
    assert len(NotedChild.started) == 4


async def test_runs_that_were_submitted_to_a_dead_house_get_every_service(
    own_bus: Bus, folder: StateFolder, own_server: NatsServer, eventually: Eventually
) -> None:
    await submit(own_bus, RunRequest("m", "t", stages=("profile",)))
    supervisor = Supervisor(folder, own_server, own_server.settings, own_bus)
    task = asyncio.create_task(supervisor.run())
    await eventually(lambda: len(NotedChild.started) == 6)
    supervisor.leaving.set()
    await task


async def test_nonsense_that_is_submitted_is_the_pipelines_business(
    supervising: asyncio.Task[None], client: Callable[[], None], own_bus: Bus, eventually: Eventually
) -> None:
    await own_bus.publish(SUBMIT, b"\xc1", message_id("x", "run", 0, "submit"))
    await eventually(lambda: NotedChild.started)
    assert next(iter(NotedChild.started)) == "pipeline"
    await own_bus.services(timeout=0.2)
    assert not supervising.done()


async def test_up_keeps_it_with_every_service(
    supervising: asyncio.Task[None], folder: StateFolder, own_bus: Bus, eventually: Eventually
) -> None:
    folder.stay = True
    await eventually(lambda: len(NotedChild.started) == 6)
    await own_bus.services(timeout=0.2)
    assert not supervising.done()
    folder.stay = False
    await eventually(supervising.done)


async def test_watchers_of_a_live_run_hear_of_a_dying_service(
    own_bus: Bus, folder: StateFolder, own_server: NatsServer, eventually: Eventually
) -> None:
    run = state("profile")
    await put(own_bus, run)
    supervisor = Supervisor(folder, own_server, own_server.settings, own_bus)
    task = asyncio.create_task(supervisor.run())
    await eventually(lambda: "profiler" in NotedChild.reports)
    async with asyncio.timeout(20), contextlib.aclosing(own_bus.events(event_subject(run.run, "run", "-", "log"))) as events:
        NotedChild.reports["profiler"]("profiler ended with exit code 1")
        async for heard in events:
            assert unpack(heard.data)[1] == Event(text="profiler ended with exit code 1")
            break
    supervisor.leaving.set()
    await task


async def test_a_whole_life(folder: StateFolder) -> None:
    told = list[Record | None]()
    async with asyncio.timeout(20):
        await module.supervise(folder, lambda: told.append(folder.record))
    assert told[0] is not None and told[0].pid == os.getpid()
    assert folder.record is None


async def test_a_signal_ends_it_although_a_client_is_there(folder: StateFolder, client: Callable[[], None], eventually: Eventually) -> None:
    ready = asyncio.Event()
    life = asyncio.create_task(module.supervise(folder, ready.set))
    await ready.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(20):
        await life


async def test_a_server_that_never_comes_back_ends_it(
    supervising: asyncio.Task[None], client: Callable[[], None], own_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SERVER_ATTEMPTS", 2)

    async def start() -> BusSettings:
        raise NoConnection("no room")

    monkeypatch.setattr(own_server, "start", start)
    os.kill(own_server.pid, signal.SIGKILL)
    with pytest.raises(TilewrightError, match="nats-server failed to start 2 times in a row"):
        async with asyncio.timeout(20):
            await asyncio.shield(supervising)


def test_a_large_log_starts_anew(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    path = module.log_file(folder, "mapper")
    path.write_text("x" * 11)
    monkeypatch.setattr(module, "LOG_LIMIT", 10)
    assert module.log_file(folder, "mapper") == path
    assert not path.exists() and (folder.logs / "mapper.log.1").read_text() == "x" * 11
