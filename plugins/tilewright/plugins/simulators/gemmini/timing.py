"""Timing: an event-driven model of the front end, the reservation station, the three controllers and the memories' ports.

Four actors act in time order. A command waits for older ones that touch its rows (found when it enters the reservation
station) and for its controller, which takes commands of its kind in order. What a mvin or a step does to the banks is
recorded cycle by cycle: DMA writes take the single port of a scratchpad bank before reads of the array; accumulating
writes of the array take the accumulator's read port before the store path.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tilewright.protocol.errors import InvalidInput

from .banks import Ports
from .commands import Command
from .execute import Execute
from .front import Front
from .load import Load
from .log import Log, Span
from .loop_conv import LoopConv
from .loop_matmul import LoopMatmul
from .machine import Machine
from .memory import Channel
from .station import KINDS, NEVER, Station
from .store import Store

#: Cycles that are known ahead of a load: from its start to its first write.
LOAD_AHEAD = 8
#: Cycles from the last acknowledgement to the host's fence.
FENCE = 2
END = "idle at the end"


class Outcome(msgspec.Struct, frozen=True):
    """What a program took."""

    cycles: int
    #: Event -> how often; rows for memories, words for weight loads.
    events: dict[str, int]
    #: Unit -> cause -> cycles; the causes of a unit add up to `cycles`.
    attribution: dict[str, dict[str, int]]
    #: Cycle in which each loop had been unrolled.
    ends: tuple[int, ...] = ()
    #: What each unit did when, if that was asked for.
    spans: tuple[Span, ...] = ()


def simulate(machine: Machine, program: Sequence[Command | LoopMatmul | LoopConv], first_half: int = 0, spans: bool = False) -> Outcome:
    """Run a host program from an idle machine until everything is written.

    The hardware does not reset which half of the scratchpad its next loop uses: `first_half` says so. Raises `InvalidInput` when
    the program never ends, naming the command that waits.
    """
    log = Log(spans)
    channel = Channel(machine.memory)
    scratchpad, accumulator = Ports(machine.scratchpad_banks), Ports(machine.accumulator_banks)
    station = Station(machine, lambda kind: actors[kind].wake())
    load = Load(machine, station, channel, scratchpad, log)
    execute = Execute(machine, station, scratchpad, accumulator, machine.memory.latency + LOAD_AHEAD, log)
    store = Store(machine, station, channel, accumulator, execute.depth, log)
    actors = (load, execute, store)
    front = Front(machine, station, program, first_half, log)
    while (now := min(front.time, load.time, execute.time, store.time)) < NEVER:
        if front.time == now:
            front.act(now)
            continue
        actor = load if load.time == now else store if store.time == now else execute
        actor.act(now)
        front.freed(now)
    _check_finished(station, front, execute)
    last = max(store.acknowledged, execute.drained, station.latest)
    cycles = last + FENCE + machine.call_overhead
    return Outcome(cycles, log.count, _attribution(cycles, front, load, execute, store), tuple(log.ends), tuple(log.spans or ()))


def _attribution(cycles: int, front: Front, load: Load, execute: Execute, store: Store) -> dict[str, dict[str, int]]:
    """Fill up what each unit did to the whole time."""
    front.causes[END] += cycles - front.until
    # zeros are written beside what memory answers: both at once count once
    load.causes["transfer"] = min(load.causes["transfer"], load.in_flight)
    load.causes["memory latency"] = load.in_flight - load.causes["transfer"]
    store.causes["read"] = min(store.causes["read"], store.in_flight)
    store.causes["ports and memory"] = store.in_flight - store.causes["read"]
    load.causes[END], store.causes[END], execute.causes[END] = cycles - load.until, cycles - store.until, cycles - execute.free
    return {"front end": front.causes, "array": execute.causes, "load": load.causes, "store": store.causes}


def _check_finished(station: Station, front: Front, execute: Execute) -> None:
    if station.open:
        waiting = [(kind, queue[0]) for kind, queue in zip(KINDS, station.queues, strict=True) if queue]
        kind, entry = waiting[0] if waiting else ("execute", execute.owner)
        assert entry is not None
        raise never_ends(entry.index, entry.command, kind)
    if not front.finished:
        raise never_enters(front.position)


def never_ends(index: int, command: Command, kind: str) -> InvalidInput:
    """The error of a command that its controller holds forever."""
    return InvalidInput(f"command {index}, {command}, never ends: the {kind} controller waits for commands that do not come")


def never_enters(position: int) -> InvalidInput:
    """The error of a host command that is never taken."""
    return InvalidInput(f"host command {position} never enters the reservation station")
