"""``queue``: what waits and what is in work, queue by queue."""

from __future__ import annotations

from collections import Counter

import msgspec

from tilewright.protocol.bus import Bus
from tilewright.protocol.subjects import DONE_STREAM, RUN_STREAM, STAGES, job_stream

from . import connect, console, tables

#: Runs that are named beside a queue.
MOST_RUNS = 3


class QueueState(msgspec.Struct, frozen=True):
    """One work queue."""

    queue: str
    #: Messages that nobody has taken.
    waiting: int
    #: Messages that somebody works on.
    in_work: int
    #: Messages that it holds: more than the two above when some used up their deliveries.
    held: int
    #: Run -> its messages there.
    runs: dict[str, int]


async def look(bus: Bus) -> list[QueueState]:
    """Every work queue, in the order in which a run goes through them."""
    found = []
    for stream in (RUN_STREAM, *(job_stream(stage) for stage in STAGES), DONE_STREAM):
        waiting, in_work = await bus.lag(stream)
        held = await bus.subjects(stream, ">")
        runs: Counter[str] = Counter()
        for subject, count in held.items() if stream != RUN_STREAM else ():
            words = subject.split(".")
            runs[words[4] if words[2] == "job" else words[3]] += count
        found.append(QueueState(stream, waiting, in_work, sum(held.values()), dict(runs.most_common())))
    return found


def queue(*, json: bool) -> None:
    """Print every queue."""
    found = connect.talk(look)
    if json:
        for each in found:
            console.json_line(each)
        return
    made = tables.table("queue", "waiting", "in work", "held", "runs", right=(1, 2, 3))
    for each in found:
        named = [f"{run} ({count})" for run, count in list(each.runs.items())[:MOST_RUNS]]
        more = len(each.runs) - len(named)
        text = ", ".join([*named, *([f"and {more} more"] if more else [])])
        made.add_row(each.queue, str(each.waiting), str(each.in_work), str(each.held), text)
    console.show(made)
