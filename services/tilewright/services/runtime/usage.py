"""What a process group uses: CPU time and resident memory of a process and everything it started."""

from __future__ import annotations

import msgspec
import psutil


class Usage(msgspec.Struct, frozen=True):
    """CPU seconds since the start, and resident bytes now, all processes together."""

    cpu_seconds: float
    resident_bytes: int


def usage(pid: int) -> Usage:
    """Usage of a process and its descendants; zero when it is gone."""
    cpu, resident = 0.0, 0
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        processes = []
    for process in processes:
        try:
            with process.oneshot():
                times = process.cpu_times()
                # Of children that have ended and were waited for, only their parent still knows.
                cpu += times.user + times.system + getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
                resident += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return Usage(cpu, resident)
