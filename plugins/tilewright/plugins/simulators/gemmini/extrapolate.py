"""Long programs: the first tiles are simulated, the others take what tiles like them took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from .commands import Command
from .compiled import run
from .loop_conv import LoopConv
from .loop_matmul import LoopMatmul
from .machine import Machine
from .timing import Outcome

Loop = LoopMatmul | LoopConv
#: Share of the simulated tiles that is left out of the averages: the machine fills up.
WARM_UP = 4
#: Tiles that are simulated at least.
FEWEST = 8
#: Cycles that even a step of few rows takes: the array keeps track of six products, each on its way for some 45 cycles.
SHORTEST = 8


def steps_of(loop: Loop, machine: Machine) -> int:
    """Array steps of a tile."""
    if isinstance(loop, LoopMatmul):
        return loop.i * loop.j if loop.resadd else loop.i * loop.j * loop.k
    dim = machine.dim
    taps = loop.krows * -(-loop.kcols // loop.pixels) * -(-loop.kchs // dim)
    return -(-loop.ochs // dim) * taps * loop.batches * loop.orows * -(-loop.ocols // dim)


def work_of(loop: Loop, machine: Machine) -> int:
    """Cycles of a tile's array steps when nothing else holds them up."""
    if isinstance(loop, LoopMatmul):
        return machine.dim * steps_of(loop, machine)
    rows = [max(SHORTEST, min(machine.dim, loop.ocols - col)) for col in range(0, loop.ocols, machine.dim)]
    return steps_of(loop, machine) // len(rows) * sum(rows)


def kind_of(loop: Loop) -> tuple[object, ...]:
    """Tiles of one kind take about the same: equal sizes, and the same operands moved."""
    if isinstance(loop, LoopMatmul):
        return (*loop[:6], bool(loop.a), bool(loop.b), bool(loop.d), bool(loop.c))
    return (*loop[11:22], bool(loop.input), bool(loop.weights), bool(loop.bias), bool(loop.output))


def head(program: Sequence[Command | Loop], machine: Machine, most: int) -> list[Command | Loop]:
    """The beginning of a program: loops until their array steps pass `most`."""
    kept: list[Command | Loop] = []
    taken = 0
    for command in program:
        if taken > most:
            break
        taken += steps_of(command, machine) if isinstance(command, Loop) else 0
        kept.append(command)
    return kept


def simulate(machine: Machine, program: Sequence[Command | Loop], most: int) -> tuple[Outcome, int, int]:
    """(outcome, tiles simulated, tiles): exact when the program has at most `most` array steps."""
    loops = [command for command in program if isinstance(command, Loop)]
    steps = [steps_of(loop, machine) for loop in loops]
    if sum(steps) <= most:
        return run(machine, program), len(loops), len(loops)
    count, taken = 0, 0
    while count < len(loops) and (taken < most or count < FEWEST):
        taken += steps[count]
        count += 1
    if count == len(loops):
        return run(machine, program), count, count
    head = [*(command for command in program if not isinstance(command, Loop)), *loops[:count]]
    first = run(machine, head)
    ends = first.ends
    took: dict[tuple[object, ...], list[int]] = defaultdict(list)
    warm = max(1, count // WARM_UP)
    for at in range(warm, count):
        took[kind_of(loops[at])].append(ends[at] - ends[at - 1])
    work = [work_of(loop, machine) for loop in loops]
    rate = (ends[-1] - ends[warm - 1]) / sum(work[warm:count])
    mean = {kind: sum(times) / len(times) for kind, times in took.items()}
    rest = sum(mean.get(kind_of(loop), rate * size) for loop, size in zip(loops[count:], work[count:], strict=True))
    return _scaled(first, first.cycles + round(rest), sum(steps) / taken), count, len(loops)


def _scaled(first: Outcome, cycles: int, ratio: float) -> Outcome:
    attribution = {unit: proportional(causes, cycles) for unit, causes in first.attribution.items()}
    return Outcome(cycles, {name: round(count * ratio) for name, count in first.events.items()}, attribution)


def proportional(causes: dict[str, int], cycles: int) -> dict[str, int]:
    """Causes in proportion that add up to `cycles`."""
    whole = sum(causes.values())
    grown = {cause: count * cycles // whole for cause, count in causes.items()}
    largest = max(grown, key=lambda cause: grown[cause])
    grown[largest] += cycles - sum(grown.values())
    return grown
