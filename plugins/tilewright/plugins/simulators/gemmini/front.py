"""The front end: commands of the host, two loops at a time unrolled by the loop units, one command per cycle."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from .commands import Command, Compute, ConfigExecute, ConfigLoad, Mvin, Preload
from .log import FRONT, LOOP, Log
from .loop_conv import LoopConv
from .loop_conv import streams as conv_streams
from .loop_matmul import LoopMatmul, Streams
from .loop_matmul import streams as matmul_streams
from .machine import Machine
from .station import EXECUTE, LOAD, NEVER, STORE, Station

#: Cycles from a host command to the loop unit; from a loop's last command to the next configuration; from a command's emission
#: to the reservation station.
HOST, RETIRE, QUEUE = 3, 3, 1
#: Commands of the host that configure and start a loop.
LOOP_COMMANDS = {LoopMatmul: 6, LoopConv: 7}
#: Cycles that a command spends inside the convolution unit.
CONV_PIPELINE = 2
A, B, D, STEPS, STORES = range(5)
#: What the front end does: it sends a command, waits for an entry of a kind, for operands of a loop, or for the host.
FULL = ("load entries full", "execute entries full", "store entries full")
CAUSES = ("command", *FULL, "wait for loop", "wait for host", "idle at the end")


class _Loop:
    """A configured loop: its streams, how far each is emitted, and when each generator takes it."""

    __slots__ = ("at", "configured", "conv", "fire", "index", "retire", "sizes", "streams")

    def __init__(self, made: Streams, configured: int, conv: bool, index: int) -> None:
        self.index = index
        self.streams = made
        self.configured = configured
        self.conv = conv
        self.at = [0] * 5
        self.sizes = (len(made.a), len(made.b), len(made.d), 2 * len(made.steps), len(made.stores))
        self.fire = [NEVER] * 5
        self.retire = NEVER


class Front:
    """Feeds the reservation station from a host program."""

    def __init__(
        self,
        machine: Machine,
        station: Station,
        program: Sequence[Command | LoopMatmul | LoopConv],
        first_half: int,
        log: Log,
    ) -> None:
        self._log = log
        self.causes = dict.fromkeys(CAUSES, 0)
        #: Cycles before it are accounted for; those from it on belong to `_why`.
        self.until = 0
        self._why = "wait for host"
        self.machine = machine
        self.station = station
        self.time = 0
        self._program = program
        self._at = 0
        #: Next arrival of a host command at the loop unit.
        self._arrival = HOST
        self._loops: deque[_Loop] = deque()
        #: The loop that each generator works on.
        self._active: list[_Loop | None] = [None] * 5
        self._idle = [0] * 5
        self._halves = first_half
        self._accumulator_half = 0
        #: Kinds of which an entry would let it go on.
        self._blocked: list[int] = []

    @property
    def position(self) -> int:
        """Commands of the host taken so far."""
        return self._at

    @property
    def finished(self) -> bool:
        """Nothing left to emit."""
        return self._at >= len(self._program) and not self._loops

    def act(self, now: int) -> None:
        """One cycle: emit a command, if one may go."""
        self.causes[self._why] += now - self.until
        self.until = now
        self.station.settle(now)
        loops = self._loops
        while loops and loops[0].retire <= now:
            loops.popleft()
        self._blocked.clear()
        if self._emit(now):
            self.time, self._why = now + 1, "command"
            return
        self.time = self._later(now)
        if self._blocked:
            self._why = FULL[self._blocked[0]]
        else:
            self._why = "wait for loop" if loops else "idle at the end" if self.finished else "wait for host"

    def freed(self, now: int) -> None:
        """Entries became free, or will: look again when that helps."""
        for kind in self._blocked:
            frees = self.station.frees[kind]
            if frees and frees[0] < self.time:
                self.time = max(now + 1, frees[0])

    def _later(self, now: int) -> int:
        """Earliest cycle in which anything may change, as far as is known."""
        time = NEVER
        for kind in self._blocked:
            frees = self.station.frees[kind]
            if frees and now < frees[0] < time:
                time = frees[0]
        if now < self._arrival < time and self._at < len(self._program):
            time = self._arrival
        for loop in self._loops:
            if now < loop.retire < time:
                time = loop.retire
        for generator, active in enumerate(self._active):
            if active is not None and now <= active.fire[generator] < time:
                time = active.fire[generator] + 1
        return time

    def _emit(self, now: int) -> bool:
        program = self._program
        if self._at < len(program) and len(self._loops) < self.machine.loops and self._arrival <= now:
            self._configure(now)
        if not self._loops:
            return self._direct(now)
        full, active = self.station.full, self._active
        loop = active[STORES]
        if loop is not None and loop.fire[STORES] < now:
            store = loop.streams.stores[loop.at[STORES]]
            if (loop.at[STEPS] >> 1 if loop.streams.steps else loop.at[B]) >= store.need:
                if not full(STORE):
                    self._put(loop, STORES, STORE, store.command, now)
                    return True
                self._blocked.append(STORE)
        loop = active[STEPS]
        if loop is not None and loop.fire[STEPS] < now:
            at = loop.at
            half = at[STEPS]
            step = loop.streams.steps[half >> 1]
            if at[A] >= step.need_a and at[B] >= step.need_b and at[D] >= loop.sizes[D]:
                if not full(EXECUTE):
                    self._put(loop, STEPS, EXECUTE, step.compute if half & 1 else step.preload, now)
                    return True
                self._blocked.append(EXECUTE)
        if active[A] is None and active[B] is None and active[D] is None:
            return False
        if full(LOAD):
            self._blocked.append(LOAD)
            return False
        if self._loops[0].conv:
            return self._load_conv(now)
        loop = active[D]
        if loop is not None and loop.fire[D] < now:
            self._put(loop, D, LOAD, loop.streams.d[loop.at[D]], now)
            return True
        return self._load_matmul(now)

    def _load_conv(self, now: int) -> bool:
        """Bias first, then weights, then inputs; the next loop loads nothing before this one has all."""
        for loop in self._loops:
            at, size = loop.at, loop.sizes
            for generator, stream in ((D, loop.streams.d), (B, loop.streams.b), (A, loop.streams.a)):
                if at[generator] < size[generator] and loop.fire[generator] < now:
                    self._put(loop, generator, LOAD, stream[at[generator]], now)
                    return True
            if at[A] < size[A] or at[B] < size[B] or at[D] < size[D]:
                return False
        return False

    def _load_matmul(self, now: int) -> bool:
        """A and B take turns so that neither runs ahead in k; a loop that is behind goes first."""
        a, b = self._active[A], self._active[B]
        if a is not None and a.fire[A] >= now:
            a = None
        if b is not None and b.fire[B] >= now:
            b = None
        if a is None and b is None:
            return False
        head, tail = self._loops[0], self._loops[-1]
        if a is not None and b is not None:
            if a is not b:
                a, b = (a, None) if a is head else (None, b)
            elif a.streams.a_k[a.at[A]] > b.streams.b_k[b.at[B]] or b.at[B] == 0:
                a = None
            else:
                b = None
        elif head is not tail:
            other = B if a is not None else A
            if head.at[other] < head.sizes[other] and (a or b) is tail:
                return False
        if a is not None:
            self._put(a, A, LOAD, a.streams.a[a.at[A]], now)
        elif b is not None:
            self._put(b, B, LOAD, b.streams.b[b.at[B]], now)
        return True

    def _put(self, loop: _Loop, generator: int, kind: int, command: Command, now: int) -> None:
        self.station.allocate(command, kind, now + QUEUE)
        loop.at[generator] += 1
        if loop.at[generator] == loop.sizes[generator]:
            self._idle[generator] = now + 1 + CONV_PIPELINE * loop.conv
            self._active[generator] = None
            self._start()
            if loop.at == list(loop.sizes):
                self._retire(loop, now)

    def _retire(self, loop: _Loop, now: int) -> None:
        loop.retire = now + RETIRE
        self._log.ends.append(loop.retire)
        self._log.span(FRONT, LOOP, loop.index, 0, 0, loop.configured, loop.retire)

    def _start(self) -> None:
        """Let every generator that is idle take its next loop."""
        for loop in self._loops:
            fire = loop.fire
            for generator in range(5):
                if fire[generator] != NEVER or self._idle[generator] == NEVER:
                    continue
                at = max(loop.configured, self._idle[generator])
                if generator == STEPS:
                    if NEVER in (fire[A], fire[B], fire[D]):
                        continue
                    at = max(at, fire[A] + 1, fire[B] + 1, fire[D] + 1)
                elif generator == STORES:
                    if fire[STEPS] == NEVER:
                        continue
                    at = max(at, fire[STEPS] + 1)
                fire[generator] = at
                if loop.sizes[generator]:
                    self._idle[generator] = NEVER
                    self._active[generator] = loop
                else:
                    self._idle[generator] = at + 1

    def _configure(self, now: int) -> None:
        """Take the host's next loop."""
        command = self._program[self._at]
        if not isinstance(command, LoopMatmul | LoopConv):
            return
        conv = isinstance(command, LoopConv)
        if self._loops and self._loops[0].conv != conv:
            return
        # all its commands but the last have arrived before: they wait in queues
        parts = LOOP_COMMANDS[type(command)]
        ready = max(self._arrival + (parts - 1) * self.machine.command_interval, now + parts)
        if self._loops and self._loops[-1].configured > now:
            ready = max(ready, self._loops[-1].configured + (parts - 1) * self.machine.command_interval)
        where = (self.machine, self._halves, self._accumulator_half)
        made = conv_streams(command, *where) if isinstance(command, LoopConv) else matmul_streams(command, *where)
        loop = _Loop(made, ready + CONV_PIPELINE * conv, conv, self._at)
        self._loops.append(loop)
        self._halves ^= 1
        if command.output if isinstance(command, LoopConv) else command.c:
            self._accumulator_half ^= 1
        self._at += 1
        self._arrival = ready + self.machine.command_interval
        self._start()
        if not any(loop.sizes):
            self._retire(loop, ready)

    def _direct(self, now: int) -> bool:
        """A command of the host that is not part of a loop."""
        if self._at >= len(self._program) or self._arrival > now:
            return False
        command = self._program[self._at]
        if isinstance(command, LoopMatmul | LoopConv):
            return False
        kind = LOAD if type(command) in (Mvin, ConfigLoad) else EXECUTE if type(command) in (Preload, Compute, ConfigExecute) else STORE
        if self.station.full(kind):
            self._blocked.append(kind)
            return False
        self.station.allocate(command, kind, now + QUEUE)
        self._at += 1
        self._arrival = now + self.machine.command_interval
        return True
