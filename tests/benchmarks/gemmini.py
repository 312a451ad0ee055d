"""How fast the cycle-level simulator of Gemmini is, and how it answers to changes of the hardware. Run: python tests/benchmarks/gemmini.py

CPU seconds (the first network includes compiling the engine where it is not in the cache folder) and largest resident memory;
then sweeps of one parameter at a time on 16 x 512 x 512 and 512^3 of the lean machine.
"""

from __future__ import annotations

import resource
import time

import msgspec

from tilewright.plugins.simulators.gemmini import compiled, host
from tilewright.plugins.simulators.gemmini.machine import LEAN, Machine, Memory
from tilewright.protocol import registry
from tilewright.protocol.context import HostContext
from tilewright.protocol.cost import Claim, Cost, Schedule
from tilewright.protocol.keys import content_key
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.plugin import Budget, SimRequest

NETWORKS = {"bert-base": {"seq": 128}, "resnet50": {}}
SHAPES = ((16, 512, 512), (512, 512, 512))
SWEEPS: dict[str, tuple[int, ...]] = {
    "in_flight": (4, 8, 16, 32, 64),
    "latency": (5, 20, 40, 100, 200, 400),
    "scratchpad_banks": (1, 2, 4, 8),
    "accumulator_bytes": (32 << 10, 64 << 10, 128 << 10, 256 << 10),
}


def networks() -> None:
    """Whole networks with the library's own tiles, through the plugin."""
    architecture = registry.load("targets", "gemmini").architecture()
    simulator, zoo = registry.load("simulators", "gemmini"), registry.load("frontends", "zoo")
    for name, options in NETWORKS.items():
        tasks = [task for task in zoo.load(name, options).tasks if task.operator.is_contraction]
        empty = [LevelMapping(level.name) for level in architecture.levels]
        schedules = []
        for task in tasks:
            whole = LevelMapping(empty[-1].level, temporal=tuple(Loop(dim.name, dim.bound) for dim in task.operator.dims))
            schedules.append(
                Schedule(task.operator, Mapping((*empty[:-1], whole)), Cost("", "analytical", 0), Claim(), "edp", content_key(architecture))
            )
        begin = time.process_time()
        request = SimRequest(tuple(schedules), architecture, {"tiles": "auto"})
        costs = simulator.run(request, HostContext("simulators", "gemmini", Budget())).costs
        seconds = time.process_time() - begin
        cycles = sum(task.count * cost.cycles for task, cost in zip(tasks, costs, strict=True))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(f"{name:10}  {len(tasks):3} operators  {cycles:12,} cycles  {seconds:6.2f} CPU-s  {peak} MiB")


def machine(name: str, value: int) -> Machine:
    """The lean machine with one parameter changed, at 100 cycles of latency where not told otherwise."""
    memory = Memory(latency=value if name == "latency" else 100)
    return msgspec.structs.replace(LEAN, memory=memory, **({} if name == "latency" else {name: value}))


def sweeps() -> None:
    """Cycles over one parameter at a time."""
    for name, values in SWEEPS.items():
        for m, n, k in SHAPES:
            task = host.Matmul(m, n, k, 1 << 20, 1 << 24, 1 << 26, a_stride=512, b_stride=512, c_stride=512)
            taken = [compiled.run(machine(name, value), host.matmul(task, machine(name, value)), 1).cycles for value in values]
            print(f"{name:18} {m}x{n}x{k}: " + ", ".join(f"{value}: {cycles:,}" for value, cycles in zip(values, taken, strict=True)))


if __name__ == "__main__":
    print("engine in C" if compiled.engine() is not None else "no C compiler: the model in Python")
    networks()
    sweeps()
