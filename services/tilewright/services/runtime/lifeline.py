"""A process group that never outlives its worker.

The worker keeps the writing end of a pipe that it never writes to; the child asks the kernel to kill its whole process
group when that end closes. The kernel does so the moment the worker dies, however it dies, and reaches solvers and
compilers that the child started, which a parent-death signal (it follows one process only) would not.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys

#: ``fcntl`` command that chooses the signal of ``O_ASYNC`` (Linux).
_F_SETSIG = 10


def hold(handle: int) -> None:
    """Tie this process group to the pipe whose reading end is `handle`.

    Where the kernel has no such signal (macOS) the process ends when it next reads from, or writes to, its worker.
    """
    os.set_inheritable(handle, False)
    if sys.platform == "linux":
        fcntl.fcntl(handle, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(handle, _F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(handle, fcntl.F_SETFL, fcntl.fcntl(handle, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([handle], [], [], 0)[0]:  # the worker died before the kernel was asked
        os.killpg(os.getpgrp(), signal.SIGKILL)
