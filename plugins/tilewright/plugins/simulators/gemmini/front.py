"""The front end: commands of the host, two loops at a time unrolled by the loop units, one command per cycle."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from .commands import Command, Compute, ConfigExecute, ConfigLoad, Mvin, Preload
from .loop_conv import LoopConv
from .loop_conv import streams as conv_streams
from .loop_matmul import LoopMatmul, Streams
from .loop_matmul import streams as matmul_streams
from .machine import Machine
from .station import EXECUTE, LOAD, NEVER, STORE, Station

#: Cycles from a host command to the loop unit; from a loop's last command to the next configuration.
HOST, RETIRE = 3, 3
#: Commands of the host that configure and start a loop.
LOOP_COMMANDS = {LoopMatmul: 6, LoopConv: 7}
#: Cycles that a command spends inside the convolution unit.
CONV_PIPELINE = 2
#: Commands on their way into the reservation station.
QUEUE = 2
A, B, D, STEPS, STORES = range(5)


class _Loop:
    """A configured loop: its streams, how far each is emitted, and when each generator takes it."""

    __slots__ = ("at", "configured", "conv", "fire", "retire", "sizes", "streams")

    def __init__(self, made: Streams, configured: int, conv: bool) -> None:
        self.streams = made
        self.configured = configured
        self.conv = conv
        self.at = [0] * 5
        self.sizes = (len(made.a), len(made.b), len(made.d), 2 * len(made.steps), len(made.stores))
        self.fire = [NEVER] * 5
        self.retire = NEVER


class Front:
    """Feeds the reservation station from a host program."""

    def __init__(self, machine: Machine, station: Station, program: Sequence[Command | LoopMatmul | LoopConv], first_half: int = 0) -> None:
        self.machine = machine
        self.station = station
        self.time = 0
        self._program = program
        self._at = 0
        #: Next arrival of a host command at the loop unit.
        self._arrival = HOST
        self._loops: deque[_Loop] = deque()
        self._idle = [0] * 5
        self._halves = first_half
        self._accumulator_half = 0
        self._queue: deque[tuple[int, int, Command]] = deque()

    @property
    def position(self) -> int:
        """Commands of the host taken so far."""
        return self._at

    @property
    def finished(self) -> bool:
        """Nothing left to emit."""
        return self._at >= len(self._program) and not self._loops and not self._queue

    def act(self, now: int) -> None:
        """One cycle: allocate the oldest waiting command, emit the next one."""
        station = self.station
        station.settle(now)
        room = len(self._queue) < QUEUE
        acted = False
        if self._queue and self._queue[0][0] < now:
            _, kind, command = self._queue.popleft()
            station.allocate(command, kind, now)
            acted = True
        while self._loops and self._loops[0].retire <= now:
            self._loops.popleft()
        if room and self._emit(now):
            acted = True
        self.time = now + 1 if acted else self._later(now)

    def _later(self, now: int) -> int:
        """Earliest cycle in which anything may change, as far as is known."""
        times = [frees[0] for frees in self.station.frees if frees]
        if self._queue and self._queue[0][0] >= now:
            times.append(now + 1)
        if self._at < len(self._program):
            times.append(self._arrival)
        for loop in self._loops:
            times.append(loop.retire)
            times.extend(fire + 1 for fire in loop.fire)
        return min((time for time in times if time > now), default=NEVER)

    def _emit(self, now: int) -> bool:
        self._configure(now)
        if not self._loops:
            return self._direct(now)
        station = self.station
        head = self._loops[0]
        loop = self._current(STORES, now)
        if loop is not None and not station.full(STORE):
            store = loop.streams.stores[loop.at[STORES]]
            emitted = loop.at[B] if not loop.streams.steps else loop.at[STEPS] >> 1
            if emitted >= store.need:
                self._put(loop, STORES, STORE, store.command, now)
                return True
        loop = self._current(STEPS, now)
        if loop is not None and not station.full(EXECUTE):
            at = loop.at[STEPS]
            step = loop.streams.steps[at >> 1]
            if loop.at[A] >= step.need_a and loop.at[B] >= step.need_b and loop.at[D] >= loop.sizes[D]:
                self._put(loop, STEPS, EXECUTE, step.compute if at & 1 else step.preload, now)
                return True
        if station.full(LOAD):
            return False
        if head.conv:
            return self._load_conv(now)
        loop = self._current(D, now)
        if loop is not None:
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
        head, tail = self._loops[0], self._loops[-1]
        a, b = self._current(A, now), self._current(B, now)
        if a is None and b is None:
            return False
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

    def _current(self, generator: int, now: int) -> _Loop | None:
        """The loop of which a generator may emit now."""
        for loop in self._loops:
            if loop.at[generator] < loop.sizes[generator]:
                return loop if loop.fire[generator] < now else None
            if loop.fire[generator] == NEVER:
                return None
        return None

    def _put(self, loop: _Loop, generator: int, kind: int, command: Command, now: int) -> None:
        self.station.reserve(kind)
        self._queue.append((now, kind, command))
        loop.at[generator] += 1
        if loop.at[generator] == loop.sizes[generator]:
            self._idle[generator] = now + 1 + CONV_PIPELINE * loop.conv
            self._start()
            if all(at == size for at, size in zip(loop.at, loop.sizes, strict=True)):
                loop.retire = now + RETIRE

    def _start(self) -> None:
        """Let every generator that is idle take its next loop."""
        for loop in self._loops:
            fire = loop.fire
            for generator in range(5):
                if fire[generator] != NEVER:
                    continue
                if self._idle[generator] == NEVER:
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
                self._idle[generator] = NEVER if loop.sizes[generator] else at + 1

    def _configure(self, now: int) -> None:
        """Take the host's next loop, if there is one and a context is free."""
        while self._at < len(self._program) and len(self._loops) < 2 and self._arrival <= now:
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
            made = (
                conv_streams(command, self.machine, self._halves, self._accumulator_half)
                if isinstance(command, LoopConv)
                else matmul_streams(command, self.machine, self._halves, self._accumulator_half)
            )
            loop = _Loop(made, ready + CONV_PIPELINE * conv, conv)
            self._loops.append(loop)
            self._halves ^= 1
            if command.output if isinstance(command, LoopConv) else command.c:
                self._accumulator_half ^= 1
            self._at += 1
            self._arrival = ready + self.machine.command_interval
            self._start()
            if not any(loop.sizes):
                loop.retire = ready + RETIRE

    def _direct(self, now: int) -> bool:
        """A command of the host that is not part of a loop."""
        if self._at >= len(self._program) or self._arrival > now:
            return False
        command = self._program[self._at]
        if isinstance(command, LoopMatmul | LoopConv):
            return False
        kind = LOAD if type(command) in (Mvin, ConfigLoad) else EXECUTE if type(command) in (Preload, Compute, ConfigExecute) else STORE
        if self.station.full(kind):
            return False
        self.station.reserve(kind)
        self._queue.append((now, kind, command))
        self._at += 1
        self._arrival = now + self.machine.command_interval
        return True
