"""Many distinct tasks that take a second each and write down every execution; the fault campaigns put this folder on the path."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import ClassVar

from tilewright.protocol.cost import Claim
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.plugin import Candidate, Context, MapRequest, Options
from tilewright.protocol.workload import Workload, matmul


class Frontend:
    """``tasks`` distinct matrix products."""

    options: ClassVar[dict[str, str]] = {"tasks": "how many (40)"}

    def models(self) -> Sequence[str]:
        """The one model."""
        return ("slow-net",)

    def load(self, source: str, options: Options) -> Workload:
        """Build it."""
        return Workload.build(source, [(f"layer{i}", matmul(p=i + 1, c=8, k=8)) for i in range(int(options.get("tasks", 40)))])


class Mapper:
    """One mapping after a second of work."""

    options: ClassVar[dict[str, str]] = {
        "seconds": "how long it works (1)",
        "spin": "use the CPU meanwhile (false)",
        "log": "file that gets a line when work starts and one when it ends",
    }

    def search(self, request: MapRequest, ctx: Context) -> Iterator[Candidate]:
        """Yield the one mapping."""
        rows = request.operator.bounds["P"]
        note(str(request.options["log"]), f"start {os.getpid()} {rows}")
        until = time.monotonic() + float(request.options.get("seconds", 1))
        while time.monotonic() < until and not ctx.cancelled:
            ctx.progress("working")
            if request.options.get("spin"):
                sum(range(400_000))
            else:
                time.sleep(0.02)
        loops = tuple(Loop(dim.name, dim.bound) for dim in request.operator.dims if dim.bound > 1)
        kept = [LevelMapping(level.name, keep=level.keeps) for level in request.architecture.levels]
        yield Candidate(Mapping((*kept[:-1], LevelMapping(kept[-1].level, temporal=loops, keep=kept[-1].keep))), Claim("best found", "one"))
        note(str(request.options["log"]), f"end {os.getpid()} {rows}")


def note(path: str, line: str) -> None:
    """Append a line in one write, whole even when several processes do."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)
