"""How the DMA cuts a row of memory into bus requests, and what that costs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple


class Packet(NamedTuple):
    """One read request."""

    #: Bytes on the bus, a power of two, aligned.
    size: int
    #: Useful bytes.
    useful: int
    #: Cycles after its first beat in which a local row is ready to be written.
    rows: tuple[int, ...]
    #: Cycles from its first beat to the earliest first beat of the next request.
    occupancy: int


@lru_cache(maxsize=4096)
def read_packets(offset: int, length: int, row_bytes: int, beat: int, largest: int) -> tuple[Packet, ...]:
    """The requests for `length` bytes at `offset` (address modulo `largest`), each the smallest that brings the most useful bytes.

    `row_bytes` is the width of a local row; a request never waits for another one, so a row that two of them share is written twice.
    """
    return tuple(
        _packet(size, at % size, useful, done % row_bytes, row_bytes, beat)
        for done, at, size, useful in _requests(offset, length, beat, largest)
    )


def _packet(size: int, shift: int, useful: int, row_offset: int, row_bytes: int, beat: int) -> Packet:
    """The merger of beats, cycle by cycle: it sends one row per cycle, and takes the next request when all is read and sent."""
    read, sent, rows = 0, 0, []
    cycle = 0
    while True:
        arrived = min(max(read - shift, 0), useful)
        width = row_bytes - (row_offset if sent == 0 else 0)
        if arrived > sent and (arrived - sent >= width or arrived == useful):
            rows.append(cycle)
            sent = min(sent + width, useful)
            if sent == useful and read == size:
                return Packet(size, useful, tuple(rows), cycle)
        elif sent == useful and read == size:
            return Packet(size, useful, tuple(rows), cycle + 1)
        read = min(read + beat, size)
        cycle += 1


@lru_cache(maxsize=4096)
def write_packets(offset: int, length: int, beat: int, largest: int) -> tuple[int, ...]:
    """Beats of each write request for `length` bytes at `offset` (address modulo `largest`)."""
    return tuple(size // beat for _, _, size, _ in _requests(offset, length, beat, largest))


def _requests(offset: int, length: int, beat: int, largest: int) -> Iterator[tuple[int, int, int, int]]:
    """(Bytes before, address modulo `largest`, size, useful bytes) of each request: the smallest that brings the most useful bytes."""
    done = 0
    while done < length:
        at = (offset + done) % largest
        size, useful = 0, 0
        candidate = beat
        while candidate <= largest:
            gain = min(candidate - at % candidate, length - done)
            if gain > useful:
                size, useful = candidate, gain
            candidate *= 2
        yield done, at, size, useful
        done += useful
