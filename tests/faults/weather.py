"""Bad weather at random, from a seed: lines that are late, deaf, half open or reset, processes that are killed or stopped for longer
than ack_wait, servers that are killed, a store that is full, messages that nobody can read.

One round is a run of 32 distinct tasks on two workers and two pipeline replicas, each on a line of its own to the server (one, or a
cluster of three). It must end as an undisturbed one: every task recorded once, the same digest, nothing queued.

    python tests/faults/weather.py --rounds 100 --seed 1            # one server
    python tests/faults/weather.py --rounds 10 --seed 1 --cluster   # three servers, three copies

prints a line per round, with the recovery times, and ends with 1 if any went wrong.
"""

# ruff: noqa: ASYNC110 (what is waited for happens in other processes)
from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import psutil
from nats.errors import Error as NatsError
from nats.js.errors import APIError
from tests.faults.proxy import Proxy
from tests.protocol.test_bus_cluster import Cluster

from tilewright.protocol import subjects
from tilewright.protocol.bootstrap import bootstrap
from tilewright.protocol.bus import Bus, BusSettings
from tilewright.protocol.errors import TilewrightError
from tilewright.protocol.messages import RunRequest
from tilewright.protocol.subjects import Limits
from tilewright.services.runtime.nats_server import NatsServer
from tilewright.services.runtime.runs import Runs, digest, submit

SLOW = Path(__file__).parents[1] / "data" / "slow"
TASKS, SECONDS = 32, 1.0
ACK_WAIT = 2.0
#: Name of a process -> what it serves.
ROLES = {"profiler": "profiler", "pipeline 0": "pipeline", "pipeline 1": "pipeline", "mapper 0": "mapper", "mapper 1": "mapper"}
WORKERS = ("mapper 0", "mapper 1", "pipeline 0", "pipeline 1")
#: Faults of one round.
FAULTS = 10
#: Seconds after which a round is given up.
PATIENCE = 180.0
#: A stream that fills the store, and its message.
FILLER, FILL = "FILLER", bytes(512 * 1024)
STORE = 72 << 20
#: Room for little, so that the rest is soon used up.
LIMITS = Limits(result_bytes=1 << 23, blob_bytes=1 << 23, event_bytes=1 << 22, queue_bytes=1 << 22, checkpoint_bytes=1 << 22)


class Servers:
    """One server, or three."""

    def __init__(self, folder: Path, cluster: bool) -> None:
        self._one = None if cluster else NatsServer(folder / "nats", max_file_store=STORE)
        self._three = Cluster(folder) if cluster else None
        self.copies = 3 if cluster else 1

    async def start(self) -> BusSettings:
        if self._one is not None:
            return await self._one.start()
        assert self._three is not None
        for index in range(3):
            self._three.start(index)
        return self._three.settings

    async def crash(self, chance: random.Random) -> None:
        """Kill one; it comes back a moment later."""
        if self._one is not None:
            await self._one.kill()
            await asyncio.sleep(chance.uniform(0.1, 1.0))
            await self._one.start()
            return
        assert self._three is not None
        index = chance.randrange(3)
        self._three.kill(index)
        await asyncio.sleep(chance.uniform(0.1, 1.0))
        self._three.start(index)

    async def stop(self) -> None:
        if self._one is not None:
            await self._one.stop()
        if self._three is not None:
            self._three.stop()


