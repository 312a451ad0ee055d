"""Cancelled runs, as the pipeline signals them: one subscription for all jobs of a worker."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from tilewright.protocol.bus import Bus
from tilewright.protocol.subjects import cancel_subject


class Cancellations:
    """Sets the events of those who work for a run once it is cancelled. A signal may be missed: the run's state is what counts."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    async def listen(self) -> None:
        """Hear signals until the bus is closed."""
        async for data in self._bus.listen(cancel_subject("*")):
            for event in self._waiting.get(data.decode(errors="replace"), ()):
                event.set()

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
