"""Cancelled runs, as the pipeline signals them: one subscription for all jobs of a worker."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from tilewright.protocol.bus import Bus
from tilewright.protocol.subjects import cancel_subject

#: Seconds for which a run that was seen active is taken to be, unless it is heard of.
RECENT = 1.0


class Cancellations:
    """Sets the events of those who work for a run once it is cancelled. A signal may be missed: the run's state is what counts."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        #: The run that was seen active last, and when: jobs of one run come one after the other.
        self._active = ("", 0.0)

    async def listen(self) -> None:
        """Hear signals until the bus is closed."""
        async for data in self._bus.listen(cancel_subject("*")):
            run = data.decode(errors="replace")
            if run == self._active[0]:
                self._active = ("", 0.0)
            for event in self._waiting.get(run, ()):
                event.set()

    def seen_active(self, run: str) -> None:
        """The run's state says that it is active."""
        self._active = (run, time.monotonic())

    def recently_active(self, run: str) -> bool:
        """True when it was a moment ago, and nothing was heard of it since."""
        return self._active[0] == run and time.monotonic() - self._active[1] < RECENT

    @contextmanager
    def of(self, run: str) -> Iterator[asyncio.Event]:
        """An event that is set when the run is cancelled, for as long as the context lasts."""
        event = asyncio.Event()
        self._waiting[run].add(event)
        try:
            yield event
        finally:
            self._waiting[run].discard(event)
            if not self._waiting[run]:
                del self._waiting[run]
