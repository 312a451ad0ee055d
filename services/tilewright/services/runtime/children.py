"""Child processes that die with their parent and are started again when they die alone."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

#: Seconds before the first restart; it doubles with every death that follows soon, up to `MAX_PAUSE`.
PAUSE = 0.2
MAX_PAUSE = 5.0
#: A child that lived this long, in seconds, starts from `PAUSE` again.
HEALTHY = 10.0
#: Seconds between SIGTERM and SIGKILL when a child is stopped.
GRACE = 8.0

#: ``prctl`` option that names the signal sent to a process when the thread that started it ends.
_PR_SET_PDEATHSIG = 1
#: How a pause between two lives is waited out.
rest = asyncio.sleep


def die_with_parent(number: signal.Signals) -> Callable[[], None]:
    """What a child runs before ``exec`` so that the kernel sends it a signal when its parent dies (Linux; elsewhere nothing).

    The signal comes when the parent's *thread* that forked ends: fork from the main thread.
    """
    if sys.platform != "linux":
        return lambda: None
    # Everything is looked up before the fork.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def before_exec() -> None:
        prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return before_exec


class Child:
    """One process, kept alive until `stop`."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path, died: Callable[[str], None]) -> None:
        self.name = name
        self._command = command
        self._environment = environment
        self._log = log
        self._died = died
        self._process: asyncio.subprocess.Process | None = None
        self._task = asyncio.create_task(self._keep(), name=f"keep {name}")

    @property
    def pid(self) -> int:
        """Process id, 0 while there is none."""
        return self._process.pid if self._process is not None and self._process.returncode is None else 0

    async def _keep(self) -> None:
        pause = PAUSE
        while True:
            started = time.monotonic()
            with self._log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=dict(self._environment),
                    preexec_fn=die_with_parent(signal.SIGKILL),
                )
            code = await self._process.wait()
            if time.monotonic() - started > HEALTHY:
                pause = PAUSE
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            self._died(f"{self.name} ended {how}; it starts again in {pause:.1f} s; its log is {self._log}")
            await rest(pause)
            pause = min(2 * pause, MAX_PAUSE)

    async def stop(self) -> None:
        """Terminate it, kill it when that does not help, and do not start it again."""
        self._task.cancel()
        await asyncio.wait([self._task])
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), GRACE)
        except TimeoutError:
            process.kill()
            await process.wait()
