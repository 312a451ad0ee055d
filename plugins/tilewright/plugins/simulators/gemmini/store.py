"""The store controller, the read path of the accumulator and the writing DMA."""

from __future__ import annotations

from collections import deque

from .banks import Ports
from .commands import ACCUMULATOR, GARBAGE, NORM_MASK, NORM_SHIFT, ROW_MASK, ConfigStore, Mvout
from .log import MVOUT, STORES, Log
from .machine import Machine
from .memory import Channel
from .packets import write_packets
from .station import EXECUTE, LOAD, NEVER, STORE, Entry, Station

#: Cycles from an accumulator read to its scaling; rows between the reads and the DMA; cycles from a beat's issue to the bus;
#: from the last read to what waited for it.
READ, ROWS, TRANSLATE, DONE = 4, 17, 2, 3
#: What holds mvouts up, by the kind of command that came last.
WAITS = {EXECUTE: "wait for array", LOAD: "wait for load"}
CAUSES = ("read", "ports and memory", *WAITS.values(), "no command", "idle at the end")


class Store:
    """Mvouts, in order: one row of a block per cycle out of the accumulator, through scaling, to the bus."""

    def __init__(self, machine: Machine, station: Station, channel: Channel, accumulator: Ports, window: int, log: Log) -> None:
        self.machine = machine
        self.station = station
        self.channel = channel
        self.accumulator = accumulator
        #: Cycles ahead for which the array's writes are known.
        self.window = window
        self.log = log
        self.count = log.count
        self.time = NEVER
        #: Cause -> cycles; what is left of the time with mvouts in flight is waiting for ports and memory.
        self.causes = dict.fromkeys(CAUSES, 0)
        self.in_flight = 0
        self.until = 0
        #: Cycle in which the last write is acknowledged.
        self.acknowledged = 0
        self._issued = -1
        self._free = 0
        self._read = -1
        self._writer = 0
        self._pipe: deque[int] = deque([0] * ROWS, ROWS)
        self._flight: deque[int] = deque([0] * machine.in_flight, machine.in_flight)
        self._config = ConfigStore(0)
        self._rows: list[tuple[int, int, int, int]] | None = None
        self._at = self._start = 0
        self._bank_rows = machine.accumulator_rows // machine.accumulator_banks

    def wake(self) -> None:
        """Plan the next command, if it is known when it is ready."""
        if self._rows is not None:
            return
        queue = self.station.queues[STORE]
        if not queue or queue[0].pending:
            self.time = NEVER
            return
        self.time = max(queue[0].ready + 1, self._issued + 2, self._free)

    def act(self, now: int) -> None:
        """Run the next command, or go on with one."""
        entry = self.station.queues[STORE][0]
        command = entry.command
        if self._rows is None:
            self._issued = max(entry.ready, self._issued + 1)
            if type(command) is not Mvout:
                if type(command) is ConfigStore:
                    self._config = command
                self._free = now + 1
                self._done(entry, self._issued + 1)
                return
            if now > self.until:
                self.causes[WAITS.get(entry.why, "no command")] += now - self.until
                self.until = now
            self._start = now
            self._rows = self._requests(command)
            self._at = 0
            self._read = max(self._read, now)
        assert type(command) is Mvout
        limit = now + self.window
        self.accumulator.reach(limit + 1)
        while self._at < len(self._rows):
            local, address, length, block = self._rows[self._at]
            read = max(self._read + 1, self._pipe[0])
            if local != GARBAGE:
                read = self._port(local, read, limit)
            if read >= limit:
                self.time = read
                return
            self._send(read, local, address, length, block)
            self._at += 1
        self._rows = None
        self._free = self._read
        end = max(self._read + DONE, self.acknowledged)
        self.log.span(STORES, MVOUT, entry.index, command.rows, command.cols, self._start, end)
        if end > self.until:
            self.in_flight += end - self.until
            self.until = end
        self._done(entry, self._read + DONE)

    def _done(self, entry: Entry, done: int) -> None:
        self.station.queues[STORE].popleft()
        self.station.finish(entry, done)
        self.wake()

    def _port(self, local: int, read: int, limit: int) -> int:
        """First cycle from `read` on in which the row may be read."""
        if not local & ACCUMULATOR:
            return read
        taken = self.accumulator.taken[(local & ROW_MASK) // self._bank_rows % self.machine.accumulator_banks]
        free = taken.find(0, read, limit)
        return limit if free < 0 else free

    def _send(self, read: int, local: int, address: int, length: int, last: int) -> None:
        """One row of a block: read, scaled, handed to the DMA, which writes when it has all blocks of a row."""
        self._read = read
        self.count["accumulator_read"] += 1
        self.causes["read"] += 1
        accepted = max(read + READ + self.machine.accumulator_scale_latency, self._writer)
        self._pipe.append(accepted)
        self._writer = accepted + 1
        if not last:
            return
        beat = accepted
        for beats in write_packets(address % self.machine.request_bytes, length, self.machine.bus_bytes, self.machine.request_bytes):
            beat = max(beat + 1, self._flight[0]) + self.channel.translate(address)
            final = beat + beats - 1
            done = self.channel.acknowledge(address, beats * self.machine.bus_bytes, final + TRANSLATE)
            self._flight.append(done + 1)
            self.acknowledged = max(self.acknowledged, done)
            beat = final
            self.count["write_requests"] += 1
            self.count["write_beats"] += beats
        self._writer = beat
        self.count["write_bytes"] += length

    def _requests(self, command: Mvout) -> list[tuple[int, int, int, int]]:
        """(local row, address, bytes of the whole row, last block) of each accumulator read, in order."""
        machine = self.machine
        if self._config.pool is not None:
            return self._pooled(command)
        word = machine.accumulator_word_bytes if command.local & (1 << 29) else machine.input_bytes
        norm = (command.local & NORM_MASK) >> NORM_SHIFT
        local = command.local & ~NORM_MASK
        blocks = -(-command.cols // machine.dim)
        return [
            (
                local + row + block * machine.dim,
                command.dram + row * self._config.stride,
                command.cols * word,
                int(block == blocks - 1 and norm == 0),
            )
            for row in range(command.rows)
            for block in range(blocks)
        ]

    def _pooled(self, command: Mvout) -> list[tuple[int, int, int, int]]:
        pool = self._config.pool
        assert pool is not None
        made = []
        for row in range(pool.porows):
            for col in range(pool.pocols):
                for window in range(pool.size * pool.size):
                    y = row * pool.stride + window // pool.size - pool.upad
                    x = col * pool.stride + window % pool.size - pool.lpad
                    inside = 0 <= y < pool.orows and 0 <= x < pool.ocols
                    local = command.local + y * pool.ocols + x if inside else GARBAGE
                    address = command.dram + (row * pool.out_dim + col) * self._config.stride
                    made.append((local, address, command.cols * self.machine.input_bytes, int(window == pool.size * pool.size - 1)))
        return made
