"""One step of the pipeline: read the state, reduce, publish, compare-and-swap, again if somebody was faster.

These functions are all that ever changes a run, whatever stands behind `Port`: a NATS server, or the queue of a
simulation. They may be stopped for good at any ``await``; whoever takes the same event up again finishes the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from tilewright.protocol.errors import Conflict
from tilewright.protocol.messages import Failure, Outcome, Submit
from tilewright.protocol.run import RunState, TaskRecord, members
from tilewright.protocol.subjects import Stage
from tilewright.services.runtime.runs import States, Stored

from .news import PublishEvent
from .reduce import Ended, Event, Lost, PublishJob, Submitted, Tick, expects, reduce, unsent


class Sent(msgspec.Struct, frozen=True):
    """What became of jobs that were to be published; those in neither field are on their queues."""

    #: The queue was full.
    refused: tuple[PublishJob, ...] = ()
    #: The job could not be built, and why.
    broken: tuple[tuple[PublishJob, Failure], ...] = ()


class Port(States, Protocol):
    """Where states are kept and jobs are queued."""

    def now(self) -> float:
        """Wall clock, seconds."""

    async def record(self, state: RunState, stage: Stage, index: int, outcome: Outcome) -> TaskRecord:
        """Record how a task ended unless it is recorded already; returns the record that stands."""

    async def recorded(self, state: RunState, stage: Stage, index: int) -> TaskRecord | None:
        """The record of a task, if it has one."""

    async def send(self, state: RunState, jobs: Sequence[PublishJob]) -> Sent:
        """Build jobs and publish each once."""

    async def tell(self, state: RunState, events: Sequence[PublishEvent]) -> None:
        """Publish events for people; they may be lost."""

    async def absent(self, state: RunState) -> dict[Stage, int]:
        """Of the tasks that `state` holds for outstanding (bitmaps): those whose job is not queued or in work, nor their outcome queued."""


async def apply(port: Port, run: str, event: Event, stored: Stored | None = None) -> RunState | None:
    """Bring one event into a run and return the state that it led to; `stored` saves the first read."""
    while True:
        stored = stored or await port.read(run)
        before = stored.state if stored else None
        after, commands = reduce(before, event)
        if after is None or after is before:
            return after
        jobs = [command for command in commands if isinstance(command, PublishJob)]
        sent = await port.send(after, jobs) if jobs else Sent()
        after = unsent(after, sent.refused)
        if after != before:
            try:
                await port.write(after, stored.revision if stored else 0)
            except Conflict:
                stored = None
                continue
            await port.tell(after, [command for command in commands if isinstance(command, PublishEvent)])
        for job, failure in sent.broken:
            await outcome(port, run, job.stage, job.index, Outcome(job.stage, "failed", failure=failure))
        return after


async def submit(port: Port, run: str, message: Submit, time: float) -> RunState | None:
    """Start a run, or go on with one that somebody started: first its state exists, then its jobs."""
    await apply(port, run, Submitted(run, message.request, message.blob, time))
    return await apply(port, run, Tick(port.now()))


async def outcome(port: Port, run: str, stage: Stage, index: int, message: Outcome) -> bool:
    """Take in how a task ended; False when there is no such run."""
    stored = await port.read(run)
    if stored is None:
        return False
    if expects(stored.state, stage, index):
        record = await port.record(stored.state, stage, index, message)
        await apply(port, run, Ended(stage, index, record, port.now()), stored)
    return True


async def reconcile(port: Port, run: str) -> RunState | None:
    """Close the gaps of one run: take in what is recorded, send lost jobs again, send what had to wait."""
    stored = await port.read(run)
    if stored is None or not stored.state.active:
        return stored.state if stored else None
    for stage, tasks in (await port.absent(stored.state)).items():
        lost = 0
        for index in members(tasks):
            record = await port.recorded(stored.state, stage, index)
            if record is None:
                lost |= 1 << index
            else:
                await apply(port, run, Ended(stage, index, record, port.now()))
        known = stored.state.stage(stage)
        if lost and known is not None:
            await apply(port, run, Lost(stage, lost, known.generation))
    return await apply(port, run, Tick(port.now()))
