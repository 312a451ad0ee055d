"""The execute controller and the array."""

from __future__ import annotations

from collections import deque

from .banks import Ports
from .commands import ACCUMULATE, ACCUMULATOR, GARBAGE, ROW_MASK, Compute, ConfigExecute, Preload
from .log import ARRAY, PRELOAD_ALONE, STEP, Log
from .machine import Machine
from .station import EXECUTE, NEVER, Entry, Station

#: Fewest cycles of a step: writes to one accumulator row must lie apart.
LEAST = 4
#: Products that the array keeps track of at once.
TAGS = 6
#: Cycles of a result from the array's edge into the accumulator (it is read, added to, and written back).
ACCUMULATE_PIPELINE = 4
#: What holds the array up, by the kind of command that came last.
WAITS = {0: "wait for load", 1: "wait for array", 2: "wait for store"}
CAUSES = (
    "compute", "weights", "bank conflict", "products under way", "config", "drain", *WAITS.values(), "wait for commands", "idle at the end",
)  # fmt: skip


class Execute:
    """Steps, in order: A streams through the array while the next weights are loaded into it."""

    def __init__(self, machine: Machine, station: Station, ports: Ports, accumulator: Ports, window: int, log: Log) -> None:
        self.machine = machine
        self.station = station
        self.ports = ports
        self.accumulator = accumulator
        self.log = log
        self.count = log.count
        #: Cycles ahead for which DMA writes are known.
        self.window = window
        self.time = NEVER
        #: Cycles from a row's read to its write: memory, the array down and across, output registers, accumulator.
        self.depth = machine.scratchpad_read_delay + 1 + 2 * machine.dim + machine.mesh_output_delay + ACCUMULATE_PIPELINE
        self.causes = dict.fromkeys(CAUSES, 0)
        self._issued = -1
        #: First cycles at the controller of the commands at the head of the queue, as far as known.
        self._visible: deque[int] = deque()
        self.free = 0
        #: Last cycle in which the array still produces.
        self.drained = 0
        #: Cycles from which on the array has room for the product of a step, oldest first.
        self._room: deque[int] = deque([0] * (TAGS - 1), TAGS - 1)
        self._mesh = 2 * machine.dim + machine.mesh_output_delay + 1
        self._target: Preload | None = None
        self.owner: Entry | None = None
        self._config = ConfigExecute()
        self._step: _Step | None = None
        self._bank_rows = machine.scratchpad_rows // machine.scratchpad_banks
        self._accumulator_bank_rows = machine.accumulator_rows // machine.accumulator_banks

    def wake(self) -> None:
        """Plan the next step, if its commands are known."""
        queue, visible = self.station.queues[EXECUTE], self._visible
        known = len(visible)
        while known < len(queue) and not queue[known].pending:
            self._issued = max(queue[known].ready, self._issued + 1)
            visible.append(self._issued + 1)
            known += 1
        if self._step is not None:
            return
        if not visible:
            self.time = NEVER
            return
        command = queue[0].command
        if type(command) is Preload:
            self.time = max(visible[1], self.free) if known > 1 else NEVER
        elif type(command) is ConfigExecute:
            self.time = max(visible[0], self.free, self.drained + 1)
        else:
            self.time = max(visible[0], self.free)

    def act(self, now: int) -> None:
        """Begin a step, or go on with one."""
        if self._step is None:
            self._idle(now)
            queue = self.station.queues[EXECUTE]
            entry = queue[0]
            if type(entry.command) is ConfigExecute:
                if entry.command.strides_only:
                    self._config = self._config._replace(a_stride=entry.command.a_stride, c_stride=entry.command.c_stride)
                else:
                    self._config = entry.command
                self._pop()
                self.free = now + 1
                self.causes["config"] += 1
                self.station.finish(entry, now + 1)
                self.wake()
                return
            self._step = self._begin(entry, now)
            if self._room[0] > now:
                self._step.cycle = self.time = self._room[0]
                self._step.held = self._room[0] - now
                return
        step = self._step
        last = self._scan(step, now)
        if last is None:
            self.time = step.cycle
            return
        self._step = None
        self._room.append(last + self._mesh)
        self._end(step, last)
        self.wake()

    def _pop(self) -> None:
        self.station.queues[EXECUTE].popleft()
        self._visible.popleft()

    def _idle(self, now: int) -> None:
        """Say why nothing happened since the last step."""
        gap = now - self.free
        if gap > 0:
            entry = self.station.queues[EXECUTE][0]
            drains = type(entry.command) is ConfigExecute and self.drained >= self.free
            self.causes["drain" if drains else WAITS.get(entry.why, "wait for commands")] += gap

    def _begin(self, entry: Entry, now: int) -> _Step:
        machine, queue = self.machine, self.station.queues[EXECUTE]
        command = entry.command
        step = _Step(now)
        if type(command) is Preload:
            step.preload = entry
            self._pop()
        else:
            step.compute = entry
            ahead = 2 if machine.reads_accumulator else 1
            if ahead < len(self._visible) and self._visible[ahead] <= now and type(queue[1].command) is Preload:
                step.preload = queue[1]
                self._pop()
            self._pop()
        rows = LEAST
        if step.compute is not None:
            compute = step.compute.command
            assert type(compute) is Compute
            step.a_rows = compute.cols if self._config.a_transpose else compute.rows
            rows = max(rows, step.a_rows)
            if compute.local != GARBAGE:
                step.a = (compute.local & ROW_MASK) % machine.scratchpad_rows
        if step.preload is not None:
            preload = step.preload.command
            assert type(preload) is Preload
            if preload.local != GARBAGE:
                step.d = (preload.local & ROW_MASK) % machine.scratchpad_rows
                step.d_rows = preload.cols if self._config.b_transpose else preload.rows
                rows = machine.dim
        if self._config.a_transpose or self._config.b_transpose:
            rows = machine.dim
        step.rows = rows
        return step

    def _scan(self, step: _Step, now: int) -> int | None:
        """Cycle in which the last rows are read; None when that lies beyond what is known."""
        machine, rows = self.machine, step.rows
        time = step.cycle
        limit = now + self.window
        single = machine.single_ported
        bank_rows = self._bank_rows
        self.ports.reach(limit + rows)
        if step.a_done == 0 and step.d_done == 0 and time + rows <= limit:
            a_bank = step.a // bank_rows if step.a >= 0 else -1
            d_bank = step.d // bank_rows if step.d >= 0 else -2
            stride = self._config.a_stride
            same = a_bank == d_bank or (step.a >= 0 and (step.a + (rows - 1) * stride) // bank_rows != a_bank)
            same = same or (step.d >= 0 and (step.d + machine.dim - 1) // bank_rows != d_bank)
            if not same and (
                not single
                or (
                    (a_bank < 0 or self.ports.taken[a_bank].find(1, time, time + rows) < 0)
                    and (d_bank < 0 or self.ports.taken[d_bank].find(1, time, time + rows) < 0)
                )
            ):
                return time + rows - 1
        return self._scan_rows(step, time, limit)

    def _scan_rows(self, step: _Step, time: int, limit: int) -> int | None:
        """Row by row: neither operand runs more than one row ahead of the other; in one bank A goes first, padding included."""
        bank_rows, stride, rows = self._bank_rows, self._config.a_stride, step.rows
        single, taken, dim = self.machine.single_ported, self.ports.taken, self.machine.dim
        banks = self.machine.scratchpad_banks
        a, d, a_rows = step.a, step.d, step.a_rows
        d_first = dim - step.d_rows
        i, j = step.a_done, step.d_done
        while i < rows or j < rows:
            if time >= limit:
                step.a_done, step.d_done, step.cycle = i, j, time
                return None
            a_bank = (a + i * stride) // bank_rows % banks if a >= 0 else -1
            d_bank = (d + dim - 1 - j) // bank_rows % banks if d >= 0 else -2
            a_may = i < rows and i != j + 1 and not (single and a_bank >= 0 and i < a_rows and taken[a_bank][time])
            d_may = j < rows and j != i + 1 and not (single and d_bank >= 0 and j >= d_first and taken[d_bank][time])
            if i == j and a_bank == d_bank:
                d_may = False
            i += a_may
            j += d_may
            time += 1
        return time - 1

    def _end(self, step: _Step, last: int) -> None:
        machine, station, count = self.machine, self.station, self.count
        self.free = last + 1
        causes = self.causes
        causes["compute"] += step.a_rows
        causes["weights"] += step.rows - step.a_rows
        causes["products under way"] += step.held
        causes["bank conflict"] += last - step.start + 1 - step.held - step.rows
        self.log.span(
            ARRAY,
            PRELOAD_ALONE if step.compute is None else STEP,
            (step.compute or step.preload).index,  # type: ignore[union-attr]
            step.rows, self.machine.dim, step.start, last + 1,
        )  # fmt: skip
        if step.compute is not None:
            compute = step.compute.command
            assert type(compute) is Compute
            station.finish(step.compute, last + 2)
            if step.a >= 0:
                count["scratchpad_read"] += step.a_rows
            owner, target = self.owner, self._target
            if owner is not None and target is not None:
                out = last + self.depth
                self.drained = out
                if target.c_local != GARBAGE:
                    rows = target.c_rows
                    count["mac"] += step.a_rows * compute.cols * target.c_cols
                    if target.c_local & ACCUMULATOR:
                        count["accumulator_write"] += rows
                        bank = (target.c_local & ROW_MASK) // self._accumulator_bank_rows % machine.accumulator_banks
                        if target.c_local & ACCUMULATE:
                            count["accumulator_read"] += rows
                            self.accumulator.reach(out)
                            begin = out - step.rows + 1
                            self.accumulator.taken[bank][begin : begin + rows] = b"\1" * rows
                    else:
                        count["scratchpad_write"] += rows
                    station.finish(owner, out + 1)
                self.owner = self._target = None
        if step.preload is not None:
            preload = step.preload.command
            assert type(preload) is Preload
            if step.d >= 0:
                count["scratchpad_read"] += step.d_rows
                count["weight_load"] += step.d_rows * machine.dim
            if preload.c_local == GARBAGE:
                station.finish(step.preload, last + 3)
            else:
                self.owner, self._target = step.preload, preload


class _Step:
    """A step in progress: which commands, which rows, how far."""

    __slots__ = ("a", "a_done", "a_rows", "compute", "cycle", "d", "d_done", "d_rows", "held", "preload", "rows", "start")

    def __init__(self, now: int) -> None:
        self.start = self.cycle = now
        #: Cycles until the array had room for the product.
        self.held = 0
        self.compute: Entry | None = None
        self.preload: Entry | None = None
        #: First rows of A and of the operand that is loaded; -1: none.
        self.a = self.d = -1
        self.a_rows = self.d_rows = 0
        self.rows = 0
        self.a_done = self.d_done = 0
