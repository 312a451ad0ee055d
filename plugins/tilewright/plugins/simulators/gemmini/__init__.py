"""The ``gemmini`` simulator: cycle level, first principles, of the instruction stream that the ``gemmini`` emitter generates."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from tilewright import loopnest as ln
from tilewright.protocol.architecture import Architecture
from tilewright.protocol.cost import Cost, EnergyRow, LatencyRow, Schedule
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Context, Options, SimRequest, SimResult
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS

from . import host, tiling
from .loop_matmul import LoopMatmul
from .lowering import Job, lower, machine_of, program_of
from .machine import LEAN, Machine, Memory
from .timing import Outcome, simulate

MODEL = "gemmini/1"

__all__ = ["LEAN", "Gemmini", "Machine", "Memory"]


class Gemmini:
    """Costs schedules by running their instruction streams on a model of the machine.

    Besides `run`, `program` and `time` are for the emitter, validations and whoever brings a program of their own.
    """

    options: ClassVar[dict[str, str]] = {
        "tiles": "mapping (default): the schedule's tiles; auto: those of Gemmini's own library",
        "in_flight": "memory requests in flight (16)",
        "latency": "cycles from a request to the first beat of its answer (40)",
        "cache_kib": "size of a cache in front of DRAM (0: none)",
        "miss_latency": "cycles that a miss adds (60)",
        "dram_bytes_per_cycle": "bytes per cycle of DRAM behind the cache (16)",
        "command_interval": "cycles between commands of the host (2)",
        "call_overhead": "cycles of the host per call of an operator (0)",
    }

    def run(self, request: SimRequest, ctx: Context) -> SimResult:
        """Simulate every schedule.

        Raises `InvalidInput` naming the schedule when its operator is none that Gemmini runs, or the architecture is not one of
        the target ``gemmini``.
        """
        machine = machine_of(request.architecture, configure(request.options))
        auto = str(request.options.get("tiles", "mapping"))
        if auto not in ("mapping", "auto"):
            raise InvalidInput(f"tiles: {auto!r}, expected mapping or auto")
        known: dict[Job, Outcome] = {}
        costs, attribution = [], []
        for index, schedule in enumerate(request.schedules):
            try:
                job = lower(schedule.operator, machine, None if auto == "auto" else schedule.mapping)
                outcome = known.get(job) or known.setdefault(job, self.time(job, machine))
            except InvalidInput as error:
                raise InvalidInput(f"schedule {index}: {error}") from None
            costs.append(_cost(schedule, request.architecture, machine, outcome))
            attribution.append(
                {
                    f"{unit}: {cause}": cycles / outcome.cycles
                    for unit, causes in outcome.attribution.items()
                    for cause, cycles in causes.items()
                }
            )
            ctx.progress(f"simulated {index + 1} of {len(request.schedules)} schedules")
        return SimResult(tuple(costs), MODEL, tuple(attribution))

    def time(self, job: Job, machine: Machine) -> Outcome:
        """Cycles and events of all repetitions of a job; repetitions after the second take what the second took."""
        first = simulate(machine, program_of(job, machine))
        if job.repeat == 1:
            return first
        second = simulate(machine, [*program_of(job, machine), *program_of(job, machine, 1)])
        return Outcome(
            first.cycles + (second.cycles - first.cycles) * (job.repeat - 1),
            {name: count * job.repeat for name, count in first.events.items()},
            _extended(first, second, job.repeat),
        )

    def lean(self, latency: int) -> Machine:
        """The lean machine behind an ideal memory."""
        return msgspec.structs.replace(LEAN, memory=Memory(latency=latency))

    def default(self, latency: int, overhead: int = 0) -> Machine:
        """The default machine behind an ideal memory."""
        return Machine(memory=Memory(latency=latency), call_overhead=overhead)

    def matmul_task(self, m: int, n: int, k: int, a: int, b: int, c: int, stride: int = 0) -> host.Matmul:
        """A matrix product; `stride` words from row to row of every matrix (0: dense)."""
        return host.Matmul(m, n, k, a, b, c, a_stride=stride, b_stride=stride, c_stride=stride)

    def conv_task(self, *sizes: int, addresses: list[int]) -> host.Conv:
        """A convolution: `sizes` as in `tiling.ConvShape`, addresses of input, weights, output and bias."""
        return host.Conv(tiling.ConvShape(*sizes), *addresses)

    def depends_on_half(self, task: host.Matmul, machine: Machine) -> bool:
        """Whether it matters where the first loop runs: one operand stays in a fixed half while the other alternates."""
        loops = [each for each in host.matmul(task, machine) if isinstance(each, LoopMatmul)]
        return any(bool(loop.a_half) != bool(loop.b_half) for loop in loops)

    def matmul(self, task: host.Matmul, machine: Machine, tiles: tiling.MatmulTiles | None = None, first_half: int = 0) -> Outcome:
        """One ``tiled_matmul``."""
        return simulate(machine, host.matmul(task, machine, tiles), first_half)

    def conv(self, task: host.Conv, machine: Machine, tiles: tiling.ConvTiles | None = None, first_half: int = 0) -> Outcome:
        """One ``tiled_conv``."""
        return simulate(machine, host.conv(task, machine, tiles), first_half)


def configure(options: Options) -> Machine:
    """The machine that options describe, sizes apart."""
    machine, memory = Machine(), Memory()
    try:
        memory = msgspec.structs.replace(
            memory,
            latency=int(options.get("latency", memory.latency)),
            cache_bytes=int(options.get("cache_kib", 0)) * 1024,
            miss_latency=int(options.get("miss_latency", memory.miss_latency)),
            dram_bytes_per_cycle=float(options.get("dram_bytes_per_cycle", memory.dram_bytes_per_cycle)),
        )
        machine = msgspec.structs.replace(
            machine,
            in_flight=int(options.get("in_flight", machine.in_flight)),
            command_interval=int(options.get("command_interval", machine.command_interval)),
            call_overhead=int(options.get("call_overhead", machine.call_overhead)),
            memory=memory,
        )
    except ValueError as error:
        raise InvalidInput(f"options: {error}") from None
    for name, value, least in (
        ("in_flight", machine.in_flight, 1),
        ("latency", memory.latency, 1),
        ("command_interval", machine.command_interval, 1),
    ):
        if value < least:
            raise InvalidInput(f"{name}: {value}, expected at least {least}")
    return machine


def _extended(first: Outcome, second: Outcome, repeat: int) -> dict[str, dict[str, int]]:
    """Attribution of `repeat` repetitions; causes keep adding up to the cycles."""
    return {
        unit: {
            cause: causes.get(cause, 0) + (second.attribution[unit].get(cause, 0) - causes.get(cause, 0)) * (repeat - 1)
            for cause in {**causes, **second.attribution[unit]}
        }
        for unit, causes in first.attribution.items()
    }


def _cost(schedule: Schedule, architecture: Architecture, machine: Machine, outcome: Outcome) -> Cost:
    """Events at the prices of the architecture; memories are priced per access of a block, registers per word."""
    prices = ln.Prices(architecture)
    index = architecture.index
    registers, accumulator, scratchpad, dram = index("Registers"), index("Accumulator"), index("Scratchpad"), index("DRAM")
    events, dim = outcome.events, machine.dim
    block = architecture.levels[scratchpad].block_words
    dram_block = architecture.levels[dram].block_words
    rows = (
        EnergyRow(architecture.compute.name, "compute", "", events["mac"], prices.compute),
        EnergyRow("Registers", "read", WEIGHTS, events["mac"], prices.read[registers]),
        EnergyRow("Registers", "fill", WEIGHTS, events["weight_load"], prices.fill[registers]),
        EnergyRow("Scratchpad", "read", INPUTS, events["scratchpad_read"] * dim / block, prices.read[scratchpad]),
        EnergyRow("Scratchpad", "fill", INPUTS, events["scratchpad_write"] * dim / block, prices.fill[scratchpad]),
        EnergyRow("Accumulator", "read", OUTPUTS, events["accumulator_read"] * dim, prices.read[accumulator]),
        EnergyRow("Accumulator", "update", OUTPUTS, events["accumulator_write"] * dim, prices.update[accumulator]),
        EnergyRow("DRAM", "read", INPUTS, events["read_beats"] * machine.bus_bytes / dram_block, prices.read[dram]),
        EnergyRow("DRAM", "update", OUTPUTS, events["write_beats"] * machine.bus_bytes / dram_block, prices.update[dram]),
    )
    array = outcome.attribution["array"]
    latency = (
        LatencyRow("array", array.get("compute", 0)),
        LatencyRow("DRAM reads", events["read_beats"]),
        LatencyRow("DRAM writes", events["write_beats"]),
    )
    macs = schedule.operator.macs
    utilization = macs / (architecture.compute.instances * outcome.cycles)
    return Cost(
        MODEL, "cycle", outcome.cycles, energy=rows, latency=latency, utilization=utilization,
        conventions=("cycles are simulated: resources overlap as the machine overlaps them",),
    )  # fmt: skip
