"""The engine in C: compiled on first use with the system's compiler, kept in the user's cache folder; without a compiler, None.

It is `timing.simulate` again, some hundred times faster and with the same results bit for bit (tests compare them on random
programs); memory stays bounded, because cycles that are past are forgotten.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from tilewright.protocol.errors import InvalidInput

from . import execute, front, load, store
from .commands import Command
from .log import EVENTS, Span
from .loop_conv import LoopConv
from .loop_matmul import LoopMatmul
from .machine import Machine
from .packed import KINDS, machine_words, pack
from .station import KINDS as CONTROLLERS
from .timing import END, FENCE, Outcome, never_ends, never_enters, simulate

COMPILERS = ("cc", "gcc", "clang")
#: Fused multiplications would round other than Python does.
FLAGS = ("-O2", "-std=c11", "-shared", "-fPIC", "-ffp-contract=off")
LIMIT_S = 120
UNITS = {"front end": front.CAUSES, "array": execute.CAUSES, "load": load.CAUSES, "store": store.CAUSES}
ENDED, STUCK = 0, 1


def run(machine: Machine, program: Sequence[Command | LoopMatmul | LoopConv], first_half: int = 0, spans: bool = False) -> Outcome:
    """`timing.simulate`, in C where that can be compiled."""
    function = engine()
    return simulate(machine, program, first_half, spans) if function is None else call(function, machine, program, first_half, spans)


@cache
def engine() -> Callable[..., int] | None:
    """The engine's entry point; None without a compiler, or where the cache folder cannot be written."""
    sources = {path.name: path.read_bytes() for path in (resources.files(__package__) / "engine").iterdir()}
    where = sys.platform + platform.machine()
    digest = hashlib.sha256(repr((sorted(sources.items()), FLAGS, where)).encode()).hexdigest()[:16]
    library = Path(platformdirs.user_cache_dir("tilewright"), f"gemmini-{digest}.so")
    compiler = next((found for found in map(shutil.which, COMPILERS) if found), None)
    try:
        if not library.exists():
            if compiler is None:
                return None
            build(compiler, sources, library)
        function: Any = ctypes.CDLL(str(library)).tilewright_gemmini
    except (OSError, subprocess.SubprocessError, AttributeError):
        return None
    function.restype = ctypes.c_int
    return function  # type: ignore[no-any-return]


def build(compiler: str, sources: dict[str, bytes], library: Path) -> None:
    """Compile the engine; who looks at `library` meanwhile sees nothing, or all of it."""
    library.parent.mkdir(parents=True, exist_ok=True)
    environment = {name: os.environ[name] for name in ("PATH", "TMPDIR", "HOME") if name in os.environ}
    with tempfile.TemporaryDirectory(prefix="tilewright-gemmini-", dir=library.parent) as folder:
        for name, text in sources.items():
            Path(folder, name).write_bytes(text)
        command = [compiler, *FLAGS, "engine.c", "-o", library.name]
        subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=LIMIT_S, check=True)
        Path(folder, library.name).replace(library)


def call(
    function: Callable[..., int], machine: Machine, program: Sequence[Command | LoopMatmul | LoopConv], first_half: int, spans: bool
) -> Outcome:
    """Run the engine on a program."""
    packed = pack(program, machine, first_half)
    words = machine_words(machine)
    out = np.zeros(64, np.int64)
    ends = np.zeros(len(program), np.int64)
    room = packed.total if spans else 0
    made = np.zeros((room, len(Span._fields)), np.int64)

    def at(array: np.ndarray[Any, Any]) -> ctypes.c_void_p:
        return ctypes.c_void_p(array.ctypes.data)

    verdict = function(
        at(words), ctypes.c_double(machine.memory.dram_bytes_per_cycle), at(packed.table), at(packed.templates), at(packed.items),
        ctypes.c_int64(len(program)), at(out), at(ends), at(made), ctypes.c_int64(room),
    )  # fmt: skip
    figures = out.tolist()
    if verdict == STUCK:
        raise _stuck(figures)
    if verdict != ENDED:
        raise never_enters(figures[0])
    cycles = figures[0] + FENCE + machine.call_overhead
    taken = iter(figures[2:])
    events = {name: next(taken) for name in EVENTS}
    attribution = {unit: {cause: next(taken) + (cycles if cause == END else 0) for cause in causes} for unit, causes in UNITS.items()}
    loops = sum(isinstance(command, LoopMatmul | LoopConv) for command in program)
    return Outcome(cycles, events, attribution, tuple(ends[:loops].tolist()), tuple(Span(*row) for row in made[: figures[1]].tolist()))


def _stuck(figures: list[int]) -> InvalidInput:
    index, controller, dram, kind, *fields = figures
    made: Any = next(each for each, code in KINDS.items() if code == kind)
    command = made(*fields[: len(made._fields)]) if len(made._fields) < 9 else made(fields[0])
    if dram:
        command = command._replace(dram=dram)
    return never_ends(index, command, CONTROLLERS[controller])
