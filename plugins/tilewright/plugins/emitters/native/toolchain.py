"""Compiles and runs C programs, in a folder of their own, by argument lists only."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tilewright.protocol.errors import TilewrightError
from tilewright.protocol.kernel import InstructionLibrary, Toolchain

#: English messages, and one thread for any BLAS.
_SINGLE = {"LC_ALL": "C", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
#: Seconds a compiler or a test program may take.
LIMIT_S = 120


class TooSlow(TilewrightError):
    """A compiler or a test program did not end in time."""


@dataclass(frozen=True)
class Ready:
    """A toolchain whose compiler (and runner, and headers) are on this machine."""

    toolchain: Toolchain
    compiler: str

    @property
    def name(self) -> str:
        """What the compiler says it is, e.g. ``gcc 12.2.0``, and what runs its programs where that is not the machine itself."""
        through = "" if self.toolchain.name == "native" else f" ({self.toolchain.name})"
        return _version(self.compiler) + through


@dataclass(frozen=True)
class Missing:
    """Why a library's programs cannot be built or run here."""

    reason: str


@dataclass(frozen=True)
class Outcome:
    """What a program did; `returncode` is None when it could not be built."""

    returncode: int | None
    output: bytes
    error: str


def find(library: InstructionLibrary) -> Iterator[Ready | Missing]:
    """Each toolchain of a library with its first compiler on PATH, or what it lacks."""
    for toolchain in library.toolchains:
        lack = _lack(toolchain)
        yield Missing(lack) if lack else Ready(toolchain, next(filter(shutil.which, toolchain.compilers)))


def cpu() -> str:
    """The processor of this machine, as exactly as it says."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return f"{platform.machine()} {platform.processor()}".strip()
    named = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*: (.+)$", text, re.MULTILINE)
    # Virtual machines hide the model's name, and may hide instructions.
    vectors = " ".join(sorted(flag for flag in (flags[1].split() if flags else ()) if flag.startswith(("avx", "fma", "asimd"))))
    return f"{platform.machine()} {named[1] if named else ''} {vectors}".strip()


def _lack(toolchain: Toolchain) -> str:
    """What a toolchain lacks here; empty when nothing."""
    if platform.machine() not in toolchain.machines:
        return f"{toolchain.name} programs do not run on {platform.machine()}"
    if not any(map(shutil.which, toolchain.compilers)):
        return f"no C compiler ({', '.join(toolchain.compilers)})"
    if toolchain.runner and not shutil.which(toolchain.runner[0]):
        return f"no {toolchain.runner[0]}"
    return next((f"no {path}" for path in toolchain.needs if not Path(path).exists()), "")


@cache
def _version(compiler: str) -> str:
    text = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=LIMIT_S, check=False, env=_environment()).stdout
    version = re.search(r"\b\d+\.\d+\.\d+", text)
    return f"{Path(compiler).name} {version[0] if version else ''}".strip()


def build_and_run(
    ready: Ready,
    files: Mapping[str, str],
    main: tuple[str, ...],
    stdin: bytes = b"",
    arguments: tuple[str, ...] = (),
    libraries: tuple[str, ...] = (),
) -> Outcome:
    """Write `files` into a temporary folder, compile those of `main` into one program and run it there."""
    with tempfile.TemporaryDirectory(prefix="tilewright-kernel-") as folder:
        for name, text in files.items():
            Path(folder, name).write_text(text)
        command = [ready.compiler, *ready.toolchain.flags, "-I", folder, *main, "-o", "program", "-lm", *libraries]
        try:
            # Every file is compiled in turn.
            built = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S * len(main), check=False, env=_environment()
            )
            if built.returncode:
                return Outcome(None, b"", built.stderr)
            program = [*ready.toolchain.runner, str(Path(folder, "program")), *arguments]
            ran = subprocess.run(program, cwd=folder, input=stdin, capture_output=True, timeout=LIMIT_S, check=False, env=_environment())
        except subprocess.TimeoutExpired as late:
            raise TooSlow(f"{ready.name}: {Path(late.cmd[0]).name} took more than {late.timeout:.0f} s") from None
        return Outcome(ran.returncode, ran.stdout, ran.stderr.decode(errors="replace"))


def _environment() -> dict[str, str]:
    """The little a compiler needs; nothing else of ours is passed on."""
    return {name: os.environ[name] for name in ("PATH", "TMPDIR", "HOME") if name in os.environ} | _SINGLE
