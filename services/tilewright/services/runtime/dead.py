"""Dead letters: messages that nobody can use and tasks that were given up, kept on ``TW_DEAD`` with the reason."""

from __future__ import annotations

import hashlib

from tilewright.protocol.bus import Bus, Delivery
from tilewright.protocol.codec import MAX_MESSAGE
from tilewright.protocol.subjects import Stage, dead_subject

#: Headers of a dead letter; its body is the message as it came.
REASON, SUBJECT, RUN, TASK = "Tw-Reason", "Tw-Subject", "Tw-Run", "Tw-Task"
#: Longest reason that is kept, in characters.
REASON_SIZE = 2000


async def bury(bus: Bus, stage: Stage, delivery: Delivery, reason: str, *, run: str = "", task: str = "") -> None:
    """Keep a delivery as a dead letter, once. The caller takes it off its queue afterwards."""
    said = {REASON: reason[:REASON_SIZE], SUBJECT: delivery.subject, **({RUN: run, TASK: task} if run else {})}
    headers = {name: " ".join(text.split()).encode("ascii", "backslashreplace").decode() for name, text in said.items()}
    content = hashlib.sha256(delivery.data).hexdigest()[:16]
    identity = f"dead.{delivery.subject}.{delivery.stream_sequence}.{content}"
    await bus.publish(dead_subject(stage), delivery.data[:MAX_MESSAGE], identity, headers=headers)
