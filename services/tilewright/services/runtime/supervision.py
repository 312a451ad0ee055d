"""One supervised child process per slot: started clean, watched while it works, killed with everything it started."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable

from tilewright.protocol.errors import InvalidMessage, TilewrightError
from tilewright.protocol.subjects import Stage

from .checkpoints import Keeper
from .frames import Done, FromWorker, Identified, Note, Proceed, Refused, Saved, Skip, Stale, Work, pack, receive
from .scratch import Scratch
from .settings import Settings
from .usage import usage

log = logging.getLogger("tilewright.runtime")

#: Seconds between SIGTERM and SIGKILL.
PATIENCE = 5.0
#: Seconds between two looks at what a job uses.
WATCH = 0.5
#: Environment that a child gets, where we have it: no credentials, nothing about NATS.
PASSED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONDONTWRITEBYTECODE",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "CC",
    "COVERAGE_PROCESS_CONFIG",
)
#: What numerical libraries read their number of threads from.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class Stopped(TilewrightError):
    """The child is gone without an answer."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        #: ``crash`` or ``limit``.
        self.reason = reason


class JobProcess:
    """The child process of a slot. It is started when needed and started anew after it died, was killed, or did its share of jobs."""

    def __init__(self, settings: Settings, heard: Callable[[str], None]) -> None:
        self._settings = settings
        self._heard = heard
        self._process: Process | None = None
        self._lifeline = -1
        self._scratch: Scratch | None = None
        self._jobs = 0
        self._listening: asyncio.Task[None] | None = None
        self._last_words = ""
        self._exceeded = ""
        self._life = 0.0

    @property
    def pid(self) -> int:
        """Process id (and process group) of the child; 0 without one."""
        return self._process.pid if self._process is not None else 0

    async def start(self) -> None:
        """Start a child unless there is one that can take another job."""
        if self._process is not None:
            if self._process.returncode is None and self._jobs < self._settings.jobs_per_child:
                return
            await self.close()
        self._scratch = Scratch()
        read_end, self._lifeline = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-X", "faulthandler", "-m", "tilewright.services.runtime.child", str(read_end)),
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                env=self._environment(str(self._scratch.path)),
                pass_fds=(read_end,),
                start_new_session=True,
            )
        finally:
            os.close(read_end)
        self._jobs = 0
        self._last_words = ""
        self._listening = asyncio.create_task(self._listen(self._process))

    def _environment(self, folder: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in PASSED if name in os.environ}
        threads = dict.fromkeys(THREADS, str(self._settings.threads_per_slot))
        # Fixed hashing: the order of a set of strings must not differ from one process to the next.
        fixed = {"PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1", "TMPDIR": folder}
        ours = {
            "TILEWRIGHT_PLUGINS": ",".join(self._settings.plugins),
            "TILEWRIGHT_CHECKPOINT_EVERY": str(self._settings.checkpoint_every),
        }
        return {**kept, **threads, **fixed, **ours}

    async def _listen(self, process: Process) -> None:
        """Pass on what plugins print."""
        assert process.stderr is not None
        while data := await process.stderr.read(1 << 16):
            text = data.decode(errors="replace")
            self._last_words = (self._last_words + text)[-2000:]
            self._heard(text)

    async def perform(
        self,
        stage: Stage,
        job: bytes,
        wanted: Callable[[Identified], Awaitable[bool]],
        note: Callable[[Note], None],
        limit: float,
        keeper: Keeper | None = None,
    ) -> Done | Refused | None:
        """Do one job within `limit` seconds; None when `wanted` says that its answer is not needed. Checkpoints go to `keeper`.

        Raises `Stopped` when the child crashed or was killed for exceeding a limit.
        """
        while True:
            await self.start()
            self._jobs += 1
            self._exceeded = ""
            self._life = time.monotonic()
            watching = asyncio.create_task(self._watch(time.monotonic() + limit, limit))
            try:
                answer = await self._converse(Work(stage, job), wanted, note, keeper)
            except InvalidMessage as error:
                await self.kill()
                raise Stopped("crash", f"the child process said something unintelligible: {error}") from error
            except BaseException:  # nobody knows what it is doing now
                await self.kill()
                raise
            finally:
                watching.cancel()
            if not isinstance(answer, Stale):
                return answer
            await self.close()

    async def _converse(
        self, work: Work, wanted: Callable[[Identified], Awaitable[bool]], note: Callable[[Note], None], keeper: Keeper | None
    ) -> Done | Refused | Stale | None:
        assert self._process is not None
        assert self._process.stdout is not None
        await self._say(work)
        while (frame := await receive(self._process.stdout)) is not None:
            self._life = time.monotonic()
            if isinstance(frame, Identified):
                self._life = float("inf")  # it is waiting for us
                needed = await wanted(frame)
                saved = await keeper.load(frame.key) if needed and keeper is not None else b""
                self._life = time.monotonic()
                await self._say(Proceed(saved) if needed else Skip())
                if not needed:
                    return None
            elif isinstance(frame, Note):
                note(frame)
            elif isinstance(frame, Saved):
                if keeper is not None:
                    keeper.save(frame.data)
            elif isinstance(frame, Done | Refused | Stale):
                return frame
        raise await self._died()

    async def _say(self, frame: FromWorker) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(pack(frame))
            await self._process.stdin.drain()
        except ConnectionError:
            return  # it is dead or dying: reading will tell

    async def _died(self) -> Stopped:
        """Why the child closed its pipe."""
        exceeded, process = self._exceeded, self._process
        assert process is not None
        await self.kill()
        if exceeded:
            return Stopped("limit", exceeded)
        code = process.returncode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        words = self._last_words.strip().splitlines()
        return Stopped("crash", f"the child process {how}" + (f"; it last said: {' / '.join(words[-3:])}" if words else ""))

    async def _watch(self, deadline: float, limit: float) -> None:
        """Kill the child when it uses too much memory, takes too long, or shows no life; or when it is dead and its pipe lives on."""
        used = 0.0
        while self._process is not None and self._process.returncode is None:
            await asyncio.sleep(WATCH)
            found = usage(self.pid)
            now = time.monotonic()
            if found.cpu_seconds > used:
                used, self._life = found.cpu_seconds, max(self._life, now)
            if found.resident_bytes > self._settings.memory_limit:
                self._exceeded = f"memory: {found.resident_bytes >> 20} MiB resident, limit {self._settings.memory_limit >> 20} MiB"
            elif now > deadline:
                self._exceeded = f"time: not done after {limit:g} s"
            elif now - self._life > self._settings.idle_limit:
                self._exceeded = f"hung: neither CPU use nor a sign of life for {self._settings.idle_limit:g} s"
            else:
                continue
            break
        self._signal(signal.SIGKILL)

    @property
    def alive(self) -> bool:
        """True while the job at hand shows life: only then may its worker say that it is in progress."""
        return self._process is not None and time.monotonic() - self._life <= self._settings.idle_limit

    def interrupt(self) -> None:
        """Ask the job at hand to stop with what it has (SIGTERM to the whole group)."""
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            _kill_group(self._process.pid, number)

    async def close(self) -> None:
        """Let the child end by itself, which an idle one does at once; then `kill` what is left of it."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            leaving = asyncio.ensure_future(self._process.wait())
            await asyncio.wait([leaving], timeout=PATIENCE)
            leaving.cancel()
        await self.kill()

    async def kill(self) -> None:
        """End the child and everything it started, now."""
        if self._process is None:
            return
        process, self._process = self._process, None
        _kill_group(process.pid, signal.SIGKILL)
        # What a plugin has detached from the group may hold the pipes open: do not wait for it.
        ends = [asyncio.ensure_future(process.wait()), *([self._listening] if self._listening else [])]
        await asyncio.wait(ends, timeout=PATIENCE)
        for end in ends:
            end.cancel()
        os.close(self._lifeline)
        if self._scratch is not None:
            self._scratch.remove()


def _kill_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return
