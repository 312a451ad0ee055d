"""The pipeline as a process of its own, killed again and again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tilewright.protocol.bus import Bus, BusSettings
from tilewright.protocol.messages import RunRequest
from tilewright.protocol.subjects import PIPELINE
from tilewright.services.runtime.runs import Runs, submit

from .fakes import Worker, answer

#: Kill after this many more tasks, again and again.
EVERY = 9


@pytest.fixture
def environment(nats_server: BusSettings, tmp_path: Path) -> dict[str, str]:
    token = tmp_path / "token"
    token.write_text(nats_server.token)
    return {**os.environ, "TILEWRIGHT_NATS_URL": nats_server.url, "TILEWRIGHT_NATS_TOKEN_FILE": str(token)}


async def replica(environment: dict[str, str]) -> asyncio.subprocess.Process:
    command = [sys.executable, "-P", "-m", "tilewright.services.runtime.serve", PIPELINE]
    return await asyncio.create_subprocess_exec(*command, env=environment, stderr=asyncio.subprocess.DEVNULL)


async def test_killed_again_and_again(bus: Bus, environment: dict[str, str], eventually: Any) -> None:
    kills = 0
    async with Worker(bus) as worker:
        worker.reply = lambda task, job: answer(job, operators=25)
        run = await submit(bus, RunRequest("toy", "toy"))
        victim = await replica(environment)
        runs = await Runs.open(bus)
        due = EVERY

        async def over() -> bool:
            nonlocal victim, due, kills
            if sum(worker.executed.values()) >= due:
                victim.kill()
                await victim.wait()
                victim = await replica(environment)
                kills += 1
                due += EVERY
            stored = await runs.read(run)
            return stored is not None and not stored.state.active

        await eventually(over, 60.0)
        stored = await runs.read(run)
        records = await runs.records(run)
        assert stored is not None
        assert stored.state.status == "done"
        assert len(records) == 1 + 25 + 1 + 25 + 2
        assert set(worker.executed.values()) == {1}
        assert kills >= 4
        await eventually(lambda: found(bus))
        victim.send_signal(signal.SIGTERM)
        assert await victim.wait() == 0


async def found(bus: Bus) -> bool:
    """True once a replica answers: from then on it obeys signals."""
    return any(service.name == PIPELINE for service in await bus.services(0.2))


async def test_it_is_found_and_leaves_on_request(bus: Bus, environment: dict[str, str], eventually: Any) -> None:
    process = await replica(environment)
    await eventually(lambda: found(bus))
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0


async def test_without_a_server(environment: dict[str, str], tmp_path: Path) -> None:
    process = await replica({**environment, "TILEWRIGHT_NATS_URL": "nats://127.0.0.1:1"})
    assert await process.wait() == 5
