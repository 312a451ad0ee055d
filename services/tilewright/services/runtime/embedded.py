"""The embedded house, seen from a client: join the supervisor of a state folder, or start one.

The state folder holds::

    nats/             the server's store: runs and results survive in it
    log/              what the supervisor, the server and the services say
    supervisor.lock   flocked by the supervisor for as long as it lives
    clients.lock      share-locked by every connected client; nobody holds it: the supervisor may leave
    embedded.json     0600: where the server listens, with its token; written once everything answers
    token             0600: the token alone, for the services
    stay              exists: `up` asked the supervisor to stay without clients

Locks belong to processes, so whatever is killed lets go of them; a stale ``embedded.json`` is one whose lock nobody holds.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from tilewright.protocol.bus import BusSettings
from tilewright.protocol.errors import NoConnection

#: Seconds between two looks at a lock or a file.
POLL = 0.02
#: Seconds that a supervisor may take to come up, or to leave.
PATIENCE = 30.0


class Record(msgspec.Struct, frozen=True):
    """Contents of ``embedded.json``."""

    pid: int
    url: str
    token: str
    #: What the services run: see `installation`.
    installation: str


def installation() -> str:
    """This installation: services of another one may lack the plugins that were looked up here."""
    return f"tilewright {version('tilewright')} in {sys.prefix}"


class StateFolder:
    """Paths and locks of one state folder."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().resolve()
        self.store = self.path / "nats"
        self.logs = self.path / "log"
        self.token = self.path / "token"
        self._record = self.path / "embedded.json"
        self._stay = self.path / "stay"
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.logs.mkdir(exist_ok=True)
        except OSError as error:
            raise NoConnection(
                f"state folder {self.path}: {error.strerror}; set TILEWRIGHT_STATE to a folder that can be written"
            ) from error

    @property
    def record(self) -> Record | None:
        """What the last supervisor wrote; it may be stale."""
        try:
            return msgspec.json.decode(self._record.read_bytes(), type=Record)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def announce(self, record: Record) -> None:
        """Write the record and the token, readable by their owner only, each in one step."""
        for path, data in ((self.token, record.token.encode()), (self._record, msgspec.json.encode(record))):
            draft = path.with_suffix(".new")
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
            draft.replace(path)

    def forget(self) -> None:
        """Remove the record."""
        self._record.unlink(missing_ok=True)

    @property
    def stay(self) -> bool:
        """True when `up` asked the supervisor to stay."""
        return self._stay.exists()

    @stay.setter
    def stay(self, value: bool) -> None:
        if value:
            self._stay.touch()
        else:
            self._stay.unlink(missing_ok=True)

    def lock_supervisor(self, *, shared: bool = False) -> int | None:
        """The supervisor's lock as a file descriptor, or None when somebody holds it. `shared` asks whether anybody does."""
        return _lock(self.path / "supervisor.lock", fcntl.LOCK_SH if shared else fcntl.LOCK_EX)

    def lock_clients(self, *, shared: bool) -> int | None:
        """The clients' lock: `shared` for a client, exclusive for a supervisor that wants to leave."""
        return _lock(self.path / "clients.lock", fcntl.LOCK_SH if shared else fcntl.LOCK_EX)

    @property
    def supervised(self) -> bool:
        """True while a supervisor lives."""
        lock = self.lock_supervisor(shared=True)
        if lock is None:
            return True
        os.close(lock)
        return False


def _lock(path: Path, kind: int) -> int | None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


class Membership:
    """A client's hold on the embedded house: while it is open the supervisor stays."""

    def __init__(self, settings: BusSettings, lock: int) -> None:
        self.settings = settings
        self._lock = lock

    def close(self) -> None:
        """Let go."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def join(folder: StateFolder, *, patience: float = PATIENCE) -> Membership:
    """Join the supervisor of a folder, starting one if there is none; `NoConnection` says why it could not be."""
    until = time.monotonic() + patience
    while True:
        with ExitStack() as held:
            lock = _take_share(folder, until)
            held.callback(os.close, lock)
            record = _reach(folder, until)
            if record.installation == installation():
                held.pop_all()
                return Membership(BusSettings(url=record.url, token=record.token, name="tilewright-cli"), lock)
        _replace(folder, record, until)


def _reach(folder: StateFolder, until: float) -> Record:
    """The record of the supervisor that lives, started if there is none."""
    while True:
        if not folder.supervised:
            _start(folder, until)
        record = folder.record
        # A living supervisor without a record is on its way up; with a foreign one, its predecessor was killed.
        if record is not None and folder.supervised and _alive(record.pid):
            return record
        _wait(until, f"the supervisor of {folder.path} does not come up; see {folder.logs / 'supervisor.log'}")


def stop(folder: StateFolder, *, patience: float = PATIENCE) -> bool:
    """Ask the supervisor of a folder to leave and wait until it has; False when there was none."""
    folder.stay = False
    until = time.monotonic() + patience
    asked = False
    while folder.supervised:
        record = folder.record
        if record is not None and not asked:
            asked = _terminate(record.pid)
        _wait(until, f"the supervisor of {folder.path} does not leave; see {folder.logs / 'supervisor.log'}")
    return asked


def _replace(folder: StateFolder, record: Record, until: float) -> None:
    """Make the supervisor of another installation leave, unless somebody needs it; live runs go on with the next one."""
    lock = None if folder.stay else folder.lock_clients(shared=False)
    if lock is None:
        raise NoConnection(
            f"the services of {folder.path} are those of {record.installation}, and in use; "
            "stop them with `tilewright down`, or set TILEWRIGHT_STATE to a folder of your own"
        )
    try:
        _terminate(record.pid)
        while folder.supervised:
            _wait(until, f"the supervisor of {folder.path} does not leave; see {folder.logs / 'supervisor.log'}")
    finally:
        os.close(lock)


def _take_share(folder: StateFolder, until: float) -> int:
    while (lock := folder.lock_clients(shared=True)) is None:
        _wait(until, f"the supervisor of {folder.path} does not leave; see {folder.logs / 'supervisor.log'}")
    return lock


def _wait(until: float, complaint: str) -> None:
    if time.monotonic() > until:
        raise NoConnection(complaint)
    time.sleep(POLL)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):  # gone, or a process of somebody else's by now
        return False
    return True


def _terminate(pid: int) -> bool:
    """Ask a process to end; False when it has ended already."""
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return False
    return True


def _start(folder: StateFolder, until: float) -> None:
    """Start a supervisor; returns once it is up, another one was faster, or it was killed."""
    command = [sys.executable, "-P", "-m", "tilewright.services.runtime.supervisor", str(folder.path)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=max(1.0, until - time.monotonic()), check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NoConnection(f"the supervisor of {folder.path} does not come up; see {folder.logs / 'supervisor.log'}") from error
    # One that was killed says nothing about the next: who waits for it starts another, as long as it has patience.
    if done.returncode > 0:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise NoConnection(f"the embedded server did not start: {reason}; see {folder.logs / 'supervisor.log'}")
