"""What the embedded house costs: 40 tasks answered from the cache, and nothing to do at all.

``python tests/benchmarks/house.py``. On a running ``up`` a run of 40 distinct tasks, each looked up and recorded, should
take less than 2 s from accepted to done; all idle processes together should use less than 2 % of one core.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

TOY = Path(__file__).parents[1] / "data" / "toy"
TILEWRIGHT = [sys.executable, "-c", "from tilewright.services.cli import main; main()"]
#: Every second layer of the toy model is equal to the first, so 78 layers are 40 distinct tasks.
RUN = ("map", "toy-net", "--frontend", "toy", "--target", "toy", "--mapper", "toy", "-o", "layers=78", "--json")
IDLE_SECONDS = 30.0


def tilewright(state: str, *words: str) -> Any:
    """The last line of a command's output, decoded where it is JSON."""
    environment = os.environ | {"TILEWRIGHT_STATE": state, "PYTHONPATH": str(TOY)}
    line = subprocess.run([*TILEWRIGHT, *words], env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]
    return json.loads(line) if line.startswith("{") else line


def processes(state: str) -> list[psutil.Process]:
    """Everything that runs for the state folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TILEWRIGHT_STATE") == state:
                found.append(process)
        except psutil.Error:
            continue
    return found


def cpu_seconds(running: list[psutil.Process]) -> float:
    """CPU seconds that the processes have used so far."""
    return sum(times.user + times.system for times in (process.cpu_times() for process in running))


def main() -> None:
    """Measure on a house of our own."""
    with tempfile.TemporaryDirectory(prefix="tilewright-benchmark-") as state:
        tilewright(state, "up")
        try:
            cold, warm = tilewright(state, *RUN), tilewright(state, *RUN)
            assert warm["stages"]["map"]["cached"] == 40, warm["stages"]
            running = processes(state)
            before = cpu_seconds(running)
            time.sleep(IDLE_SECONDS)
            idle = (cpu_seconds(running) - before) / IDLE_SECONDS
            resident = sum(process.memory_info().rss for process in running)
        finally:
            tilewright(state, "down")
    seconds = {name: round(run["finished"] - run["submitted"], 3) for name, run in (("computed_s", cold), ("cached_s", warm))}
    print(
        json.dumps({**seconds, "idle_percent_of_a_core": round(100 * idle, 2), "processes": len(running), "resident_mib": resident >> 20})
    )


if __name__ == "__main__":
    main()
