"""Children: started again when they die, stopped when asked, and never alive without their parent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from tilewright.services.runtime import children
from tilewright.services.runtime.children import Child

#: Says its process id and waits for a signal; SIGTERM ends it.
WAITS = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
#: The same, deaf to SIGTERM.
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAITS}"


@contextlib.asynccontextmanager
async def keeping(code: str, log: Path, died: Callable[[str], None]) -> AsyncIterator[Child]:
    child = Child("sleeper", [sys.executable, "-c", code], os.environ, log, died)
    try:
        yield child
    finally:
        await child.stop()


def said(log: Path) -> list[int]:
    """Process ids that the children have said so far."""
    return [int(line) for line in log.read_text().split()] if log.exists() else []


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 (another process makes it true)
            await asyncio.sleep(0.01)


async def test_a_dead_child_comes_back_and_the_reason_is_told(tmp_path: Path) -> None:
    log, told = tmp_path / "log", list[str]()
    async with keeping(WAITS, log, told.append) as child:
        await until(lambda: len(said(log)) == 1)
        assert child.pid == said(log)[0]
        os.kill(child.pid, signal.SIGKILL)
        await until(lambda: len(said(log)) == 2)
        assert told == [f"sleeper ended by signal 9; it starts again in 0.2 s; its log is {log}"]
        last = child.pid
    assert not psutil.pid_exists(last) and child.pid == 0


async def test_a_child_that_keeps_dying_is_started_less_and_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "PAUSE", 0.001)
    monkeypatch.setattr(children, "MAX_PAUSE", 0.002)
    told = list[str]()
    async with keeping("raise SystemExit(3)", tmp_path / "log", told.append):
        await until(lambda: len(told) == 3)
    assert [text.partition(";")[0] for text in told[:3]] == ["sleeper ended with exit code 3"] * 3


async def test_pauses_double_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = list[float]()

    async def note(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(children, "rest", note)
    async with keeping("pass", tmp_path / "log", lambda _: None):
        await until(lambda: len(pauses) >= 7)
    assert pauses[:7] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


async def test_a_child_that_ignores_the_request_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "GRACE", 0.1)
    log = tmp_path / "log"
    async with keeping(DEAF, log, lambda _: None) as child:
        await until(lambda: said(log))
        pid = child.pid
    assert not psutil.pid_exists(pid)


def test_children_die_with_their_parent(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = (
        "import asyncio, os, pathlib, sys\n"
        "from tilewright.services.runtime.children import Child\n"
        "async def main():\n"
        f"    child = Child('deaf', [sys.executable, '-c', {DEAF!r}], os.environ, pathlib.Path(sys.argv[1]), print)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(log)]) as parent:
        deadline = time.monotonic() + 20
        while not said(log):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        parent.kill()
    while psutil.pid_exists(said(log)[0]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