class Round:
    """The house of one run, and what was done to it."""

    def __init__(self, folder: Path, seed: int, *, cluster: bool) -> None:
        self.folder = folder
        self.chance = random.Random(seed)
        self.servers = Servers(folder, cluster)
        self.cluster = cluster
        self.log: list[str] = []
        self.faults: Counter[str] = Counter()
        #: Seconds from the death of a worker until its task was started again, and from a server's return until it answered.
        self.recovery: dict[str, list[float]] = {"task": [], "server": []}
        self._proxies: dict[str, Proxy] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._watching: set[asyncio.Task[None]] = set()
        self._settings = BusSettings(url="")

    @property
    def notes(self) -> Path:
        """Where the mapper writes down its executions."""
        return self.folder / "executions"

    def executions(self) -> list[tuple[str, int, int]]:
        """(start or end, process, task), in order."""
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        return [(kind, int(pid), int(task)) for kind, pid, task in map(str.split, lines)]

    def spawn(self, name: str) -> None:
        """Start a process on its line (in a cluster: on all servers, which tell clients of each other anyway)."""
        url = self._settings.url if self.cluster else f"nats://127.0.0.1:{self._proxies[name].port}"
        kept = {each: value for each, value in os.environ.items() if not each.startswith("TILEWRIGHT_")}
        (self.folder / "token").write_text(self._settings.token)
        own = {
            "TILEWRIGHT_NATS_URL": url,
            **({} if self.cluster else {"TILEWRIGHT_NATS_TOKEN_FILE": str(self.folder / "token")}),
            "TILEWRIGHT_ACK_WAIT": str(ACK_WAIT),
            "TILEWRIGHT_RETRY_DELAY": "0.2",
            "TILEWRIGHT_RECONCILE_EVERY": "2",
            "TILEWRIGHT_SLOTS": "2",
            "PYTHONPATH": os.pathsep.join([str(SLOW), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-P", "-m", "tilewright.services.runtime.serve", ROLES[name]]
            self._processes[name] = subprocess.Popen(command, env=kept | own, stdout=log, stderr=log)

    async def play(self, *, faults: int) -> str:
        """The digest of the run, once it has ended well; AssertionError says what went wrong."""
        self._settings = await self.servers.start()
        keeping: asyncio.Task[None] | None = None
        try:
            async with await Bus.connect(msgspec.structs.replace(self._settings, connect_timeout=30.0)) as bus:
                await _until(lambda: bootstrap(bus, LIMITS, replicas=self.servers.copies, ack_wait=ACK_WAIT))
                for name in ROLES:
                    host, _, port = self._settings.url.split(",")[0].removeprefix("nats://").rpartition(":")
                    self._proxies[name] = Proxy(host, int(port))
                    await self._proxies[name].open()
                    self.spawn(name)
                keeping = asyncio.create_task(self._keep())
                options = {"seconds": SECONDS, "log": str(self.notes)}
                frontend = {"tasks": TASKS}
                run = await submit(
                    bus,
                    RunRequest("slow-net", "gemmini", "slow", frontend, stages=("map",), mapper="slow", mapper_options=options),  # type: ignore[arg-type]
                )
                async with asyncio.timeout(PATIENCE):
                    await self._storm(bus, run, faults)
                    return await self._judge(bus, run)
        except TimeoutError:
            raise AssertionError(f"the run is not over after {PATIENCE:g} s\n" + "\n".join(self.log)) from None
        finally:
            await self._close(keeping)

    async def _keep(self) -> None:
        """What an orchestrator does: start again whatever ended."""
        while True:
            await asyncio.sleep(0.2)
            for name, process in self._processes.items():
                if process.poll() is not None:
                    self.spawn(name)

    async def _storm(self, bus: Bus, run: str, faults: int) -> None:
        """One fault after the other, until there were enough or the run is over."""
        while faults and not self.executions():
            await asyncio.sleep(0.05)
        kinds: list[Callable[[Bus], Awaitable[str]]] = [self._kill, self._pause, self._garbage, self._crash]
        kinds += [] if self.cluster else [self._line, self._line, self._line, self._fill]
        while self.faults.total() < faults and await self._active(bus, run):
            fault = self.chance.choice(kinds)
            began = time.monotonic()
            said = await fault(bus)
            self.faults[said.split()[0]] += 1
            self.log.append(f"{time.monotonic() - began:5.2f} s  {said}")
            await asyncio.sleep(self.chance.uniform(0.1, 0.6))

    async def _active(self, bus: Bus, run: str) -> bool:
        stored = await (await Runs.open(bus)).read(run)
        return stored is None or stored.state.active

    # --- faults -------------------------------------------------------------------------------------------------------------------

    async def _line(self, bus: Bus) -> str:
        name = self.chance.choice(WORKERS)
        proxy = self._proxies[name]
        what = self.chance.choice(("late", "blackhole", "half-open", "reset", "refused"))
        seconds = self.chance.uniform(0.5, 1.5 * ACK_WAIT)
        if what == "refused":
            await proxy.close()
            await asyncio.sleep(seconds)
            await proxy.open()
        elif what != "reset":
            proxy.mode = what  # type: ignore[assignment]
            await asyncio.sleep(seconds)
            proxy.mode = "pass"
        if what in ("reset", "blackhole", "half-open"):
            proxy.reset()
        return f"{what} line of {name} for {seconds:.1f} s"

    async def _kill(self, bus: Bus) -> str:
        name = self.chance.choice(WORKERS)
        process = self._processes[name]
        with contextlib.suppress(psutil.Error):
            pids = {child.pid for child in psutil.Process(process.pid).children(recursive=True)}
            process.kill()
            for task in self._running(pids):
                watch = asyncio.create_task(self._restarted(task, len(self.executions())))
                self._watching.add(watch)
                watch.add_done_callback(self._watching.discard)
        return f"kill {name}"

    def _running(self, pids: set[int]) -> list[int]:
        found: dict[int, int] = {}
        for kind, pid, task in self.executions():
            if kind == "start":
                found[pid] = task
            else:
                found.pop(pid, None)
        return [task for pid, task in found.items() if pid in pids]

    async def _restarted(self, task: int, since: int) -> None:
        began = time.monotonic()
        while not any(kind == "start" and each == task for kind, _, each in self.executions()[since:]):
            await asyncio.sleep(0.05)
        self.recovery["task"].append(time.monotonic() - began)

    async def _pause(self, bus: Bus) -> str:
        """Stop a process, and its children, for longer than ack_wait: when it goes on, others have its jobs."""
        name = self.chance.choice(WORKERS)
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            parent = psutil.Process(self._processes[name].pid)
            stopped = [parent, *parent.children(recursive=True)]
            for each in stopped:
                os.kill(each.pid, signal.SIGSTOP)
            await asyncio.sleep(self.chance.uniform(1.2, 1.8) * ACK_WAIT)
            for each in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each.pid, signal.SIGCONT)
        return f"pause {name}"

    async def _crash(self, bus: Bus) -> str:
        await self.servers.crash(self.chance)
        began = time.monotonic()
        await _until(lambda: bus.lag(subjects.RUN_STREAM))
        self.recovery["server"].append(time.monotonic() - began)
        return "crash of a server"

    async def _garbage(self, bus: Bus) -> str:
        """Bytes that are no message, a message of another world, and one that is larger than any may be decoded."""
        junk = (self.chance.randbytes(200), b"\xdd\xff\xff\xff\xff", self.chance.randbytes(900_000), b"")
        for subject in (subjects.SUBMIT, subjects.done_subject("nobody", "map"), subjects.job_subject("map", "nobody", "map-0")):
            with contextlib.suppress(TilewrightError):
                await bus.publish(subject, self.chance.choice(junk), f"junk {self.chance.random()}")
        return "garbage on every queue"

    async def _fill(self, bus: Bus) -> str:
        """Use up the store: what has no room of its own (run states, records, attempts) cannot be written for a while."""
        with contextlib.suppress(TilewrightError, APIError, NatsError):
            await bus.connection.api(f"STREAM.CREATE.{FILLER}", {"name": FILLER, "subjects": ["filler"], "storage": "file"})
            async with asyncio.timeout(20):
                while True:
                    await asyncio.gather(*(bus.connection.js.publish("filler", FILL) for _ in range(8)))
        await asyncio.sleep(1.0)
        await _until(lambda: bus.connection.api(f"STREAM.DELETE.{FILLER}"))
        return "full store"

    # --- how it ended -------------------------------------------------------------------------------------------------------------

    async def _judge(self, bus: Bus, run: str) -> str:
        runs = await _until(lambda: Runs.open(bus))
        while await _until(lambda: self._active(bus, run)):
            await asyncio.sleep(0.2)
        log = "\n".join(self.log)
        stored = await _until(lambda: runs.read(run))
        assert stored is not None
        records = await _until(lambda: runs.records(run))
        assert stored.state.status == "done", f"{stored.state.status}: {stored.state.notes}\n{log}"
        assert len({record.task for record in records}) == len(records) == TASKS + 1, f"{len(records)} records\n{log}"
        for stream in (subjects.job_stream("map"), subjects.RUN_STREAM, subjects.DONE_STREAM):
            while await _until(lambda stream=stream: bus.subjects(stream, ">")):
                await asyncio.sleep(0.2)
        return digest(records)

    async def _close(self, keeping: asyncio.Task[None] | None) -> None:
        for task in [*self._watching, *([keeping] if keeping else [])]:
            task.cancel()
            await asyncio.wait([task])
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
        for proxy in self._proxies.values():
            await proxy.close()
        await self.servers.stop()


async def _until(ask: Callable[[], Awaitable[object]]) -> object:
    """The answer, asked for again while the server is away."""
    while True:
        try:
            return await ask()
        except (TilewrightError, APIError, NatsError):
            await asyncio.sleep(0.05)


def undisturbed(folder: Path) -> str:
    """The digest of a run in fine weather."""
    calm = Round(folder, 0, cluster=False)
    found = asyncio.run(calm.play(faults=0))
    assert len(calm.executions()) == 2 * TASKS, "a task was executed twice, or not to its end, without a fault"
    return found


def through_weather(folder: Path, seed: int, digest: str, *, cluster: bool) -> Round:
    """One round; AssertionError says what went wrong, with the log of the faults."""
    round_ = Round(folder, seed, cluster=cluster)
    found = asyncio.run(round_.play(faults=FAULTS))
    log = "\n".join(round_.log)
    assert found == digest, f"seed {seed}: digest {found}, undisturbed {digest}\n{log}"
    assert round_.faults.total() >= FAULTS // 2, f"seed {seed}: the run was over after {round_.faults.total()} faults\n{log}"
    return round_


def main() -> int:
    """Play a campaign."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1, help="of the first round; the others count up")
    parser.add_argument("--cluster", action="store_true", help="three servers instead of one")
    arguments = parser.parse_args()
    bad = 0
    recovery: dict[str, list[float]] = {"task": [], "server": []}
    with tempfile.TemporaryDirectory() as name:
        (calm := Path(name) / "calm").mkdir()
        expected = undisturbed(calm)
        for seed in range(arguments.seed, arguments.seed + arguments.rounds):
            (folder := Path(name) / str(seed)).mkdir()
            began = time.monotonic()
            try:
                done = through_weather(folder, seed, expected, cluster=arguments.cluster)
            except AssertionError as error:
                bad += 1
                print(f"seed {seed}: WRONG: {error}", flush=True)
                continue
            for kind, seconds in done.recovery.items():
                recovery[kind] += seconds
            faults = ", ".join(f"{kind} {count}" for kind, count in sorted(done.faults.items()))
            print(f"seed {seed}: ok in {time.monotonic() - began:.0f} s; {faults}; {len(done.executions())} notes", flush=True)
    print(f"{arguments.rounds - bad} of {arguments.rounds} rounds ended well")
    print(json.dumps({f"longest recovery of a {kind}, s": round(max(each, default=0.0), 2) for kind, each in recovery.items()}))
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
