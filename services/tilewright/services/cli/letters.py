"""``dlq``: dead letters, which are messages that nobody could use and tasks that were given up."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import nats.js.errors

from tilewright.protocol import subjects
from tilewright.protocol.bus import Bus
from tilewright.protocol.codec import MAX_VALUE, decode
from tilewright.protocol.errors import InvalidInput, InvalidMessage
from tilewright.protocol.keys import new_run_id
from tilewright.protocol.messages import DeadLetter, Envelope, RunRequest, unpack
from tilewright.protocol.permissions import ADMIN
from tilewright.protocol.subjects import DEAD_STREAM, PREFIX

from ..runtime.runs import Runs, submit
from . import connect, console, tables

#: Characters of a reason that a list shows.
REASON = 100


class Letter(msgspec.Struct, frozen=True):
    """A dead letter as it is kept."""

    #: What `show`, `requeue` and `drop` call it.
    number: int
    #: Wall clock, seconds.
    buried: float
    #: Stage, or ``pipeline``, that gave it up.
    source: str
    run: str
    task: str
    letter: DeadLetter

    @property
    def contents(self) -> str:
        """What the message says it is."""
        try:
            envelope = decode(self.letter.message, Envelope)
        except InvalidMessage as error:
            return str(error)
        return (
            f"{envelope.kind}/{envelope.schema} of run {envelope.run or '-'}, task {envelope.task or '-'}, generation {envelope.generation}"
        )


async def letters(bus: Bus) -> list[Letter]:
    """Every dead letter, oldest first."""
    found = []
    async for event in bus.events(subjects.dead_subject("*"), stream=DEAD_STREAM, follow=False):
        envelope, letter = unpack(event.data)
        if isinstance(letter, DeadLetter):
            source = event.subject.rpartition(".")[2]
            found.append(Letter(event.sequence, event.stored, source, envelope.run, envelope.task, letter))
    return found


async def _chosen(bus: Bus, numbers: list[int]) -> list[Letter]:
    """The letters of these numbers; `InvalidInput` names the first that there is not."""
    found = {each.number: each for each in await letters(bus)}
    for number in numbers:
        if number not in found:
            known = ", ".join(map(str, found)) or "none"
            raise InvalidInput(f"NUMBER {number}: there is no such dead letter, expected one of {known}")
    return [found[number] for number in dict.fromkeys(numbers)]


def show_list(*, json: bool) -> None:
    """List the dead letters."""
    found = connect.talk(letters, role=ADMIN)
    if json:
        for each in found:
            console.json_line(_brief(each))
        return
    made = tables.table("number", "buried", "by", "run", "task", "why", right=(0,))
    for each in found:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each.buried))
        made.add_row(str(each.number), when, each.source, each.run, each.task, each.letter.reason.partition("\n")[0][:REASON])
    console.show(made if found else "no dead letters")


def _brief(each: Letter) -> dict[str, Any]:
    return {
        "number": each.number,
        "buried": each.buried,
        "by": each.source,
        "run": each.run,
        "task": each.task,
        "reason": each.letter.reason,
        "subject": each.letter.subject,
        "contents": each.contents,
        "bytes": len(each.letter.message),
        "truncated": each.letter.truncated,
    }


def show(number: int, *, json: bool) -> None:
    """Show one in full."""

    async def work(bus: Bus) -> Letter:
        return (await _chosen(bus, [number]))[0]

    found = connect.talk(work, role=ADMIN)
    if json:
        console.json_line(_brief(found) | {"message": found.letter.message})
        return
    for name, value in _brief(found).items():
        console.line(f"{name:10} {value}")


def requeue(numbers: list[int]) -> None:
    """Put messages back on their queues; a task of a run that has ended is asked for again as a new run."""

    async def work(bus: Bus) -> None:
        for each in await _chosen(bus, numbers):
            console.line(f"{each.number}: {await put_back(bus, each)}")

    connect.talk(work, role=ADMIN)


async def put_back(bus: Bus, each: Letter) -> str:
    """Requeue one letter and drop it; what was done, in words. `InvalidInput` when it cannot be."""
    letter = each.letter
    if letter.truncated:
        raise InvalidInput(f"NUMBER {each.number}: only the beginning of its message was kept, expected one that is whole")
    runs = await Runs.open(bus)
    stored = await runs.read(each.run) if each.run else None
    if letter.subject.startswith(f"{PREFIX}.job.") and stored is not None and await runs.recorded(each.run, each.task) is not None:
        if stored.state.active:
            raise InvalidInput(f"NUMBER {each.number}: run {each.run} goes on without {each.task}, expected a run that has ended")
        request = stored.state.request
        if stored.state.blob:
            data = await bus.get_blob(stored.state.blob)
            if data is None:
                raise InvalidInput(f"NUMBER {each.number}: the request of run {each.run} is not in the store any more")
            request = decode(data, RunRequest, limit=MAX_VALUE)
        done = f"run {each.run} had ended, it was submitted again as {await submit(bus, request)} (what is done comes from the cache)"
    else:
        await bus.publish(letter.subject, letter.message, f"requeue.{each.number}.{new_run_id()}")
        done = f"back on {letter.subject}"
    await remove(bus, each)
    return done


def drop(numbers: list[int]) -> None:
    """Forget letters."""

    async def work(bus: Bus) -> None:
        for each in await _chosen(bus, numbers):
            await remove(bus, each)
            console.line(f"{each.number}: dropped")

    connect.talk(work, role=ADMIN)


async def remove(bus: Bus, each: Letter) -> None:
    """Take a letter out of the stream; nothing when somebody was faster."""
    try:
        await bus.connection.api(f"STREAM.MSG.DELETE.{DEAD_STREAM}", {"seq": each.number})
    except nats.js.errors.APIError as error:
        if error.code not in (400, 404):
            raise
