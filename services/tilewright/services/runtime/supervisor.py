"""The embedded supervisor: one detached process per state folder that runs the server and the services.

``python -m tilewright.services.runtime.supervisor FOLDER`` returns once everything answers (or says why it does not) and
leaves the supervisor behind. It starts services when a run needs them, restarts what dies, and leaves when no client is
connected, no run is live and nobody asked it to stay.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tilewright.protocol.bootstrap import bootstrap
from tilewright.protocol.bus import Bus, BusSettings
from tilewright.protocol.errors import InvalidMessage, TilewrightError
from tilewright.protocol.keys import message_id
from tilewright.protocol.messages import Event, Submit, pack, unpack
from tilewright.protocol.run import closure
from tilewright.protocol.subjects import PIPELINE, RUN_STREAM, SERVICES, STAGES, SUBMIT, Stage, event_subject

from . import settings as runtime_settings
from .children import Child
from .embedded import POLL, Record, StateFolder, installation
from .nats_server import NatsServer, StoreInUse
from .runs import Runs

#: Seconds without clients and live runs after which the supervisor leaves.
GRACE = 3.0
#: Seconds between two looks at the clients' lock.
TICK = 0.5
#: Seconds that a starting supervisor waits for its lock: a client that only asks who holds it has it for a moment.
LOCK_PATIENCE = 1.0
#: Seconds that a starting supervisor waits for the server of one that was killed.
STORE_PATIENCE = 10.0
#: Bytes above which a log is started anew.
LOG_LIMIT = 4 << 20
#: Times that a starting supervisor begins again because its server died.
OPEN_ATTEMPTS = 3
#: Times in a row that the server may fail to come back on its port.
SERVER_ATTEMPTS = 20


class Supervisor:
    """The server, the services, and the decision to leave."""

    def __init__(self, folder: StateFolder, server: NatsServer, settings: BusSettings, bus: Bus) -> None:
        self._folder = folder
        self._server = server
        self._settings = settings
        self._bus = bus
        self._children: dict[str, Child] = {}
        self._live: set[str] = set()
        self._over: set[str] = set()
        #: Runs that were submitted before our eyes and have no state yet.
        self._heard: set[str] = set()
        self._news: set[asyncio.Task[None]] = set()
        self.leaving = asyncio.Event()

    async def run(self) -> None:
        """Supervise until there is no reason to stay, or `leaving` is set."""
        watchers = [asyncio.create_task(each) for each in (self._hear(), self._watch_server(), self._decide())]
        leaving = asyncio.create_task(self.leaving.wait())
        done, _ = await asyncio.wait([*watchers, leaving], return_when=asyncio.FIRST_COMPLETED)
        for task in (*watchers, leaving):
            task.cancel()
        self._folder.forget()
        await asyncio.wait([*watchers, leaving])
        await asyncio.gather(*(child.stop() for child in self._children.values()))
        for task in done:
            task.result()

    def want(self, stages: Iterable[Stage]) -> None:
        """Start the pipeline and the services of some stages, those that do not run yet."""
        for name in (PIPELINE, *(SERVICES[stage] for stage in closure(stages))):
            if name not in self._children:
                command = [sys.executable, "-P", "-m", "tilewright.services.runtime.serve", name]
                self._children[name] = Child(name, command, self._environment(name), log_file(self._folder, name), self._report)

    def _environment(self, service: str) -> dict[str, str]:
        """The environment of a service: ours, with the way to the server, and one slot per CPU where tasks are many."""
        own = {"TILEWRIGHT_NATS_URL": self._settings.url, "TILEWRIGHT_NATS_TOKEN_FILE": str(self._folder.token)}
        many = {"TILEWRIGHT_SLOTS": str(os.cpu_count() or 1)} if service in (SERVICES["map"], SERVICES["kernel"]) else {}
        return {**many, **os.environ, **own}

    def _report(self, text: str) -> None:
        """Tell the log and everybody who watches a live run."""
        print(text, file=sys.stderr, flush=True)
        task = asyncio.create_task(self._tell(text))
        self._news.add(task)
        task.add_done_callback(self._news.discard)

    async def _tell(self, text: str) -> None:
        await self._look()
        for run in self._live | self._heard:
            subject, unique = event_subject(run, "run", "-", "log"), message_id(run, "-", 0, secrets.token_hex(8))
            await self._bus.emit(subject, pack(Event(text=text), run), unique)

    async def _hear(self) -> None:
        """Start what a submitted run needs the moment it is submitted."""
        async for data in self._bus.listen(SUBMIT):
            try:
                envelope, message = unpack(data)
            except InvalidMessage as error:
                self._report(f"submitted: {error}")
                self.want(())
                continue
            self._heard.add(envelope.run)
            self.want(message.request.stages if isinstance(message, Submit) else ())

    async def _watch_server(self) -> None:
        """Restart the server on its port, from its store, whenever it dies."""
        failures = 0
        while failures < SERVER_ATTEMPTS:
            await self._server.died()
            print("nats-server died; it starts again", file=sys.stderr, flush=True)
            try:
                await self._server.start()
                failures = 0
            except TilewrightError as error:
                failures += 1
                print(f"nats-server does not start: {error}", file=sys.stderr, flush=True)
                await asyncio.sleep(0.1 * failures)
        raise TilewrightError(f"nats-server failed to start {failures} times in a row")

    async def _decide(self) -> None:
        """Serve what was live when we came, then leave when nobody and nothing needs us."""
        await self._look()
        needed = time.monotonic()
        while True:
            await asyncio.sleep(TICK)
            if self._folder.stay:
                self.want(STAGES)
            clients = self._folder.lock_clients(shared=False)
            try:
                if clients is None or self._folder.stay or await self._look():
                    needed = time.monotonic()
                elif time.monotonic() - needed >= GRACE:
                    clients = None  # the lock is kept: whoever comes now waits until we are gone, then starts the next supervisor
                    return
            finally:
                if clients is not None:
                    os.close(clients)

    async def _look(self) -> bool:
        """True while a run is live; starts what live runs need."""
        try:
            runs = await Runs.open(self._bus)
            stored = [await runs.read(run) for run in await runs.ids() if run not in self._over]
            states = [each.state for each in stored if each is not None]
            waiting = sum(await self._bus.lag(RUN_STREAM))
        except TilewrightError as error:  # the server is being restarted; the clients' lock decides meanwhile
            print(f"looking for live runs: {error}", file=sys.stderr, flush=True)
            return True
        self._over.update(state.run for state in states if not state.active)
        self._live = {state.run for state in states if state.active}
        for state in states:
            if state.active:
                self.want(stage.stage for stage in state.stages)
        self._heard -= self._live | self._over
        if waiting > len(self._heard):  # submitted while we were not there: nobody knows for what
            self.want(STAGES)
        return bool(self._live) or waiting > 0


def log_file(folder: StateFolder, name: str) -> Path:
    """The log of one process; a large one starts anew."""
    path = folder.logs / f"{name}.log"
    if path.exists() and path.stat().st_size > LOG_LIMIT:
        path.replace(path.with_suffix(".log.1"))
    return path


async def supervise(folder: StateFolder, ready: Callable[[], None]) -> None:
    """Run the house of a state folder; `ready` is called once it answers."""
    folder.forget()
    server = NatsServer(folder.store)
    try:
        settings, bus = await _open(server)
        async with bus:
            supervisor = Supervisor(folder, server, settings, bus)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, supervisor.leaving.set)
            folder.announce(Record(os.getpid(), settings.url, settings.token, installation()))
            ready()
            await supervisor.run()
    finally:
        folder.forget()
        await server.stop()


async def _open(server: NatsServer) -> tuple[BusSettings, Bus]:
    """Start the server, connect and bootstrap; all over again when it dies meanwhile, a few times."""
    attempts = 0
    while True:
        attempts += 1
        try:
            settings = await _start(server)
            bus = await Bus.connect(settings)
            try:
                await bootstrap(bus, ack_wait=runtime_settings.load().ack_wait)
            except BaseException:
                await bus.close()
                raise
            return settings, bus
        except TilewrightError as error:
            if server.alive or attempts == OPEN_ATTEMPTS:
                raise
            print(f"the server did not stay: {error}; it starts again", file=sys.stderr, flush=True)


async def _start(server: NatsServer) -> BusSettings:
    """Start the server; that of a supervisor which was killed may need a moment to end."""
    until = time.monotonic() + STORE_PATIENCE
    while True:
        try:
            return await server.start()
        except StoreInUse:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(POLL)


def _lock(folder: StateFolder) -> int | None:
    until = time.monotonic() + LOCK_PATIENCE
    while (lock := folder.lock_supervisor()) is None and time.monotonic() < until:
        time.sleep(POLL)
    return lock


def _detached(folder: StateFolder, tell: int) -> None:
    """What the detached process does; it writes to the pipe `tell` how the start went, and closes it."""
    os.setsid()
    os.chdir(folder.path)
    with log_file(folder, "supervisor").open("ab") as log, open(os.devnull, "rb") as nothing:  # noqa: PTH123 (not a file of ours)
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    lock = _lock(folder)
    if lock is None:  # somebody else is the supervisor
        os.close(tell)
        return
    told = False

    def ready() -> None:
        nonlocal told
        told = True
        os.close(tell)

    try:
        asyncio.run(supervise(folder, ready))
    except BaseException as error:
        if not told:
            os.write(tell, f"{error}".encode())
            os.close(tell)
        raise


def main() -> int:
    """Fork the supervisor off and wait until it answers; 0, or 1 with the reason on standard error."""
    folder = StateFolder(Path(sys.argv[1]))
    listen, tell = os.pipe()
    if os.fork() == 0:
        os.close(listen)
        _detached(folder, tell)
        return 0
    os.close(tell)
    with os.fdopen(listen, "rb") as pipe:
        reason = pipe.read().decode(errors="replace")
    if reason:
        print(reason, file=sys.stderr)
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main())
