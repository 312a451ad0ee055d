"""The ``gemmini`` simulator: cycle level, first principles, of the instruction stream that the ``gemmini`` emitter generates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from tilewright.protocol.architecture import Architecture
from tilewright.protocol.cost import Cost, LatencyRow, Schedule
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.mapping import Mapping
from tilewright.protocol.plugin import Context, Options, SimRequest, SimResult
from tilewright.protocol.workload import Operator

from . import extrapolate, host, isa, tiling
from .account import reason, timeline
from .compiled import run
from .energy import energy
from .functional import Array, Values
from .loop_matmul import LoopMatmul
from .lowering import Job, lower, machine_of, program_of, tiles_of
from .machine import LEAN, Machine, Memory
from .station import NEVER
from .timing import Outcome

MODEL = "gemmini/1"
#: Array steps that are simulated one by one unless `exact` is asked for.
STEPS = 1 << 20
#: Tiles of one operator, at most.
TILES = 1 << 20
#: Array steps of a schedule that a timeline shows, about.
TRACED = 20_000

__all__ = ["LEAN", "Gemmini", "Machine", "Memory"]


class Gemmini:
    """Costs schedules by running their instruction streams on a model of the machine.

    Besides `run`, `program` and `time` are for the emitter, validations and whoever brings a program of their own.
    """

    options: ClassVar[dict[str, str]] = {
        "tiles": "mapping (default): the schedule's tiles; auto: those of Gemmini's own library",
        "exact": "true: simulate every tile of long programs too",
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
        exact = bool(request.options.get("exact", False))
        known: dict[Job, tuple[Outcome, str]] = {}
        costs, attribution, reasons = [], [], []
        for index, schedule in enumerate(request.schedules):
            try:
                job = lower(schedule.operator, machine, None if auto == "auto" else schedule.mapping)
                if (count := tiles_of(job, machine)) > TILES:
                    raise InvalidInput(
                        f"the mapping cuts the operator into {count} tiles, expected at most {TILES}; option tiles=auto takes larger ones"
                    )
                if job not in known:
                    known[job] = self.time(job, machine, NEVER if exact else STEPS)
            except InvalidInput as error:
                raise InvalidInput(f"schedule {index}: {error}") from None
            outcome, said = known[job]
            costs.append(_cost(schedule, request.architecture, machine, outcome, said))
            attribution.append(
                {
                    f"{unit}: {cause}": cycles / outcome.cycles
                    for unit, causes in outcome.attribution.items()
                    for cause, cycles in causes.items()
                }
            )
            reasons.append(reason(schedule.cost, outcome))
            ctx.progress(f"simulated {index + 1} of {len(request.schedules)} schedules")
        return SimResult(tuple(costs), MODEL, tuple(attribution), tuple(reasons))

    def timeline(self, schedules: Sequence[tuple[str, Schedule]], architecture: Architecture, options: Options) -> dict[str, Any]:
        """What every unit did in one repetition of some named schedules, as a trace for Chrome or Perfetto; `options` as in `run`."""
        machine = machine_of(architecture, configure(options))
        own = str(options.get("tiles", "mapping")) == "auto"
        made = []
        for name, schedule in schedules:
            job = lower(schedule.operator, machine, None if own else schedule.mapping)
            program = extrapolate.head(program_of(job, machine), machine, TRACED)
            made.append((name, run(machine, program, spans=True)))
        return timeline(made)

    def time(self, job: Job, machine: Machine, most: int) -> tuple[Outcome, str]:
        """Cycles and events of all repetitions of a job, and what was extrapolated (nothing: empty).

        Repetitions after the second take what the second took; of programs with more than `most` array steps, see `extrapolate`.
        """
        first, simulated, tiles = extrapolate.simulate(machine, program_of(job, machine), most)
        said = "" if simulated == tiles else f"{simulated} of {tiles} tiles simulated, the others as tiles like them"
        if job.repeat == 1:
            return first, said
        if said:
            return _repeated(first, 2 * first.cycles, first.attribution, job.repeat), f"{said}; {job.repeat} times"
        second = run(machine, [*program_of(job, machine), *program_of(job, machine, 1)])
        said = f"2 of {job.repeat} repetitions simulated" if job.repeat > 2 else ""
        return _repeated(first, second.cycles, second.attribution, job.repeat), said

    def job(self, operator: Operator, architecture: Architecture, mapping: Mapping | None) -> Job:
        """How Gemmini runs an operator: task, tiles, repetitions; `InvalidInput` when it does not."""
        return lower(operator, machine_of(architecture, Machine()), mapping)

    def tiles(self, job: Job, architecture: Architecture) -> int:
        """Loops that the host starts for one repetition of a job."""
        return tiles_of(job, machine_of(architecture, Machine()))

    def program(self, job: Job, architecture: Architecture) -> bytes:
        """The instruction stream of the first repetition of a job (see `isa`)."""
        return isa.encode(program_of(job, machine_of(architecture, Machine())))

    def execute(self, program: bytes, memory: Array, architecture: Architecture) -> None:
        """Run an instruction stream on the functional model; `memory` is bytes, addressed from 0."""
        Values(machine_of(architecture, Machine()), memory).run(isa.decode(program))

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

    def matmul(
        self, task: host.Matmul, machine: Machine, tiles: Sequence[int] | None = None, first_half: int = 0, modern: bool = True
    ) -> Outcome:
        """One ``tiled_matmul``, in `tiles` of i x j x k blocks; not `modern`: of the library of 2022."""
        return run(machine, host.matmul(task, machine, None if tiles is None else tiling.MatmulTiles(*tiles), modern), first_half)

    def conv(
        self, task: host.Conv, machine: Machine, tiles: Sequence[int] | None = None, first_half: int = 0, modern: bool = True
    ) -> Outcome:
        """One ``tiled_conv``, in `tiles` as in `tiling.ConvTiles`; not `modern`: of the library of 2022."""
        return run(machine, host.conv(task, machine, None if tiles is None else tiling.ConvTiles(*tiles), modern), first_half)

    def machine(self, memory: dict[str, float], **fields: int) -> Machine:
        """The default machine with other sizes, behind another memory."""
        return Machine(memory=Memory(**memory), **fields)  # type: ignore[arg-type]


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


def _repeated(first: Outcome, two: int, attribution: dict[str, dict[str, int]], repeat: int) -> Outcome:
    """`repeat` repetitions, of which two take `two` cycles; causes are in proportion to those of two and add up."""
    cycles = first.cycles + (two - first.cycles) * (repeat - 1)
    whole = Outcome(cycles, {name: count * repeat for name, count in first.events.items()}, {})
    return msgspec.structs.replace(
        whole, attribution={unit: extrapolate.proportional(causes, cycles) for unit, causes in attribution.items()}
    )


def _cost(schedule: Schedule, architecture: Architecture, machine: Machine, outcome: Outcome, said: str) -> Cost:
    events = outcome.events
    latency = (
        LatencyRow("array", outcome.attribution["array"]["compute"]),
        LatencyRow("DRAM reads", events["read_beats"]),
        LatencyRow("DRAM writes", events["write_beats"]),
    )
    utilization = schedule.operator.macs / (architecture.compute.instances * outcome.cycles)
    return Cost(
        MODEL, "cycle", outcome.cycles, energy=energy(events, architecture, machine), latency=latency, utilization=utilization,
        conventions=("cycles are simulated: resources overlap as the machine overlaps them", *([said] if said else [])),
    )  # fmt: skip
