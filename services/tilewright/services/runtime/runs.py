"""Runs as they are stored: what the pipeline writes, and what every client needs to start, read, cancel and compare them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from typing import Protocol, Self

import msgspec

from tilewright.protocol import subjects
from tilewright.protocol.bus import Bucket, Bus
from tilewright.protocol.codec import MAX_VALUE, decode, encode
from tilewright.protocol.errors import Conflict, NoConnection
from tilewright.protocol.keys import message_id, new_run_id
from tilewright.protocol.messages import ANSWERS, Answer, Cancel, Event, RunRequest, Submit, pack
from tilewright.protocol.run import RunState, TaskRecord, cancel, parse_task

from .results import ResultStore

#: Answers that are read at the same time.
READERS = 16
#: Seconds that the pipeline may take to cancel a run, and between two looks.
PATIENCE, POLL = 20.0, 0.05


class Stored(msgspec.Struct, frozen=True):
    """A run's state as it was read."""

    state: RunState
    #: For the compare-and-swap.
    revision: int


class States(Protocol):
    """Where run states are kept."""

    async def read(self, run: str) -> Stored | None:
        """The state of a run; None when there is none."""

    async def write(self, state: RunState, revision: int) -> None:
        """Write over `revision` (0: create); `Conflict` when somebody was faster."""


class Runs:
    """The buckets of run states and task records."""

    def __init__(self, runs: Bucket, tasks: Bucket) -> None:
        self._runs = runs
        self._tasks = tasks

    @classmethod
    async def open(cls, bus: Bus) -> Self:
        """Bind to the buckets."""
        return cls(await bus.bucket(subjects.RUNS_BUCKET), await bus.bucket(subjects.TASKS_BUCKET))

    async def ids(self) -> list[str]:
        """Ids of all runs, oldest first."""
        return await self._runs.keys()

    async def read(self, run: str) -> Stored | None:
        """The state of a run; None when there is none."""
        entry = await self._runs.get(run)
        return None if entry is None else Stored(decode(entry.value, RunState), entry.revision)

    async def write(self, state: RunState, revision: int) -> None:
        """Write over `revision` (0: create); `Conflict` when somebody was faster."""
        if revision:
            await self._runs.update(state.run, encode(state), revision)
        else:
            await self._runs.create(state.run, encode(state))

    async def recorded(self, run: str, task: str) -> TaskRecord | None:
        """The record of a task; None while it has none."""
        entry = await self._tasks.get(f"{run}.{task}")
        return None if entry is None else decode(entry.value, TaskRecord)

    async def record(self, run: str, record: TaskRecord) -> TaskRecord:
        """Record a task unless it is recorded already; returns the record that stands."""
        try:
            await self._tasks.create(f"{run}.{record.task}", encode(record))
        except Conflict:
            return await self.recorded(run, record.task) or record
        return record

    async def records(self, run: str) -> tuple[TaskRecord, ...]:
        """Every record of a run, in the order of stages and tasks."""
        found = []
        for key in await self._tasks.keys(f"{run}."):
            record = await self.recorded(run, key.removeprefix(f"{run}."))
            if record is not None:
                found.append(record)
        return tuple(sorted(found, key=_order))


def _order(record: TaskRecord) -> tuple[int, int]:
    stage, index = parse_task(record.task)
    return subjects.STAGES.index(stage), index


class RunView(msgspec.Struct, frozen=True):
    """Everything about one run."""

    state: RunState
    records: tuple[TaskRecord, ...]
    #: Task id -> answer, for each record whose answer is still in the store.
    answers: dict[str, Answer]


async def answer_of(results: ResultStore, record: TaskRecord) -> Answer | None:
    """The answer that a record points to; None when it has none or the store has dropped it."""
    data = await results.get(record.result) if record.result else None
    if data is None:
        return None
    stage, _ = parse_task(record.task)
    answer: Answer = decode(data, ANSWERS[stage], limit=MAX_VALUE)
    return answer


