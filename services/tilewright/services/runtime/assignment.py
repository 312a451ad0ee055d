"""One job in hand, from its delivery to its outcome.

The order of steps is what makes any of them safe to be the last: the answer is recorded (first writer wins), then the
outcome is published under an id that makes it happen once, then the job is taken off its queue. Whoever gets the job
after us finds what we left.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from typing import Literal

import msgspec

from tilewright.protocol.bus import Bucket, Bus, Delivery
from tilewright.protocol.codec import decode, encode
from tilewright.protocol.errors import Backlog, NoConnection, TilewrightError
from tilewright.protocol.keys import message_id
from tilewright.protocol.messages import Envelope, Event, Failure, Outcome, Record, StartJob, pack
from tilewright.protocol.subjects import (
    ATTEMPTS_BUCKET,
    CHECKPOINTS_BUCKET,
    MAX_DELIVERIES,
    RUNS_BUCKET,
    Stage,
    done_subject,
)

from .attempts import Attempts, add_failure, attempts
from .cancellations import Cancellations
from .checkpoints import Keeper
from .dead import bury
from .frames import Done, Identified, Note, Refused
from .reporter import Reporter
from .results import ResultStore, run_key
from .settings import Settings
from .supervision import PATIENCE, JobProcess, Stopped

log = logging.getLogger("tilewright.runtime")

#: Seconds between two attempts to put an outcome on a full queue.
FULL_PAUSE = 1.0


class Desk(msgspec.Struct, frozen=True):
    """What all jobs of a worker share."""

    bus: Bus
    stage: Stage
    settings: Settings
    worker: str
    results: ResultStore
    attempts: Bucket
    runs: Bucket
    checkpoints: Bucket
    cancellations: Cancellations
    #: Set when running jobs are to be handed back.
    over: asyncio.Event

    @classmethod
    async def open(cls, bus: Bus, stage: Stage, settings: Settings, worker: str, over: asyncio.Event) -> Desk:
        """Bind to the buckets."""
        attempts, runs, checkpoints = [await bus.bucket(name) for name in (ATTEMPTS_BUCKET, RUNS_BUCKET, CHECKPOINTS_BUCKET)]
        return cls(bus, stage, settings, worker, ResultStore(bus), attempts, runs, checkpoints, Cancellations(bus), over)


class _RunStatus(msgspec.Struct, frozen=True):
    """The part of a run's state that workers look at."""

    status: str = "running"


