"""What people see of one task: events, at most two per second besides those that mark its steps."""

from __future__ import annotations

import asyncio
import secrets

from tilewright.protocol.bus import Bus
from tilewright.protocol.keys import message_id
from tilewright.protocol.messages import Envelope, Event, pack
from tilewright.protocol.subjects import EventKind, Stage, event_subject

from .frames import Note

#: Seconds between two events of progress, partial results and logs, together.
PACE = 0.5
#: Characters of a log event.
LOG_SIZE = 4000


class Reporter:
    """Publishes the events of one task; losing one changes no result."""

    def __init__(self, bus: Bus, stage: Stage, envelope: Envelope, worker: str) -> None:
        self._bus = bus
        self._stage: Stage = stage
        self._envelope = envelope
        self._worker = worker
        self._serial = 0
        self._attempt = secrets.token_hex(4)
        #: What waits for its turn: the newest of each kind.
        self._waiting: dict[EventKind, Event] = {}
        self._wake = asyncio.Event()
        self._pacing = asyncio.create_task(self._pace())

    async def tell(self, kind: EventKind, event: Event | None = None) -> None:
        """Publish an event that marks a step."""
        envelope = self._envelope
        self._serial += 1
        await self._bus.emit(
            event_subject(envelope.run, self._stage, envelope.task, kind),
            pack(event or Event(worker=self._worker), envelope.run, task=envelope.task, generation=envelope.generation),
            message_id(envelope.run, envelope.task, envelope.generation, f"{kind}-{self._attempt}-{self._serial}"),
        )

    def note(self, note: Note) -> None:
        """Publish progress or a partial result when its turn comes; a newer one takes the place of one that still waits."""
        self._offer(note.kind, Event(note.text, note.figures, worker=self._worker))

    def log(self, text: str) -> None:
        """Publish what a plugin printed; what waits is joined."""
        before = self._waiting.get("log")
        self._offer("log", Event(((before.text if before else "") + text)[-LOG_SIZE:], worker=self._worker))

    def _offer(self, kind: EventKind, event: Event) -> None:
        self._waiting[kind] = event
        self._wake.set()

    async def _pace(self) -> None:
        while True:
            await self._wake.wait()
            kind = next(iter(self._waiting))
            event = self._waiting.pop(kind)
            if not self._waiting:
                self._wake.clear()
            await self.tell(kind, event)
            await asyncio.sleep(PACE)

    async def close(self) -> None:
        """Publish what was printed last, drop the rest."""
        self._pacing.cancel()
        await asyncio.wait([self._pacing])
        if event := self._waiting.pop("log", None):
            await self.tell("log", event)