async def load_run(bus: Bus, run: str) -> RunView | None:
    """State, records and answers of a run; None when there is no such run. It reads no events."""
    runs = await Runs.open(bus)
    stored = await runs.read(run)
    if stored is None:
        return None
    records = await runs.records(run)
    results = ResultStore(bus)
    readers = asyncio.Semaphore(READERS)

    async def answer(record: TaskRecord) -> Answer | None:
        async with readers:
            return await answer_of(results, record)

    answers = await asyncio.gather(*(answer(record) for record in records))
    found = {record.task: each for record, each in zip(records, answers, strict=True) if each is not None}
    return RunView(stored.state, records, found)


async def list_runs(bus: Bus) -> tuple[RunState, ...]:
    """States of all runs, oldest first."""
    runs = await Runs.open(bus)
    stored = [await runs.read(run) for run in await runs.ids()]
    return tuple(each.state for each in stored if each is not None)


def digest(records: Iterable[TaskRecord]) -> str:
    """sha256 (hex) over the recorded results, ``<task> <sha256 of the answer>`` per line, sorted: equal runs have equal digests.

    A task that failed counts with the reason of its failure in place of the hash.
    """
    lines = sorted(f"{record.task} {record.answer or (record.failure.reason if record.failure else record.status)}\n" for record in records)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


async def submit(bus: Bus, request: RunRequest, run: str = "") -> str:
    """Ask for a run and return its id, once the server has it for sure. A given `run` is asked for once, however often this is called."""
    run = run or new_run_id()
    blob = ""
    if request.workload is not None or request.architecture is not None:
        blob = await bus.put_blob(encode(request))
        analysis = request.analysis and msgspec.structs.replace(request.analysis, given=())
        request = msgspec.structs.replace(request, workload=None, architecture=None, analysis=analysis)
    await bus.publish(subjects.SUBMIT, pack(Submit(request, blob), run), message_id(run, "run", 0, "submit"))
    return run


async def cancel_run(states: States, run: str, now: float) -> RunState | None:
    """Mark a run as cancelled, unless it has ended; the state that stands, None when there is no such run."""
    while True:
        stored = await states.read(run)
        if stored is None or not stored.state.active:
            return stored.state if stored else None
        after = cancel(stored.state, now)
        try:
            await states.write(after, stored.revision)
        except Conflict:
            continue
        return after


async def ask_to_cancel(bus: Bus, run: str) -> None:
    """Leave word for the pipeline to cancel a run. A run that is still to be started is cancelled once it is."""
    await bus.publish(subjects.CANCEL, pack(Cancel(), run), message_id(run, "run", 0, f"cancel-{new_run_id()}"))


async def request_cancel(bus: Bus, run: str, *, patience: float = PATIENCE) -> RunState | None:
    """Have a run cancelled, and wait until it is.

    Returns the state that stands (it may have ended before), None when there is no such run. Raises `NoConnection` when no
    pipeline has done it within `patience` seconds: it will be, once there is one.
    """
    runs = await Runs.open(bus)
    stored = await runs.read(run)
    if stored is None or not stored.state.active:
        return stored.state if stored else None
    await ask_to_cancel(bus, run)
    try:
        async with asyncio.timeout(patience):
            while stored is not None and stored.state.active:
                await asyncio.sleep(POLL)
                stored = await runs.read(run)
    except TimeoutError:
        raise NoConnection(
            f"no pipeline has taken up the cancellation of run {run} within {patience:g} s; it is queued for the next that starts"
        ) from None
    return stored.state if stored else None


async def carry_out_cancel(bus: Bus, states: States, run: str, now: float) -> RunState | None:
    """Cancel a run: durably in its state, then by a signal so that running jobs stop at once; the state, None without one."""
    state = await cancel_run(states, run, now)
    if state is not None and state.cancelled:
        await bus.signal(subjects.cancel_subject(run), run.encode())
        subject = subjects.event_subject(run, "run", "-", "state")
        await bus.emit(subject, pack(Event(state.status), run), message_id(run, "run", 0, "state"))
    return state
