"""The reservation station: entries by kind, hazards by row ranges, issue in order within a kind."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable

from .commands import ACCUMULATOR, GARBAGE, ROW_MASK, Command, Compute, ConfigExecute, ConfigLoad, Mvin, Mvout, Preload
from .machine import Machine

#: "Not yet known", later than every cycle.
NEVER = 1 << 62
LOAD, EXECUTE, STORE = range(3)
KINDS = ("load", "execute", "store")
#: Rows of the accumulator follow those of the scratchpad in ranges.
ACC = 1 << 26


class Entry:
    """A command on its way. Times are cycles; `done` is the first in which dependants may issue."""

    __slots__ = (
        "alloc",
        "command",
        "done",
        "index",
        "kind",
        "last",
        "low",
        "pending",
        "ready",
        "second",
        "top",
        "waiters",
        "why",
        "write",
        "write_top",
    )

    def __init__(self, command: Command, kind: int, index: int) -> None:
        self.command = command
        self.kind = kind
        #: Position in the stream of commands.
        self.index = index
        #: Rows read (loads: none), rows written.
        self.low = self.top = self.write = self.write_top = 0
        #: Hazards of which the end is not known yet.
        self.pending = 0
        self.alloc = self.ready = 0
        self.done = NEVER
        self.waiters: list[Entry] | None = None
        #: Kind of the command that held it back longest; -1: none.
        self.why = -1


class Station:
    """Who waits for whom. The controllers ask for `queues`; `wake` tells an actor that its next command became known."""

    def __init__(self, machine: Machine, wake: Callable[[int], None]) -> None:
        self.machine = machine
        self.capacity = (machine.load_entries, machine.execute_entries, machine.store_entries)
        #: Commands that their controller has not begun, by kind.
        self.queues: tuple[deque[Entry], deque[Entry], deque[Entry]] = (deque(), deque(), deque())
        #: Commands that have not ended, and the latest end.
        self.open = self.latest = 0
        self._live: tuple[list[Entry], list[Entry], list[Entry]] = ([], [], [])
        self.used = [0, 0, 0]
        #: Cycles in which entries become free, by kind.
        self.frees: tuple[list[int], list[int], list[int]] = ([], [], [])
        self._wake = wake
        self._count = 0
        self._a_stride = self._c_stride = 1
        self._a_transpose = False
        self._block_strides = [machine.dim] * 3
        self._pooling = False
        self._scratchpad_rows, self._accumulator_rows = machine.scratchpad_rows, machine.accumulator_rows

    def _span(self, local: int, rows: int) -> tuple[int, int]:
        """Rows ``[low, high)`` of both memories in one space; (0, 0) for garbage. Addresses wrap around."""
        if local == GARBAGE:
            return 0, 0
        row = local & ROW_MASK
        low = ACC + row % self._accumulator_rows if local & ACCUMULATOR else row % self._scratchpad_rows
        return low, low + rows

    def settle(self, now: int) -> None:
        """Free what is visibly free at `now`."""
        for kind in (LOAD, EXECUTE, STORE):
            frees = self.frees[kind]
            while frees and frees[0] <= now:
                heapq.heappop(frees)
                self.used[kind] -= 1

    def full(self, kind: int) -> bool:
        """No entry of the kind is free."""
        return self.used[kind] >= self.capacity[kind]

    def allocate(self, command: Command, kind: int, now: int) -> None:
        """Take a command in: find what it must wait for, and hand it to its controller's queue.

        The loop units count what they sent, so there is an entry for it when it arrives.
        """
        self.used[kind] += 1
        entry = Entry(command, kind, self._count)
        self._count += 1
        self.open += 1
        entry.alloc = now
        entry.ready = now + 1
        if kind == EXECUTE:
            self._execute(entry, command, now)
        elif kind == LOAD:
            self._load(entry, command, now)
        else:
            self._store(entry, command, now)
        live = self._live[kind]
        if len(live) >= 2 * self.capacity[kind]:
            live[:] = [each for each in live if each.done > now]
        live.append(entry)
        self.queues[kind].append(entry)
        self._wake(kind)

    def finish(self, entry: Entry, done: int) -> None:
        """The end of an entry is known."""
        entry.done = done
        self.open -= 1
        if done > self.latest:
            self.latest = done
        heapq.heappush(self.frees[entry.kind], done)
        for waiter in entry.waiters or ():
            waiter.pending -= 1
            if done > waiter.ready:
                waiter.ready = done
                waiter.why = entry.kind
            if not waiter.pending:
                self._wake(waiter.kind)
        entry.waiters = None

    def _wait(self, entry: Entry, older: Entry) -> None:
        if older.done == NEVER:
            entry.pending += 1
            if older.waiters is None:
                older.waiters = []
            older.waiters.append(entry)
        elif older.done > entry.ready:
            entry.ready = older.done
            entry.why = older.kind

    def _execute(self, entry: Entry, command: Command, now: int) -> None:
        if type(command) is Preload:
            low, top = entry.low, entry.top = self._span(command.local, command.rows)
            write, write_top = entry.write, entry.write_top = self._span(command.c_local, command.c_rows * self._c_stride)
            for older in self._live[LOAD]:
                if older.done > now and (
                    (older.write < top and low < older.write_top) or (older.write < write_top and write < older.write_top)
                ):
                    self._wait(entry, older)
            for older in self._live[STORE]:
                if older.done > now and older.low < write_top and write < older.top:
                    self._wait(entry, older)
        elif type(command) is Compute:
            rows = (command.cols if self._a_transpose else command.rows) * self._a_stride
            low, top = entry.low, entry.top = self._span(command.local, rows)
            low2, top2 = self._span(command.bd_local, command.bd_rows)
            for older in self._live[LOAD]:
                if older.done > now and ((older.write < top and low < older.write_top) or (older.write < top2 and low2 < older.write_top)):
                    self._wait(entry, older)
        elif type(command) is ConfigExecute:
            self._a_stride, self._c_stride = command.a_stride, command.c_stride
            if not command.strides_only:
                self._a_transpose = command.a_transpose
            for older in self._live[STORE]:
                if older.done > now and type(older.command) is Mvout:
                    self._wait(entry, older)

    def _load(self, entry: Entry, command: Command, now: int) -> None:
        if type(command) is ConfigLoad:
            self._block_strides[command.state] = command.block_stride
        elif type(command) is Mvin:
            blocks = -(-command.cols // self.machine.dim)
            write, write_top = entry.write, entry.write_top = self._span(
                command.local, (blocks - 1) * self._block_strides[command.state] + command.rows
            )
            for older in self._live[EXECUTE]:
                if older.done > now and (
                    (older.low < write_top and write < older.top) or (older.write < write_top and write < older.write_top)
                ):
                    self._wait(entry, older)
            for older in self._live[STORE]:
                if older.done > now and older.low < write_top and write < older.top:
                    self._wait(entry, older)

    def _store(self, entry: Entry, command: Command, now: int) -> None:
        if type(command) is not Mvout:
            self._pooling = getattr(command, "pool", None) is not None
            return
        machine = self.machine
        low = self._span(command.local, 0)[0]
        if self._pooling:
            bank = machine.accumulator_rows // machine.accumulator_banks
            top = ACC + ((low - ACC) // bank + 1) * bank
        else:
            top = low + (-(-command.cols // machine.dim) - 1) * machine.dim + command.rows
        entry.low, entry.top = low, top
        for older in self._live[EXECUTE]:
            if older.done > now and ((older.write < top and low < older.write_top) or type(older.command) is ConfigExecute):
                self._wait(entry, older)
        for older in self._live[LOAD]:
            if older.done > now and older.write < top and low < older.write_top:
                self._wait(entry, older)
