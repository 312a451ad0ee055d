"""Dead letters: messages that nobody can use and tasks that were given up, kept on ``TW_DEAD`` with the reason."""

from __future__ import annotations

import hashlib

from tilewright.protocol.bus import Bus, Delivery
from tilewright.protocol.codec import MAX_MESSAGE
from tilewright.protocol.messages import DeadLetter, pack
from tilewright.protocol.subjects import dead_subject

#: Longest reason that is kept, in characters.
REASON_SIZE = 4000
#: Bytes of a message that are kept, so that the letter fits into a message itself.
KEPT = MAX_MESSAGE - 8 * REASON_SIZE


async def bury(bus: Bus, source: str, delivery: Delivery, reason: str, *, run: str = "", task: str = "") -> None:
    """Keep a delivery as a dead letter of a stage, or of the pipeline, once. The caller takes it off its queue afterwards."""
    letter = DeadLetter(reason[:REASON_SIZE], delivery.subject, delivery.data[:KEPT], truncated=len(delivery.data) > KEPT)
    content = hashlib.sha256(delivery.data).hexdigest()[:16]
    await bus.publish(dead_subject(source), pack(letter, run, task=task), f"dead.{delivery.stream_sequence}.{content}")
