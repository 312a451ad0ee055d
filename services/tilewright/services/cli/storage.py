"""``cache``: how much the store holds, and making room in it before its own limits do."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import msgspec
import nats.js.errors

from tilewright.protocol import subjects
from tilewright.protocol._blobs import REFRESH_AFTER
from tilewright.protocol.bus import Bus
from tilewright.protocol.errors import InvalidInput, suggest
from tilewright.protocol.permissions import ADMIN
from tilewright.protocol.subjects import ATTEMPTS_BUCKET, BLOB_STREAM, RESULTS_BUCKET, RUNS_BUCKET, STAGES, TASKS_BUCKET

from ..runtime.runs import Runs
from . import connect, console, parse, tables, units


class Holding(msgspec.Struct, frozen=True):
    """What one stream of the store holds."""

    what: str
    entries: int
    bytes: int
    #: The most that it may hold; 0: as much as the server has room for.
    limit: int
    #: Wall clock of its oldest message; 0 when it is empty.
    oldest: float


async def holdings(bus: Bus) -> list[Holding]:
    """Answers, blobs and what is kept of runs."""
    found = []
    for what, stream in (
        ("answers", f"KV_{RESULTS_BUCKET}"),
        ("blobs", BLOB_STREAM),
        ("runs", f"KV_{RUNS_BUCKET}"),
        ("task records", f"KV_{TASKS_BUCKET}"),
    ):
        info = await bus.connection.api(f"STREAM.INFO.{stream}")
        state = info["state"]
        oldest = _seconds(state["first_ts"]) if state["messages"] else 0.0
        found.append(Holding(what, state["messages"], state["bytes"], max(0, info["config"]["max_bytes"]), oldest))
    return found


def _seconds(stamp: str) -> float:
    """The wall clock of a server's time stamp, which has more digits than Python reads."""
    whole, _, rest = stamp.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{rest or 0}")


def ls(*, json: bool) -> None:
    """Print how much the store holds."""
    found = connect.talk(holdings)
    if json:
        for each in found:
            console.json_line(each)
        return
    made = tables.table("what", "entries", "size", "limit", "oldest", right=(1, 2, 3))
    for each in found:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.oldest)) if each.oldest else ""
        made.add_row(each.what, str(each.entries), units.size(each.bytes), units.size(each.limit) if each.limit else "", when)
    console.show(made)


def gc(older_than: str, stages: list[str], *, runs: bool, json: bool) -> None:
    """Remove answers, and what is kept of ended runs, that are older than a time; then blobs that nothing younger can name."""
    age = parse.seconds("--older-than", older_than)
    if age is None:
        raise InvalidInput("--older-than: expected a time, e.g. 7d")
    for stage in stages:
        if stage not in STAGES:
            raise InvalidInput(f"--stage {stage!r}: there is no such stage{suggest(stage, STAGES)}")

    async def work(bus: Bus) -> dict[str, int]:
        return await collect(bus, time.time() - age, stages, runs=runs)

    removed = connect.talk(work, role=ADMIN)
    if json:
        console.json_line(removed)
    else:
        console.line("removed " + ", ".join(f"{count} {what}" for what, count in removed.items()))


async def collect(bus: Bus, before: float, stages: list[str], *, runs: bool) -> dict[str, int]:
    """Remove what is older than a wall clock time; how many entries of each sort.

    Blobs stay while a live run might name them, and those that an answer of `before` or later may name.
    """
    answers = f"KV_{RESULTS_BUCKET}"
    filters = [f"$KV.{RESULTS_BUCKET}.{stage}.>" for stage in stages or STAGES]
    removed = {"answers": sum([await _purge(bus, answers, before, each) for each in filters])}
    states = await Runs.open(bus)
    found = [each.state for run in await states.ids() if (each := await states.read(run)) is not None]
    live = any(state.active for state in found)
    if runs:
        over = [state.run for state in found if not state.active and state.finished < before]
        for run in over:
            for bucket, pattern in ((ATTEMPTS_BUCKET, f"*.{run}.>"), (TASKS_BUCKET, f"{run}.*"), (RUNS_BUCKET, run)):
                await bus.connection.api(f"STREAM.PURGE.KV_{bucket}", {"filter": f"$KV.{bucket}.{pattern}"})
            await bus.connection.api(f"STREAM.PURGE.{subjects.EVENT_STREAM}", {"filter": subjects.events_of(run)})
        removed["runs"] = len(over)
    if not live and not stages:
        removed["blob parts"] = await _purge(bus, BLOB_STREAM, before - REFRESH_AFTER, subjects.blob_parts("*"))
    return removed


async def _purge(bus: Bus, stream: str, before: float, pattern: str) -> int:
    """Remove the messages under a subject filter that are older than a time; how many."""
    first = await _first_since(bus, stream, before)
    answer = await bus.connection.api(f"STREAM.PURGE.{stream}", {"filter": pattern, "seq": first})
    return int(answer["purged"])


async def _first_since(bus: Bus, stream: str, moment: float) -> int:
    """The sequence from which on all messages are of `moment` or later: found by halving, as sequences rise with time."""
    state = (await bus.connection.api(f"STREAM.INFO.{stream}"))["state"]
    low, high = int(state["first_seq"]), int(state["last_seq"]) + 1
    while low < high:
        middle = (low + high) // 2
        found = await _next(bus, stream, middle)
        if found is None or found[1] >= moment:
            high = middle
        else:
            low = found[0] + 1
    return low


async def _next(bus: Bus, stream: str, sequence: int) -> tuple[int, float] | None:
    """Sequence and wall clock of the first message from a sequence on; None when there is none."""
    try:
        answer: dict[str, Any] = await bus.connection.api(f"STREAM.MSG.GET.{stream}", {"seq": sequence, "next_by_subj": ">"})
    except nats.js.errors.NotFoundError:
        return None
    return int(answer["message"]["seq"]), _seconds(answer["message"]["time"])
