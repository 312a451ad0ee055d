"""The load controller and the reading DMA."""

from __future__ import annotations

from collections import deque

from .banks import Ports
from .commands import ACCUMULATOR, ROW_MASK, ConfigLoad, Mvin
from .log import LOADS, MVIN, Log
from .machine import Machine
from .memory import Channel
from .packets import read_packets
from .station import EXECUTE, LOAD, NEVER, STORE, Station

#: Cycles from a row's request to its first bus request; from a bus request's issue to the bus; from a merged row to its write;
#: from the last write to what waited for it.
ROW, TRANSLATE, WRITE, DONE = 2, 6, 3, 2
#: What holds mvins up, by the kind of command that came last.
WAITS = {EXECUTE: "wait for array", STORE: "wait for store"}
CAUSES = ("transfer", "memory latency", *WAITS.values(), "no command", "idle at the end")


class Load:
    """Mvins, in order, one row request per cycle, one bus request per cycle, answers in order at one beat per cycle."""

    def __init__(self, machine: Machine, station: Station, channel: Channel, ports: Ports, log: Log) -> None:
        self.machine = machine
        self.station = station
        self.channel = channel
        self.ports = ports
        self.log = log
        self.count = log.count
        self.time = NEVER
        #: Cause -> cycles; what is left of the time with mvins in flight is latency.
        self.causes = dict.fromkeys(CAUSES, 0)
        self.in_flight = 0
        self.until = 0
        self._issued = -1
        #: Earliest start of the next mvin, last bus request, ends of the mvins and of the bus requests in flight.
        self._free = 0
        self._request = -1
        self._commands: deque[int] = deque([0] * machine.loads_in_flight, machine.loads_in_flight)
        self._flight: deque[int] = deque([0] * machine.in_flight, machine.in_flight)
        self._zeros = 0
        self._states: list[ConfigLoad] = [ConfigLoad(state, 0, machine.dim) for state in range(3)]

    def wake(self) -> None:
        """Plan the next command, if it is known when it is ready."""
        queue = self.station.queues[LOAD]
        if not queue or queue[0].pending:
            self.time = NEVER
            return
        issue = max(queue[0].ready, self._issued + 1)
        self.time = max(issue + 1, self._free)
        if type(queue[0].command) is Mvin:
            self.time = max(self.time, self._commands[0])

    def act(self, now: int) -> None:
        """Run the next command."""
        entry = self.station.queues[LOAD].popleft()
        self._issued = max(entry.ready, self._issued + 1)
        command = entry.command
        if type(command) is ConfigLoad:
            self._states[command.state] = command
            self._free = now + 1
            self.station.finish(entry, self._issued + 1)
        else:
            assert type(command) is Mvin
            if now > self.until:
                self.causes[WAITS.get(entry.why, "no command")] += now - self.until
                self.until = now
            done = self._zero(command, now) if command.dram == 0 else self._read(command, now)
            if done > self.until:
                self.in_flight += done - self.until
                self.until = done
            self._commands.append(done - 1)
            self.log.span(LOADS, MVIN, entry.index, command.rows, command.cols, now, done)
            self.station.finish(entry, done)
        self.wake()

    def _zero(self, command: Mvin, now: int) -> int:
        """Zeros are written without memory, a row of a block per cycle."""
        blocks = -(-command.cols // self.machine.dim)
        at = max(now + 1, self._zeros)
        repeats = self._states[command.state].pixel_repeats
        self._zeros = at + command.rows * blocks * repeats
        self._free = max(now + command.rows, self._zeros)
        if not command.local & ACCUMULATOR:
            self._mark(command, at, blocks * repeats)
        self.causes["transfer"] += command.rows * blocks
        self.count["scratchpad_write"] += command.rows * blocks
        return self._zeros + DONE

    def _mark(self, command: Mvin, at: int, per_row: int) -> None:
        bank_rows = self.machine.scratchpad_rows // self.machine.scratchpad_banks
        self.ports.reach(at + command.rows * per_row)
        for row in range(command.rows):
            taken = self.ports.taken[((command.local & ROW_MASK) + row) // bank_rows % self.machine.scratchpad_banks]
            taken[at + row * per_row : at + (row + 1) * per_row] = b"\1" * per_row

    def _read(self, command: Mvin, now: int) -> int:
        machine, state, channel = self.machine, self._states[command.state], self.channel
        to_accumulator = bool(command.local & ACCUMULATOR)
        wide = to_accumulator and not state.shrink
        word, row_bytes = (
            (machine.accumulator_word_bytes, machine.dim * machine.accumulator_word_bytes)
            if wide
            else (
                machine.input_bytes,
                machine.dim * machine.input_bytes,
            )
        )
        length = command.cols * word
        rows, copies = (1, command.rows) if state.stride == 0 else (command.rows, 1)
        copies *= state.pixel_repeats
        local = command.local & ROW_MASK
        bank_rows = machine.scratchpad_rows // machine.scratchpad_banks
        banks = machine.scratchpad_banks
        largest, beat_bytes = machine.request_bytes, machine.bus_bytes
        flight, request, free = self._flight, self._request, channel.free
        taken = self.ports.taken
        # a generous bound on how far this mvin reaches
        self.ports.reach(max(now, free) + 2 * channel.worst + (length // beat_bytes + 8) * rows * (copies + 1))
        address = command.dram
        start = now + ROW
        write = now
        requests = beats = bytes_read = written = 0
        for row in range(rows):
            done = 0
            if start + row > request:
                request = start + row - 1
            for packet in read_packets(address % largest, length, row_bytes, beat_bytes, largest):
                request = max(request + 1, flight[0]) + channel.translate(address + done)
                first = channel.answer(address + done, packet.size, request + TRANSLATE)
                if first < free:
                    first = free
                occupancy = packet.occupancy
                if copies > 1:
                    occupancy = max(occupancy, len(packet.rows) * copies)
                flight.append(first + packet.size // beat_bytes)
                free = first + occupancy
                write = first + WRITE
                if to_accumulator:
                    write += packet.rows[-1] + len(packet.rows) * (copies - 1)
                else:
                    block = done // row_bytes
                    for index, offset in enumerate(packet.rows):
                        write = first + WRITE + offset + index * (copies - 1)
                        at = (local + row + (block + index) * state.block_stride) // bank_rows % banks
                        if copies == 1:
                            taken[at][write] = 1
                        else:
                            taken[at][write : write + copies] = b"\1" * copies
                            write += copies - 1
                done += packet.useful
                requests += 1
                beats += packet.size // beat_bytes
                written += len(packet.rows) * copies
            address += state.stride
        bytes_read = length * rows
        self._request = request
        self._free = max(now + rows, request - 4)
        channel.free = free
        self.causes["transfer"] += beats
        count = self.count
        count["read_requests"] += requests
        count["read_beats"] += beats
        count["read_bytes"] += bytes_read
        count["accumulator_write" if to_accumulator else "scratchpad_write"] += written
        return write + DONE
