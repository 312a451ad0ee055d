"""Memory as the DMA sees it: one bus, answers in order; ideal, or a cache in front of DRAM."""

from __future__ import annotations

from .machine import Memory


class Channel:
    """When requests are answered. `free` is the first cycle in which the answering side of the bus is free."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.latency = memory.latency
        self.free = 0
        #: Latest answer to a request on an idle bus, for reserving room.
        self.worst = memory.latency + (
            memory.miss_latency + int(memory.line_bytes / memory.dram_bytes_per_cycle) if memory.cache_bytes else 0
        )
        sets = memory.cache_bytes // (memory.cache_ways * memory.line_bytes)
        #: Per set: line -> dirty, least recently used first.
        self._sets: list[dict[int, bool]] = [{} for _ in range(sets)]
        self._transfer = memory.line_bytes / memory.dram_bytes_per_cycle
        self._dram = 0.0
        #: Pages in the TLB, least recently used first.
        self._pages: dict[int, None] = {}

    def answer(self, address: int, size: int, sent: int) -> int:
        """First cycle in which the answer to a read sent at `sent` may be on the bus."""
        if not self._sets:
            return sent + self.latency
        return self._access(address, sent, write=False)

    def translate(self, address: int) -> int:
        """Cycles that a request waits for its translation."""
        memory = self.memory
        if not memory.tlb_entries:
            return 0
        page = address // memory.page_bytes
        known = page in self._pages
        self._pages.pop(page if known or len(self._pages) < memory.tlb_entries else next(iter(self._pages)), None)
        self._pages[page] = None
        return 0 if known else memory.tlb_miss_latency

    def acknowledge(self, address: int, size: int, sent: int) -> int:
        """Cycle in which a write of which the last beat was sent at `sent` is acknowledged."""
        at = self._access(address, sent, write=True, whole=size >= self.memory.line_bytes) if self._sets else sent + self.latency
        if at <= self.free:
            self.free += 1
        return at

    def _access(self, address: int, sent: int, write: bool, whole: bool = False) -> int:
        line = address // self.memory.line_bytes
        lines = self._sets[line % len(self._sets)]
        if line in lines:
            dirty = lines.pop(line)
            lines[line] = dirty or write
            return sent + self.latency
        if len(lines) >= self.memory.cache_ways and lines.pop(next(iter(lines))):
            self._dram = max(self._dram, sent) + self._transfer
        lines[line] = write
        if whole:
            return sent + self.latency
        self._dram = max(self._dram, sent) + self._transfer
        return max(sent + self.latency + self.memory.miss_latency, int(self._dram) + self.latency)
