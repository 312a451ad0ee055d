"""Services as processes of their own: signals, kill -9, a server that goes away, and what discovery sees."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tilewright.protocol.bus import Bus, BusSettings
from tilewright.protocol.subjects import DONE_STREAM
from tilewright.services.runtime.nats_server import NatsServer
from tilewright.services.runtime.settings import Settings

from .conftest import Bench, Jobs, running

Eventually = Callable[..., Awaitable[Any]]
Spawn = Callable[..., Awaitable[Process]]


@pytest.fixture
async def spawn(nats_server: BusSettings, tmp_path: Path, ack_wait: float, jobs: Jobs) -> AsyncIterator[Spawn]:
    """Starts ``python -m tilewright.services.runtime.serve SERVICE``."""
    started: list[Process] = []

    async def start(service: str, server: BusSettings = nats_server, **variables: str) -> Process:
        token = tmp_path / "token"
        token.write_text(server.token)
        settings = {"TILEWRIGHT_NATS_URL": server.url, "TILEWRIGHT_NATS_TOKEN_FILE": str(token), "TILEWRIGHT_ACK_WAIT": str(ack_wait)}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TILEWRIGHT_")}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "tilewright.services.runtime.serve", service),
            env={**clean, **settings, **variables},
            stderr=PIPE,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def ended(process: Process) -> int:
    async with asyncio.timeout(20):
        return await process.wait()


async def test_after_kill_9_the_job_goes_to_somebody_else(bench: Bench, jobs: Jobs, spawn: Spawn, eventually: Eventually) -> None:
    victim = await spawn("mapper")
    await bench.publish(jobs.job("breed"))
    await eventually(jobs.bred)
    victim.kill()
    await ended(victim)
    await eventually(lambda: not running(jobs.started()[0]) and not running(jobs.bred()))
    (jobs.folder / "job.bred").unlink()
    jobs.module.write_text(
        jobs.module.read_text().replace("def breed(self)", "def breed(self):\n        pass\n\n    def breed_before(self)")
    )
    await bench.work()
    envelope, outcome = await bench.outcome()
    assert (envelope.task, outcome.status) == ("map-0", "done")
    assert outcome.record is not None
    assert outcome.record.attempts == 1, "a worker that dies is no failure of the job"
    assert len(jobs.started()) == 2
    await eventually(bench.idle)
    (deliveries,) = {event.figures["delivery"] for kind, event in await bench.events() if kind == "started" and event.worker == "mapper-0"}
    assert deliveries == 2


def signalled(process: Process, number: signal.Signals) -> bool:
    """Send a signal to a process that still runs; True once it has ended. (Two signals sent too fast are one.)"""
    if process.returncode is None:
        process.send_signal(number)
    return process.returncode is not None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
class TestSignals:
    @pytest.fixture
    def ack_wait(self) -> float:
        """So long that only a hand-back explains that a job comes again."""
        return 120.0

    async def test_the_first_signal_hands_back_at_once(
        self, bench: Bench, jobs: Jobs, spawn: Spawn, eventually: Eventually, number: signal.Signals
    ) -> None:
        process = await spawn("mapper")
        await bench.publish(jobs.job("wait"))
        await eventually(jobs.started)
        await bench.work()
        process.send_signal(number)
        assert await ended(process) == 0
        await eventually(lambda: len(jobs.started()) == 2)
        jobs.go()
        _, outcome = await bench.outcome()
        assert outcome.record is not None
        assert (outcome.status, outcome.record.attempts, outcome.record.worker) == ("done", 1, "mapper-0")
        assert not running(jobs.started()[0])

    async def test_a_grace_period_lets_a_job_finish(
        self, bench: Bench, jobs: Jobs, spawn: Spawn, eventually: Eventually, number: signal.Signals
    ) -> None:
        process = await spawn("mapper", TILEWRIGHT_GRACE="60")
        await bench.publish(jobs.job("wait"))
        await eventually(jobs.started)
        process.send_signal(number)
        await bench.publish(jobs.job(label="later"), task="map-1")
        jobs.go()
        envelope, _ = await bench.outcome()
        assert envelope.task == "map-0"
        assert await ended(process) == 0
        assert jobs.started("later") == []
        assert await bench.bus.lag("TW_JOB_MAP") == (1, 0)

    async def test_the_second_signal_ends_it_on_the_spot(
        self, bench: Bench, jobs: Jobs, spawn: Spawn, eventually: Eventually, number: signal.Signals
    ) -> None:
        process = await spawn("mapper", TILEWRIGHT_GRACE="60")
        await bench.publish(jobs.job("breed"))
        await eventually(jobs.bred)
        await eventually(lambda: signalled(process, number))
        assert process.returncode == 0
        await eventually(lambda: not running(jobs.started()[0]) and not running(jobs.bred()))

    async def test_an_idle_service_leaves(self, bench: Bench, spawn: Spawn, eventually: Eventually, number: signal.Signals) -> None:
        process = await spawn("simulator")
        await eventually(lambda: _names(bench.bus))
        process.send_signal(number)
        assert await ended(process) == 0


async def _names(bus: Bus) -> list[str]:
    return [info.name for info in await bus.services()]


async def test_what_a_service_says_of_itself(bench: Bench, spawn: Spawn, eventually: Eventually) -> None:
    await spawn("mapper", TILEWRIGHT_SLOTS="2")
    await eventually(lambda: _names(bench.bus))
    (info,) = await bench.bus.services()
    assert info.name == "mapper"
    assert info.metadata["slots"] == "2"
    assert "job.start/1" in info.metadata["schemas"]
    assert {"cosa", "random", "unruly", "missing"} <= set(info.metadata["mappers"].split(", ")), "listed without being imported"
    assert info.stats["busy"] == 0


@pytest.mark.parametrize(
    ("service", "variables", "code", "said"),
    [
        ("maper", {}, 2, "service 'maper' is unknown; did you mean 'mapper'?"),
        ("mapper", {"TILEWRIGHT_NATS_URL": "nats://127.0.0.1:9"}, 5, "127.0.0.1:9"),
        ("mapper", {"TILEWRIGHT_NATS_TOKEN_FILE": "no-such-file"}, 2, "nats_token_file: 'no-such-file' cannot be read"),
        ("mapper", {"TILEWRIGHT_SLOT": "2"}, 2, "TILEWRIGHT_SLOT is not a setting; did you mean 'TILEWRIGHT_SLOTS'?"),
    ],
)
async def test_a_service_that_cannot_start_says_why(
    bus: Bus, spawn: Spawn, service: str, variables: dict[str, str], code: int, said: str
) -> None:
    process = await spawn(service, **variables)
    async with asyncio.timeout(30):
        _, errors = await process.communicate()
    assert process.returncode == code
    assert said in errors.decode()
    assert "Traceback" not in errors.decode()


async def test_without_streams_a_service_says_what_to_run(start_nats: Any, tmp_path: Path, spawn: Spawn) -> None:
    server = NatsServer(tmp_path / "bare")
    process = await spawn("mapper", await server.start())
    try:
        async with asyncio.timeout(30):
            _, errors = await process.communicate()
    finally:
        await server.stop()
    assert process.returncode == 5
    assert "tilewright admin init" in errors.decode()


async def test_a_job_survives_a_restart_of_the_server(
    own_server: NatsServer, own_bus: Bus, jobs: Jobs, settings: Settings, eventually: Eventually
) -> None:
    async def connect() -> Bus:
        return await Bus.connect(own_server.settings)

    bench = Bench(own_bus, await own_bus.queue(DONE_STREAM), settings, connect)
    await bench.work()
    try:
        await bench.publish(jobs.job("wait"))
        await eventually(jobs.started)
        os.kill(own_server.pid, signal.SIGKILL)
        await own_server.died()
        await own_server.start()
        jobs.go()
        _, outcome = await bench.outcome()
        assert outcome.status == "done"
        await eventually(bench.idle)
    finally:
        await bench.close()


async def page(address: str, path: str) -> str:
    """Status line of a page; empty while nobody listens."""
    host, _, port = address.rpartition(":")
    try:
        reader, writer = await asyncio.open_connection(host, int(port))
    except ConnectionRefusedError:
        return ""
    writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
    status = (await reader.read()).decode().partition("\r\n")[0]
    writer.close()
    return status


@pytest.mark.parametrize("service", ["mapper", "pipeline"])
async def test_it_lives_on_without_a_server_and_is_not_ready(
    own_server: NatsServer, own_bus: Bus, spawn: Spawn, eventually: Eventually, service: str
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"

    async def says(path: str, status: str) -> bool:
        return await page(address, path) == f"HTTP/1.1 {status}"

    process = await spawn(service, own_server.settings, TILEWRIGHT_HEALTH_ADDRESS=address)
    await eventually(lambda: says("/readyz", "200 OK"))
    await own_server.kill()
    await eventually(lambda: says("/readyz", "503 Service Unavailable"))
    assert await page(address, "/livez") == "HTTP/1.1 200 OK"
    await own_server.start()
    await eventually(lambda: says("/readyz", "200 OK"))
    process.terminate()
    assert await ended(process) == 0
