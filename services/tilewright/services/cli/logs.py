"""``logs``: what the plugins of a run print, and what its services say of its tasks, over the bus."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from tilewright.protocol.bus import Bus
from tilewright.protocol.subjects import events_of

from . import connect, console
from .follow import Follower
from .look import resolve
from .progress import Happening, read

#: Kinds of events that are logs; progress has views of its own.
KINDS = ("log", "retry", "error", "cancelled", "state", "accepted")


def logs(word: str, *, follow: bool, json: bool) -> None:
    """Print what a run has said so far; with `follow` also what comes, until it ends."""

    def heard(happening: Happening, subject: str) -> None:
        if happening.kind in KINDS:
            _print(happening, json=json)

    async def work(bus: Bus) -> None:
        run = await resolve(bus, word)
        if follow:
            await Follower(run, heard, lambda state: None).until_end(bus)
            return
        async for event in bus.events(events_of(run), follow=False):
            happening = read(event.subject, event.data, event.sequence)
            if happening is not None:
                heard(happening, event.subject)

    connect.talk(work)


def _print(happening: Happening, *, json: bool) -> None:
    event = happening.event
    if json:
        console.json_line(_plain(happening))
        return
    text = event.text.rstrip() or (event.failure.message if event.failure is not None else "")
    who = happening.task if happening.task != "-" else happening.stage
    when = time.strftime("%H:%M:%S", time.localtime(happening.envelope.sent))
    for line in text.splitlines() or [""]:
        console.line(f"{when} {who:12} {happening.kind:9} {line}".rstrip())


def _plain(happening: Happening) -> dict[str, Any]:
    return {
        "time": happening.envelope.sent,
        "stage": happening.stage,
        "task": happening.task,
        "kind": happening.kind,
        **msgspec.to_builtins(happening.event),
    }
