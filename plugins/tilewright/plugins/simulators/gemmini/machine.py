"""The hardware that is simulated: every number of Gemmini's generator that changes timing or capacity."""

from __future__ import annotations

import msgspec


class Memory(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the DMA sees. With the defaults: an ideal in-order memory."""

    #: Cycles from a request on the bus to the first beat of its answer (on a hit, when there is a cache).
    latency: int = 40
    #: Bytes of a shared last-level cache in front of DRAM; 0: none, every access takes `latency`.
    cache_bytes: int = 0
    cache_ways: int = 8
    line_bytes: int = 64
    #: Cycles that a miss adds.
    miss_latency: int = 60
    #: Bytes per cycle that DRAM moves, fills and write-backs together.
    dram_bytes_per_cycle: float = 16.0
    #: Pages that the accelerator's TLB holds; 0: addresses are physical, nothing is translated.
    tlb_entries: int = 0
    #: Cycles until a missing page is found, during which its side of the DMA waits.
    tlb_miss_latency: int = 40
    page_bytes: int = 4096


class Machine(msgspec.Struct, frozen=True, omit_defaults=True):
    """A Gemmini instance; the defaults are those of Gemmini's own default configuration (see `LEAN` for its lean one)."""

    #: Rows and columns of the array; elements of a scratchpad row.
    dim: int = 16
    scratchpad_bytes: int = 256 * 1024
    scratchpad_banks: int = 4
    #: A bank has one port, and a write takes it first.
    single_ported: bool = True
    accumulator_bytes: int = 64 * 1024
    accumulator_banks: int = 2
    input_bytes: int = 1
    accumulator_word_bytes: int = 4
    #: Entries of the reservation station, by kind.
    load_entries: int = 8
    execute_entries: int = 16
    store_entries: int = 4
    #: Entries of the queues in front of the controllers.
    load_queue: int = 8
    execute_queue: int = 8
    store_queue: int = 2
    #: Loops that are unrolled at once: with 2, one half of each memory is filled while the other one is used.
    loops: int = 2
    #: Requests in flight, each for reads and for writes.
    in_flight: int = 16
    bus_bytes: int = 16
    #: Bytes of the largest request.
    request_bytes: int = 64
    scratchpad_read_delay: int = 4
    mesh_output_delay: int = 1
    accumulator_scale_latency: int = 8
    #: The array may read the accumulator: the controller then looks one command further ahead before it overlaps.
    reads_accumulator: bool = True
    #: Cycles from one command of the host to the next.
    command_interval: int = 2
    #: Cycles that the host spends around each call of a tiled operator (set-up, configuration, fence).
    call_overhead: int = 0
    memory: Memory = Memory()

    @property
    def scratchpad_rows(self) -> int:
        """Rows of `dim` elements in all banks."""
        return self.scratchpad_bytes // (self.dim * self.input_bytes)

    @property
    def accumulator_rows(self) -> int:
        """Rows of `dim` partial sums in all banks."""
        return self.accumulator_bytes // (self.dim * self.accumulator_word_bytes)

    @property
    def block_columns(self) -> int:
        """Blocks of `dim` inputs that one mvin or mvout moves at most."""
        return max(1, self.request_bytes // (self.dim * self.input_bytes))

    @property
    def accumulator_block_columns(self) -> int:
        """Blocks of `dim` partial sums that one mvin moves at most."""
        return max(1, self.request_bytes // (self.dim * self.accumulator_word_bytes))

    @property
    def loads_in_flight(self) -> int:
        """Mvins that may be outstanding; the same for mvouts."""
        return self.in_flight // self.dim + 1


#: Gemmini's lean configuration, on the bench that `gemmini-rtl` compares with.
LEAN = Machine(in_flight=32, reads_accumulator=False)
