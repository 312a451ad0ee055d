"""What a simulation records besides time: counts of events, ends of loops and, if asked for, what each unit did when."""

from __future__ import annotations

from typing import NamedTuple

EVENTS = (
    "read_requests", "read_beats", "read_bytes", "write_requests", "write_beats", "write_bytes", "scratchpad_read", "scratchpad_write",
    "accumulator_read", "accumulator_write", "weight_load", "mac",
)  # fmt: skip
#: Units, and what they do.
FRONT, LOADS, ARRAY, STORES = range(4)
LOOP, MVIN, STEP, PRELOAD_ALONE, MVOUT = range(5)


class Span(NamedTuple):
    """A unit at work in ``[start, end)``; `number` counts commands in the order of the reservation station (loops: host commands)."""

    unit: int
    what: int
    number: int
    rows: int
    cols: int
    start: int
    end: int


class Log:
    """Filled by the units."""

    def __init__(self, spans: bool = False) -> None:
        self.count = dict.fromkeys(EVENTS, 0)
        self.ends: list[int] = []
        self.spans: list[Span] | None = [] if spans else None

    def span(self, *fields: int) -> None:
        """Record a `Span`."""
        if self.spans is not None:
            self.spans.append(Span(*fields))
