"""Watch a run until it ends: its events as they come, its stored state for what is certain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from tilewright.protocol.bus import Bucket, Bus
from tilewright.protocol.codec import decode
from tilewright.protocol.run import RunState
from tilewright.protocol.subjects import RUNS_BUCKET, events_of

from .progress import Happening, read

#: Seconds between two looks at the state when no event asks for one.
LOOK = 1.0


class Follower:
    """Tells `heard` of every event of a run, in order and once, and `seen` of every state that is looked up.

    It may go on with another connection where one was lost.
    """

    def __init__(self, run: str, heard: Callable[[Happening, str], None], seen: Callable[[RunState | None], None]) -> None:
        self._run = run
        self._heard = heard
        self._seen = seen
        self._last = 0
        self._look = asyncio.Event()

    async def until_end(self, bus: Bus) -> RunState:
        """The final state."""
        reader = asyncio.create_task(self._read(bus, follow=True))
        try:
            state = await self._watch(bus, reader)
        finally:
            reader.cancel()
            await asyncio.wait([reader])
        # What was said before the end and not yet delivered.
        await self._read(bus, follow=False)
        return state

    async def _watch(self, bus: Bus, reader: asyncio.Task[None]) -> RunState:
        bucket = await bus.bucket(RUNS_BUCKET)
        while True:
            state = await state_of(bucket, self._run)
            self._seen(state)
            if state is not None and not state.active:
                return state
            self._look.clear()
            look = asyncio.create_task(self._look.wait())
            await asyncio.wait([look, reader], timeout=LOOK, return_when=asyncio.FIRST_COMPLETED)
            look.cancel()
            if reader.done():
                reader.result()

    async def _read(self, bus: Bus, *, follow: bool) -> None:
        async with aclosing(bus.events(events_of(self._run), start=self._last + 1, follow=follow)) as events:
            async for event in events:
                self._last = event.sequence
                happening = read(event.subject, event.data, event.sequence)
                if happening is None:
                    continue
                self._heard(happening, event.subject)
                if happening.task == "-":
                    self._look.set()


async def state_of(bucket: Bucket, run: str) -> RunState | None:
    """The stored state of a run; None before the pipeline has taken it up."""
    entry = await bucket.get(run)
    return None if entry is None else decode(entry.value, RunState)