class Assignment:
    """One delivered job and what becomes of it."""

    def __init__(
        self,
        desk: Desk,
        delivery: Delivery,
        envelope: Envelope,
        start: StartJob,
        process: JobProcess,
        headers: dict[str, str],
        improved: Callable[[], None],
    ) -> None:
        #: Of the messages that come of it.
        self._headers = headers
        self._improved = improved
        self._desk = desk
        self._delivery = delivery
        self._envelope = envelope
        self._start = start
        self._process = process
        self._started = time.time()
        self._attempt = 1
        self._identified = Identified("", "")
        self._known: bytes | None = None
        self._performing = False
        self._cancelled = asyncio.Event()
        self.reporter = Reporter(desk.bus, desk.stage, envelope, desk.worker)

    @property
    def _again(self) -> bool:
        """True when somebody may have worked on this before."""
        return self._delivery.deliveries > 1 or self._envelope.generation > 0

    async def work(self) -> Outcome | None:
        """Do the job; returns its outcome, None when it was handed back or is to be tried again.

        Raises `NoConnection` when the server cannot be reached for long, and `Backlog` when its store is full: both are no failures
        of the job, which then comes again by itself.
        """
        with self._desk.cancellations.of(self._envelope.run) as self._cancelled:
            return await self._work()

    async def _work(self) -> Outcome | None:
        beating = asyncio.create_task(self._beat())
        try:
            try:
                outcome = await self._outcome()
            except (NoConnection, Backlog):
                raise
            except Exception as error:  # a record that cannot be read, say: this job's trouble, not that of the whole worker
                log.exception("%s of run %s", self._envelope.task, self._envelope.run)
                outcome = await self._failed(Failure("exception", f"{type(error).__name__}: {error}"))
            if outcome is not None:
                await self._settle(outcome)
            return outcome
        finally:
            beating.cancel()
            await asyncio.wait([beating])
            await self.reporter.close()

    # --- while it lasts -------------------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Keep the job ours for as long as it shows life; notice a cancellation whose signal was missed."""
        while True:
            await asyncio.sleep(self._desk.settings.ack_wait / 3)
            if not self._performing or self._process.alive:
                await self._delivery.in_progress()
            try:
                if not await self._active():
                    self._cancelled.set()
            except TilewrightError as error:  # the next look may succeed, and the job is ours meanwhile
                log.warning("%s of run %s: %s", self._envelope.task, self._envelope.run, error)

    async def _active(self) -> bool:
        """False once the run has ended or was cancelled."""
        entry = await self._desk.runs.get(self._envelope.run)
        active = entry is None or decode(entry.value, _RunStatus).status == "running"
        if active:
            self._desk.cancellations.seen_active(self._envelope.run)
        return active

    # --- the job --------------------------------------------------------------------------------------------------------------

    async def _outcome(self) -> Outcome | None:
        envelope, desk = self._envelope, self._desk
        before = await attempts(desk.attempts, envelope.run, envelope.task, envelope.generation) if self._again else Attempts()
        self._attempt = len(before.failures) + 1
        if before.exhausted:  # whoever gave it up did not live to take it off the queue
            return await self._give_up(before)
        if not desk.cancellations.recently_active(envelope.run) and not await self._active():
            return self._ended("cancelled")
        left = envelope.deadline - time.time() if envelope.deadline else desk.settings.job_limit
        if left <= 0:
            return self._ended("failed", Failure("limit", f"its deadline had passed {-left:.0f} s before it started"))
        figures = {"attempt": float(self._attempt), "delivery": float(self._delivery.deliveries)}
        await self.reporter.tell("started", Event(figures=figures, worker=desk.worker))
        job = encode(self._start.job) if not self._start.blob else await desk.bus.get_blob(self._start.blob)
        if job is None:
            return await self._failed(Failure("exception", f"blob {self._start.blob}, which holds the job, is not in the store any more"))
        return await self._perform(job, min(left, desk.settings.job_limit))

    async def _perform(self, job: bytes, limit: float) -> Outcome | None:
        """Run the job in the child process until it ends, its run is cancelled, or the worker is to stop."""
        keeper = Keeper(self._desk.checkpoints, look=self._again)
        work = asyncio.create_task(self._process.perform(self._desk.stage, job, self._wanted, self._note, limit, keeper))
        ends = [asyncio.create_task(self._cancelled.wait()), asyncio.create_task(self._desk.over.wait())]
        self._performing = True
        try:
            await asyncio.wait([work, *ends], return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and self._cancelled.is_set():
                self._process.interrupt()
                await asyncio.wait([work, ends[1]], timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and self._cancelled.is_set():
                return self._ended("cancelled")
            if not work.done():
                await self._delivery.nak()
                return None
            return await self._judge(work)
        finally:
            self._performing = False
            for task in (work, *ends):
                task.cancel()
            await asyncio.wait([work, *ends])  # the child is dead by then unless it has answered
            await keeper.close()

    def _note(self, note: Note) -> None:
        if note.kind == "partial":
            self._improved()
        self.reporter.note(note)

    async def _wanted(self, identified: Identified) -> bool:
        """True when the job has to be computed; its answer is remembered when somebody has it."""
        self._identified = identified
        if self._start.use_cache:
            self._known = await self._desk.results.get(identified.key)
        return self._known is None

    async def _judge(self, work: asyncio.Task[Done | Refused | None]) -> Outcome | None:
        try:
            answer = work.result()
        except Stopped as error:
            if self._cancelled.is_set():
                return self._ended("cancelled")
            return await self._failed(Failure(error.reason, str(error)))
        if answer is None:
            assert self._known is not None
            return self._done(self._identified.key, self._known, cached=True)
        if not self._cancelled.is_set() and _interrupted(answer):  # by somebody else, who stops all processes of this machine
            await self._delivery.nak()
            return None
        if isinstance(answer, Done):
            key = self._identified.key if answer.complete else run_key(self._envelope.run, self._envelope.task)
            stands = await self._desk.results.put(key, answer.answer)
            return self._done(key, stands, complete=answer.complete, cpu_seconds=answer.cpu_seconds)
        if self._cancelled.is_set():
            return self._ended("cancelled")
        failure = Failure(answer.reason, answer.message, answer.exit_code)
        return await self._failed(failure) if answer.again else self._ended("failed", failure)

    # --- how it ends ----------------------------------------------------------------------------------------------------------

    def _done(self, key: str, answer: bytes, *, cached: bool = False, complete: bool = True, cpu_seconds: float = 0.0) -> Outcome:
        sha = hashlib.sha256(answer).hexdigest()
        return Outcome(self._desk.stage, "done", result=key, answer=sha, cached=cached, complete=complete, record=self._record(cpu_seconds))

    def _ended(self, status: Literal["failed", "cancelled"], failure: Failure | None = None) -> Outcome:
        return Outcome(self._desk.stage, status, failure=failure, record=self._record())

    def _record(self, cpu_seconds: float = 0.0) -> Record:
        return Record(
            worker=self._desk.worker,
            started=self._started,
            seconds=time.time() - self._started,
            cpu_seconds=cpu_seconds,
            attempts=self._attempt,
            plugin=self._identified.plugins,
        )

    async def _failed(self, failure: Failure) -> Outcome | None:
        """Count a failure; give the job back for another try, or up."""
        envelope = self._envelope
        known = await add_failure(self._desk.attempts, envelope.run, envelope.task, envelope.generation, failure)
        if known.exhausted or self._delivery.deliveries >= MAX_DELIVERIES:
            return await self._give_up(known)
        delay = self._desk.settings.retry_delay * 2 ** (len(known.failures) - 1)
        text = f"attempt {self._attempt} failed, trying again in {delay:g} s"
        await self.reporter.tell("retry", Event(text, failure=failure, worker=self._desk.worker))
        await self._delivery.nak(delay)
        return None

    async def _give_up(self, known: Attempts) -> Outcome:
        failure, envelope = known.failures[-1], self._envelope
        reason = f"{failure.reason}: {failure.message}"
        await bury(self._desk.bus, self._desk.stage, self._delivery, reason, run=envelope.run, task=envelope.task)
        return self._ended("failed", failure)

    async def _settle(self, outcome: Outcome) -> None:
        """Publish the outcome, then take the job off its queue."""
        envelope = self._envelope
        data = pack(outcome, envelope.run, task=envelope.task, generation=envelope.generation)
        identity = message_id(envelope.run, envelope.task, envelope.generation, "outcome")
        while True:
            try:
                await self._desk.bus.publish(done_subject(envelope.run, self._desk.stage), data, identity, headers=self._headers)
                break
            except Backlog as error:
                log.warning("%s of run %s: %s", envelope.task, envelope.run, error)
                await asyncio.sleep(FULL_PAUSE)
        await self._delivery.ack()
        kind: dict[str, Literal["result", "error", "cancelled"]] = {"done": "result", "failed": "error", "cancelled": "cancelled"}
        event = Event(failure=outcome.failure, cached=outcome.cached, worker=self._desk.worker)
        await self.reporter.tell(kind[outcome.status], event)


def _interrupted(answer: Done | Refused) -> bool:
    return answer.interrupted if isinstance(answer, Done) else answer.reason == "cancelled"
