"""Load: thousands of tiny tasks through one worker process, and many runs at once; CPU and memory of each process apart.

    python tests/benchmarks/load.py --tasks 10000          # one run, one worker, one slot
    python tests/benchmarks/load.py --runs 50 --tasks 4    # fifty runs at once
    python tests/benchmarks/load.py --workers 2 --seconds 3 --tasks 20   # throughput of CPU-bound jobs; compare with --workers 1

The mapper of `tests/data/slow` stands for a plugin that costs nothing (or `--seconds` of work): what is left is ours. CPU is
that of the worker process itself; its child process, the pipeline and the server are reported beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from tilewright.protocol.bootstrap import bootstrap
from tilewright.protocol.bus import Bus
from tilewright.protocol.messages import RunRequest
from tilewright.services.runtime.nats_server import NatsServer
from tilewright.services.runtime.runs import Runs, digest, submit

SLOW = Path(__file__).parents[1] / "data" / "slow"
#: Seconds after which a run is given up.
PATIENCE = 3600.0


def cpu(process: psutil.Process) -> float:
    """CPU seconds of a process itself."""
    used = process.cpu_times()
    return float(used.user + used.system)


class House:
    """Processes of one measurement."""

    def __init__(self, folder: Path, settings: Any, workers: int, stack: ExitStack) -> None:
        self._folder = folder
        (folder / "token").write_text(settings.token)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TILEWRIGHT_")}
        own = {
            "TILEWRIGHT_NATS_URL": settings.url,
            "TILEWRIGHT_NATS_TOKEN_FILE": str(folder / "token"),
            "PYTHONPATH": os.pathsep.join([str(SLOW), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        self.processes: dict[str, psutil.Process] = {}
        for name in ("pipeline", "profiler", *(f"mapper {index}" for index in range(workers))):
            log = stack.enter_context((folder / f"{name}.log").open("w"))
            command = [sys.executable, "-P", "-m", "tilewright.services.runtime.serve", name.split()[0]]
            started = subprocess.Popen(command, env=kept | own, stdout=log, stderr=log)
            stack.callback(started.wait)
            stack.callback(started.terminate)
            self.processes[name] = psutil.Process(started.pid)

    def used(self) -> dict[str, float]:
        """CPU seconds so far, by process; the worker's children apart."""
        found = {name: cpu(process) for name, process in self.processes.items()}
        for name, process in self.processes.items():
            if name.startswith("mapper"):
                found[f"{name}: child"] = sum(cpu(child) for child in process.children(recursive=True))
        return found

    def resident(self) -> dict[str, int]:
        """Resident MiB by process."""
        return {name: process.memory_info().rss >> 20 for name, process in self.processes.items()}


def request(arguments: argparse.Namespace, index: int) -> RunRequest:
    """One run: `tasks` distinct operators, other ones for each run."""
    return RunRequest(
        "slow-net",
        "gemmini",
        frontend="slow",
        frontend_options={"tasks": arguments.tasks},
        stages=("map",),
        mapper="slow",
        mapper_options={"seconds": arguments.seconds, "log": "/dev/null", "spin": arguments.spin},
        seed=index,
    )


async def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Play it; the figures."""
    server = NatsServer(folder / "nats")
    settings = await server.start()
    with ExitStack() as stack:
        async with await Bus.connect(settings) as bus:
            await bootstrap(bus)
            house = House(folder, settings, arguments.workers, stack)
            house.processes["server"] = psutil.Process(server.pid)
            while len(await bus.services()) < len(house.processes) - 1:  # noqa: ASYNC110 (they are other processes)
                await asyncio.sleep(0.1)
            before, began, memory = house.used(), time.monotonic(), []
            ids = [await submit(bus, request(arguments, index)) for index in range(arguments.runs)]
            runs = await Runs.open(bus)
            async with asyncio.timeout(PATIENCE):
                for run in ids:
                    while True:
                        stored = await runs.read(run)
                        if stored is not None and not stored.state.active:
                            assert stored.state.status == "done", stored.state
                            break
                        memory.append(house.resident())
                        await asyncio.sleep(0.5)
            took, after = time.monotonic() - began, house.used()
            records = [len(await runs.records(run)) for run in ids]
            assert set(records) == {arguments.tasks + 1}, records
            digests = {digest(await runs.records(run)) for run in ids} if arguments.runs == 1 else set()
    await server.stop()
    tasks = arguments.tasks * arguments.runs
    per_task = {name: 1000 * (after[name] - before[name]) / tasks for name in after}
    half = memory[len(memory) // 2 :] or memory
    return {
        "tasks": tasks,
        "runs": arguments.runs,
        "seconds": round(took, 2),
        "tasks per second": round(tasks / took, 1),
        "CPU ms per task": {name: round(value, 2) for name, value in per_task.items()},
        "resident MiB at half time and at the end": {name: [half[0][name], half[-1][name]] for name in half[0]},
        "digest": next(iter(digests), ""),
        "load": [round(each, 1) for each in os.getloadavg()],
    }


def main() -> int:
    """Measure what the command line says; 1 when a worker needs more than 5 ms of CPU per task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1000, help="of one run")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.0, help="that the plugin works on each task")
    parser.add_argument("--spin", action="store_true", help="the plugin uses its CPU meanwhile")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(arguments, Path(folder)))
    print(json.dumps(found, indent=1))
    overhead = max(value for name, value in found["CPU ms per task"].items() if name.startswith("mapper") and "child" not in name)
    print(f"worker overhead: {overhead:.2f} ms of CPU per task (at most 5 promised)")
    return int(overhead > 5)


if __name__ == "__main__":
    sys.exit(main())
