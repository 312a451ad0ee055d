"""The child process of one slot: it imports plugins, keeps them warm, and does one job after the other.

Run by `supervision.JobProcess` as ``python -m tilewright.services.runtime.child LIFELINE``, with frames on standard input
and output; whatever a plugin prints goes to standard error, which the worker turns into log events.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import traceback
from types import FrameType
from typing import BinaryIO

from tilewright.protocol.codec import MAX_VALUE, canonical, decode
from tilewright.protocol.errors import BrokenPlugin, Cancelled, InvalidInput, TilewrightError
from tilewright.protocol.messages import JOBS, Job
from tilewright.protocol.subjects import SERVICES

from . import lifeline
from .frames import Done, FromChild, Identified, Proceed, Refused, Stale, Work, pack, read
from .host import Host, Unsolvable
from .identity import Code
from .settings import Settings, load


class Slot:
    """Does jobs that come in on a pipe."""

    def __init__(self, commands: BinaryIO, answers: BinaryIO, settings: Settings) -> None:
        self._commands = commands
        self._answers = answers
        self._settings = settings
        self._code = Code()
        self._one_at_a_time = threading.Lock()
        self._host: Host | None = None

    def run(self) -> None:
        """Work until the worker closes the pipe, or the code on disk is not ours any more."""
        signal.signal(signal.SIGTERM, self._terminate)
        while isinstance(work := read(self._commands), Work):
            if self._code.stale:
                self._send(Stale())
                return
            host = self._host = Host(self._send, frozenset(self._settings.plugins), self._settings.checkpoint_every)
            try:
                answer = self._do(work, host)
            except BaseException as error:  # whatever a plugin raises, the process goes on
                answer = refusal(error)
            if answer is not None:
                self._send(answer)
            self._host = None

    def _do(self, work: Work, host: Host) -> Done | Refused | None:
        service = importlib.import_module(f"tilewright.services.{SERVICES[work.stage]}")
        job: Job = decode(work.job, JOBS[work.stage], limit=MAX_VALUE)
        plugins = service.plugins(job, host)
        self._send(Identified(self._code.key(work.stage, job, service, plugins, host), self._code.names(plugins)))
        if not isinstance(said := read(self._commands), Proceed):
            return None
        host.saved = said.saved
        before = _cpu_seconds()
        answer = service.perform(job, host)
        if host.cancelled and not hasattr(answer, "complete"):
            raise Cancelled("stopped")
        complete = getattr(answer, "complete", True) and not host.cancelled
        # Equal answers have equal bytes, whatever made them.
        return Done(canonical(answer), complete, _cpu_seconds() - before, host.cancelled)

    def _send(self, frame: FromChild) -> None:
        with self._one_at_a_time:
            self._answers.write(pack(frame))
            self._answers.flush()

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        """SIGTERM: ask the job at hand to stop with what it has."""
        if self._host is not None:
            self._host.cancelled = True


def refusal(error: BaseException) -> Refused:
    """What the worker is told about an exception: who is to blame, and whether trying again may help."""
    if isinstance(error, InvalidInput):
        return Refused("bad input", str(error), error.exit_code)
    if isinstance(error, BrokenPlugin):
        return Refused("broken plugin", str(error))
    if isinstance(error, Unsolvable):
        return Refused("infeasible", str(error))
    if isinstance(error, Cancelled):
        return Refused("cancelled", str(error), error.exit_code)
    if isinstance(error, MemoryError):
        return Refused("limit", f"out of memory {_where(error)}", again=True)
    if not isinstance(error, TilewrightError):
        traceback.print_exception(error)
        sys.stderr.flush()
    return Refused("exception", f"{type(error).__name__}: {error} {_where(error)}", again=True)


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""  # noqa: PTH119 (may be no path: "<string>")


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Move the pipes off standard input and output, where plugins and what they start would find them."""
    commands, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return os.fdopen(commands, "rb"), os.fdopen(answers, "wb")


def main() -> None:
    """Serve until the worker is done with us."""
    lifeline.hold(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    commands, answers = take_pipes()
    Slot(commands, answers, load()).run()


if __name__ == "__main__":
    main()
