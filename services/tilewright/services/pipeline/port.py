"""The pipeline's `Port` on NATS: states and records in buckets, jobs built from recorded answers and published once."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Self, cast

from msgspec.structs import replace

from tilewright.protocol import subjects
from tilewright.protocol.bus import Bus
from tilewright.protocol.codec import BLOB_THRESHOLD, MAX_VALUE, decode, encode
from tilewright.protocol.errors import Backlog, InvalidMessage
from tilewright.protocol.keys import message_id
from tilewright.protocol.messages import Answer, Event, Failure, Outcome, Profile, RunRequest, StartJob, pack
from tilewright.protocol.run import RunState, TaskRecord, members, task_id
from tilewright.protocol.subjects import EventKind, Stage
from tilewright.services.runtime.results import ResultStore
from tilewright.services.runtime.runs import Runs, Stored, answer_of
from tilewright.services.runtime.tracing import Tracing

from . import plan
from .news import PublishEvent
from .reduce import PublishJob
from .step import Sent

#: Jobs that are being published at the same time.
PUBLISHERS = 16
#: Answers that are kept decoded.
RECENT = 512


class Gone(Exception):
    """Something that a job is built from is not in the store any more."""


class NatsPort:
    """See `Port`. One instance serves one replica."""

    def __init__(self, bus: Bus, runs: Runs, tracing: Tracing) -> None:
        self._bus = bus
        self._tracing = tracing
        self._runs = runs
        self._results = ResultStore(bus)
        self._recent: OrderedDict[tuple[str, str], Answer] = OrderedDict()

    @classmethod
    async def open(cls, bus: Bus, tracing: Tracing | None = None) -> Self:
        """Bind to the buckets."""
        return cls(bus, await Runs.open(bus), tracing or Tracing())

    def now(self) -> float:
        """Wall clock, seconds."""
        return time.time()

    async def read(self, run: str) -> Stored | None:
        """The state of a run; None when there is none."""
        return await self._runs.read(run)

    async def write(self, state: RunState, revision: int) -> None:
        """Write over `revision` (0: create); `Conflict` when somebody was faster."""
        await self._runs.write(state, revision)

    async def ids(self) -> list[str]:
        """Ids of all runs."""
        return await self._runs.ids()

    async def recorded(self, state: RunState, stage: Stage, index: int) -> TaskRecord | None:
        """The record of a task, if it has one."""
        return await self._runs.recorded(state.run, task_id(stage, index))

    async def record(self, state: RunState, stage: Stage, index: int, outcome: Outcome) -> TaskRecord:
        """Record how a task ended unless it is recorded already; returns the record that stands."""
        task = task_id(stage, index)
        record = TaskRecord(
            task,
            await self._name(state, task),
            outcome.status,
            result=outcome.result,
            answer=outcome.answer,
            failure=outcome.failure,
            cached=outcome.cached,
            complete=outcome.complete,
            record=outcome.record,
        )
        if record.status == "done":
            try:
                record = replace(record, usable=plan.usable(await self._read(state.run, record)))
            except (Gone, InvalidMessage) as error:
                record = TaskRecord(task, record.name, "failed", failure=Failure("exception", str(error)), record=record.record)
        return await self._runs.record(state.run, record)

    async def send(self, state: RunState, jobs: Sequence[PublishJob]) -> Sent:
        """Build jobs and publish each once."""
        refused: list[PublishJob] = []
        broken: list[tuple[PublishJob, Failure]] = []
        full: set[Stage] = set()

        async def publish(job: PublishJob, data: bytes) -> None:
            task = task_id(job.stage, job.index)
            subject, identity = subjects.job_subject(job.stage, state.run, task), message_id(state.run, task, job.generation, "job")
            try:
                with self._tracing.span(f"publish {job.stage}", state.run, task) as headers:
                    await self._bus.publish(subject, data, identity, headers=headers)
            except Backlog:
                full.add(job.stage)
                refused.append(job)

        for start in range(0, len(jobs), PUBLISHERS):
            ready = []
            for job in jobs[start : start + PUBLISHERS]:
                if job.stage in full:
                    refused.append(job)
                    continue
                try:
                    data = await self._message(state, job)
                except (Gone, InvalidMessage) as error:
                    broken.append((job, Failure("exception", str(error))))
                    continue
                ready.append(publish(job, data))
            await asyncio.gather(*ready)
        return Sent(tuple(refused), tuple(broken))

    async def tell(self, state: RunState, events: Sequence[PublishEvent]) -> None:
        """Publish events for people; they may be lost."""
        for event in events:
            await self._emit(state.run, event.stage, "-", event.kind, event.event)

    async def absent(self, state: RunState) -> dict[Stage, int]:
        """Of the tasks that `state` holds for outstanding (bitmaps): those whose job is not queued or in work, nor their outcome queued.

        Jobs are looked for first: a worker lets go of its job only after its outcome is queued.
        """
        found: dict[Stage, int] = {}
        for stage in state.stages:
            if not stage.outstanding:
                continue
            stream = subjects.job_stream(stage.stage)
            held = set(await self._bus.subjects(stream, subjects.job_subject(stage.stage, state.run)))
            # Jobs that the server has given up delivering stay in the stream without ever being worked on.
            if held and await self._bus.lag(stream) == (0, 0):
                held = set()
            missing = sum(
                1 << index
                for index in members(stage.outstanding)
                if subjects.job_subject(stage.stage, state.run, task_id(stage.stage, index)) not in held
            )
            if missing:
                found[stage.stage] = missing
        if found and await self._bus.subjects(subjects.DONE_STREAM, subjects.outcomes_of(state.run)):
            return {}
        return found

    async def _message(self, state: RunState, job: PublishJob) -> bytes:
        """The job of a task as a message; tells people on the way that it is being queued."""
        task = task_id(job.stage, job.index)
        answers = {each: await self._answer(state.run, each) for each in plan.inputs(state, task)}
        request = await self._request(state) if job.stage == "profile" else state.request
        content = plan.job(request, task, answers)
        await self._emit(state.run, job.stage, task, "queued", Event(await self._name(state, task)), job.generation)
        encoded = encode(content)
        if len(encoded) > BLOB_THRESHOLD:
            start = StartJob(job.stage, blob=await self._bus.put_blob(encoded), use_cache=state.request.use_cache)
        else:
            start = StartJob(job.stage, content, use_cache=state.request.use_cache)
        return pack(start, state.run, task=task, generation=job.generation)

    async def _request(self, state: RunState) -> RunRequest:
        """The whole request, with workload and architecture."""
        if not state.blob:
            return state.request
        data = await self._bus.get_blob(state.blob)
        if data is None:
            raise Gone(f"blob {state.blob}: the request is not in the store any more")
        return decode(data, RunRequest, limit=MAX_VALUE)

    async def _name(self, state: RunState, task: str) -> str:
        try:
            profile = cast(Profile, await self._answer(state.run, plan.PROFILE)) if task.startswith(("map-", "kernel-")) else None
        except (Gone, InvalidMessage):
            profile = None
        return plan.name(state.request, task, profile)

    async def _answer(self, run: str, task: str) -> Answer:
        """The recorded answer of a task."""
        if (run, task) in self._recent:
            self._recent.move_to_end((run, task))
            return self._recent[run, task]
        record = await self._runs.recorded(run, task)
        if record is None:
            raise Gone(f"{task}: its record is not in the store any more")
        return await self._read(run, record)

    async def _read(self, run: str, record: TaskRecord) -> Answer:
        answer = await answer_of(self._results, record)
        if answer is None:
            raise Gone(f"{record.task}: its answer {record.result} is not in the result store")
        self._recent[run, record.task] = answer
        if len(self._recent) > RECENT:
            self._recent.popitem(last=False)
        return answer

    async def _emit(self, run: str, stage: str, task: str, kind: EventKind, event: Event, generation: int = 0) -> None:
        about = task if task != "-" else stage
        await self._bus.emit(subjects.event_subject(run, stage, task, kind), pack(event, run), message_id(run, about, generation, kind))
