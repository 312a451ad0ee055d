"""What extracting a workload from a configuration costs: CPU and wall seconds, and peak memory, each model in a process of its own.

``python tests/benchmarks/profile_models.py``; bars (imports excluded): BERT 2 s, Llama-3-8B 4 s, Llama-3-70B 10 s, 600 MB; a cold
process 20 s; a sweep over six lengths at most 1.5 times one. Wall seconds depend on what else runs; the load is printed beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys

ONE = """
import json, resource, sys, time
began = time.process_time(), time.perf_counter()
from tilewright.protocol import registry
frontend = registry.load("frontends", "huggingface")
import torch, transformers
torch.set_num_threads(1)
frontend.load("bert-base", {"layers": 1, "seq": 8}) if sys.argv[3] == "warm" else None
imported = time.process_time(), time.perf_counter()
options = json.loads(sys.argv[2])
if isinstance(options, list):
    for each in frontend.load_many(sys.argv[1], options): each.macs
else:
    frontend.load(sys.argv[1], options).macs
ended = time.process_time(), time.perf_counter()
print(json.dumps({"cpu_s": ended[0] - imported[0], "wall_s": ended[1] - imported[1], "cold_cpu_s": ended[0] - began[0],
                  "cold_wall_s": ended[1] - began[1], "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}))
"""
LENGTHS = (128, 256, 512, 1024, 2048, 4096)
#: Model, options, seconds that it may take.
CASES: tuple[tuple[str, object, float], ...] = (
    ("bert-base", {"seq": 128}, 2.0),
    ("bert-base", {"seq": 512}, 2.0),
    ("llama-3-8b", {"seq": 2048}, 4.0),
    ("llama-3-8b", {"decode": True, "ctx": 2048, "batch": 8}, 4.0),
    ("llama-3-70b", {"seq": 2048}, 10.0),
)


def measure(model: str, options: object, *, state: str = "warm") -> dict[str, float]:
    """One load in a fresh process; `state` "warm" loads a tiny model before it, so that lazy imports do not count."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ONE, model, json.dumps(options), state], capture_output=True, text=True, check=True, env=environment
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def best(model: str, options: object, rounds: int) -> dict[str, float]:
    """The round with the least CPU time."""
    return min((measure(model, options) for _ in range(rounds)), key=lambda found: found["cpu_s"])


def line(name: str, found: dict[str, float], bar: float) -> str:
    """One row of the table."""
    verdict = "ok" if found["cpu_s"] <= bar and found["peak_mb"] <= 600 else "MISSED"
    figures = f"{found['cpu_s']:6.2f} s CPU {found['wall_s']:6.2f} s wall {found['peak_mb']:6.0f} MB   bar {bar:g} s, 600 MB: {verdict}"
    return f"{name:58}{figures}   load {os.getloadavg()[0]:.1f}"


def main() -> None:
    """Print one line per bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3, help="processes per figure; the one with the least CPU time counts (3)")
    rounds = parser.parse_args().rounds
    for model, options, bar in CASES:
        print(line(f"{model} {options}", best(model, options, rounds), bar), flush=True)
    cold = min((measure("llama-3-70b", {"seq": 2048}, state="cold") for _ in range(rounds)), key=lambda found: found["cold_cpu_s"])
    said = f"{cold['cold_cpu_s']:6.2f} s CPU {cold['cold_wall_s']:6.2f} s wall {cold['peak_mb']:6.0f} MB   bar 20 s"
    print(f"{'llama-3-70b from a cold process, imports included':58}{said}: {'ok' if cold['cold_cpu_s'] <= 20 else 'MISSED'}")
    for model, lengths in (("bert-base", (*LENGTHS[:3], 64, 32, 16)), ("llama-3-8b", LENGTHS)):
        one = best(model, {"seq": min(lengths)}, rounds)["cpu_s"]
        six = best(model, [{"seq": length} for length in sorted(lengths)], rounds)["cpu_s"]
        verdict = "ok" if six <= 1.5 * one else "MISSED"
        name = f"{model}, six lengths against one"
        print(f"{name:58}{six:6.2f} s CPU, {six / one:.2f} times one   bar 1.5: {verdict}")
    print(f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime:.0f} s CPU in all")


if __name__ == "__main__":
    main()
