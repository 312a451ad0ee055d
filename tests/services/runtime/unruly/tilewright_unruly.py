"""A mapper that misbehaves in the way that its options say."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from tilewright.protocol.cost import Claim
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.plugin import Candidate, MapRequest

#: Part of what it says; tests edit this line.
ACCENT = "plain"


def mapping_of(request: MapRequest) -> Mapping:
    """All loops outermost."""
    names = tuple(tensor.name for tensor in request.operator.tensors)
    levels = [LevelMapping(level.name, keep=names) for level in request.architecture.levels]
    levels[-1] = LevelMapping(levels[-1].level, temporal=tuple(Loop(dim.name, dim.bound) for dim in request.operator.dims), keep=names)
    return Mapping(tuple(levels))


def handles() -> dict[int, str]:
    """What this process has open."""
    found = {}
    for handle in Path("/proc/self/fd").iterdir():
        try:
            found[int(handle.name)] = str(handle.readlink())
        except FileNotFoundError:
            continue
    return found


class Unruly:
    """`do` names a method; `folder` is where it leaves traces."""

    options: ClassVar[dict[str, str]] = {"do": "what to do", "folder": "where to leave traces", "label": "tells jobs apart"}

    def search(self, request: MapRequest, ctx: Any) -> Iterator[Candidate]:
        self.ctx = ctx
        self.folder = Path(str(request.options["folder"]))
        self.label = str(request.options.get("label", "job"))
        with (self.folder / f"{self.label}.started").open("a") as file:
            file.write(f"{os.getpid()}\n")
        ctx.charge(1)
        if request.options.get("do") == "yield first":
            yield Candidate(mapping_of(request))
            while not ctx.cancelled:
                time.sleep(0.01)
            return
        if request.options.get("do") == "yield once":
            marker = self.folder / f"{self.label}.yielded"
            if not marker.exists():
                marker.touch()
                yield Candidate(mapping_of(request))
            while not ctx.cancelled:
                time.sleep(0.01)
            return
        getattr(self, str(request.options.get("do", "work")).replace(" ", "_"))()
        yield Candidate(mapping_of(request), Claim())

    def work(self) -> None:
        self.ctx.progress(f"working, {ACCENT}")

    def exit(self) -> None:
        os._exit(3)

    def die(self) -> None:
        print("these are my last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    def crash(self) -> None:
        ctypes.string_at(0)

    def crash_once(self) -> None:
        try:
            (self.folder / f"{self.label}.crashed").touch(exist_ok=False)
        except FileExistsError:
            return
        os._exit(4)

    def fail(self) -> None:
        raise ValueError(f"it is no use, {self.label}")

    def leave(self) -> None:
        sys.exit(7)

    def hang(self) -> None:
        time.sleep(600)

    def spin(self) -> None:
        while True:
            pass

    def eat(self) -> None:
        eaten = []
        while True:
            eaten.append(bytearray(os.urandom(1 << 20) * 16))
            time.sleep(0.01)

    def tell(self) -> None:
        print("a word", flush=True)
        print("another word", file=sys.stderr, flush=True)

    def babble(self) -> None:
        for handle, target in handles().items():
            if handle > 2 and target.startswith("pipe:"):
                try:
                    os.write(handle, b"\x00\x00\x00\x04 no!")
                except OSError:
                    continue
        time.sleep(600)

    def look_around(self) -> None:
        found = {"environment": dict(os.environ), "handles": handles(), "path": sys.path}
        (self.folder / "found.json").write_text(json.dumps(found))

    def breed(self) -> None:
        """Start a process that ignores SIGTERM, then wait for it."""
        code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout
        process.stdout.readline()
        (self.folder / f"{self.label}.bred").write_text(str(process.pid))
        process.wait()

    def breed_and_die(self) -> None:
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (self.folder / f"{self.label}.bred").write_text(str(process.pid))
        os._exit(5)

    def detach(self) -> None:
        """Start a process that leaves the group and keeps our output open."""
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        (self.folder / f"{self.label}.bred").write_text(str(process.pid))
        os._exit(6)

    def wait(self) -> None:
        """Work until the test says so."""
        while not (self.folder / f"{self.label}.go").exists():
            self.ctx.progress("waiting")
            time.sleep(0.01)

    def differ(self) -> None:
        """Give an answer that depends on the process, at the same time as another one."""
        self.ctx.charge(os.getpid())
        (self.folder / f"{os.getpid()}.here").touch()
        while len(list(self.folder.glob("*.here"))) < 2:
            time.sleep(0.01)


class Unable:
    """A mapper that is not one."""

    options: ClassVar[dict[str, str]] = {}
