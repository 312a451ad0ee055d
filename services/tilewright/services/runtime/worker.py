"""A worker: it serves one stage's queue with some slots, one job per slot, and never holds a job that it does not work on."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from typing import Any

from tilewright.protocol.bus import Bus, Delivery, Queue
from tilewright.protocol.errors import Backlog, InvalidMessage, NoConnection
from tilewright.protocol.messages import Envelope, StartJob, UnknownMessage, unpack
from tilewright.protocol.run import check_run, parse_task
from tilewright.protocol.subjects import Stage, job_stream

from . import logs
from .assignment import Assignment, Desk
from .dead import bury
from .metrics import Metrics
from .reporter import Reporter
from .settings import Settings
from .supervision import JobProcess
from .tracing import Tracing

log = logging.getLogger("tilewright.runtime")

#: Seconds that one fetch waits.
FETCH = 5.0
#: Deliveries after which a message of an unknown kind is given up: until then a newer service may be on its way.
UNKNOWN_DELIVERIES = 3
#: Seconds between them.
UNKNOWN_DELAY = 2.0


class Stop:
    """How a worker is told to stop: `asked` ends fetching, `over` hands running jobs back."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.over = asyncio.Event()


class Worker:
    """Serves one stage until it is told to stop."""

    def __init__(
        self,
        bus: Bus,
        stage: Stage,
        settings: Settings,
        name: str,
        stop: Stop,
        metrics: Metrics | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._bus = bus
        self._stage: Stage = stage
        self._settings = settings
        self._name = name
        self._stop = stop
        self._metrics = metrics or Metrics(name)
        self._tracing = tracing or Tracing()
        self._bound = False
        self._busy = 0
        self._counts: Counter[str] = Counter()

    @property
    def ready(self) -> bool:
        """True from when it is bound to its queue until it is told to stop."""
        return self._bound and not self._stop.asked.is_set()

    def stats(self) -> dict[str, Any]:
        """Slots, how many are busy, and how jobs ended since the start."""
        return {"slots": self._settings.slots, "busy": self._busy, **self._counts}

    async def run(self) -> None:
        """Work until `Stop.asked`; what still runs is handed back at `Stop.over`."""
        desk = await Desk.open(self._bus, self._stage, self._settings, self._name, self._stop.over)
        queue = await self._bus.queue(job_stream(self._stage))
        self._bound = True
        listening = asyncio.create_task(desk.cancellations.listen())
        try:
            async with asyncio.TaskGroup() as slots:
                for _ in range(self._settings.slots):
                    slots.create_task(self._slot(desk, queue))
        except BaseExceptionGroup as group:  # one slot's trouble is everybody's: the server is gone for good, or we are wrong
            raise group.exceptions[0] from None
        finally:
            listening.cancel()
            await asyncio.wait([listening])
        await queue.close()

    async def _slot(self, desk: Desk, queue: Queue) -> None:
        reporters: list[Reporter] = []  # of the job at hand

        def heard(text: str) -> None:
            if reporters:
                reporters[-1].log(text)
            else:
                log.info("child process: %s", text.rstrip())

        process = JobProcess(self._settings, heard)
        await process.start()
        try:
            while (delivery := await self._next(queue)) is not None:
                self._busy += 1
                try:
                    await self._handle(desk, delivery, process, reporters)
                except (NoConnection, Backlog) as error:
                    log.warning("job %s is left to be delivered again: %s", delivery.subject, error)
                finally:
                    self._busy -= 1
                    reporters.clear()
        finally:
            await process.close()

    async def _next(self, queue: Queue) -> Delivery | None:
        """The next job; None when it is time to stop. Raises `NoConnection` once the connection is closed for good."""
        asked = asyncio.create_task(self._stop.asked.wait())
        try:
            while not self._stop.asked.is_set():
                fetch = asyncio.create_task(queue.fetch(FETCH))
                await asyncio.wait([fetch, asked], return_when=asyncio.FIRST_COMPLETED)
                if not fetch.done():
                    fetch.cancel()
                    await asyncio.wait([fetch])
                delivery = None if fetch.cancelled() else fetch.result()
                if delivery is not None and not self._stop.asked.is_set():
                    return delivery
                if delivery is not None:
                    await delivery.nak()
            return None
        finally:
            asked.cancel()

    async def _handle(self, desk: Desk, delivery: Delivery, process: JobProcess, reporters: list[Reporter]) -> None:
        try:
            envelope, start = self._open(delivery)
        except UnknownMessage as error:
            if delivery.deliveries <= UNKNOWN_DELIVERIES:
                await delivery.nak(UNKNOWN_DELAY)
                return
            await self._refuse(delivery, error)
        except InvalidMessage as error:
            await self._refuse(delivery, error)
        else:
            if delivery.deliveries > 1:
                self._metrics.redelivered()
            began = time.monotonic()
            with (
                logs.about(envelope.run, envelope.task),
                self._tracing.span(
                    f"process {self._stage}", envelope.run, envelope.task, delivery.headers, delivery=delivery.deliveries
                ) as headers,
            ):
                assignment = Assignment(desk, delivery, envelope, start, process, headers, self._metrics.improved)
                reporters.append(assignment.reporter)
                outcome = await assignment.work()
            if outcome is not None:
                status = "cached" if outcome.cached else outcome.status
                self._counts[status] += 1
                self._metrics.ended(status, time.monotonic() - began)

    def _open(self, delivery: Delivery) -> tuple[Envelope, StartJob]:
        """Envelope and payload of a delivery; `InvalidMessage` unless it is a job of ours."""
        envelope, start = unpack(delivery.data)
        if not isinstance(start, StartJob):
            raise InvalidMessage(f"kind: {envelope.kind}, expected job.start")
        check_run(envelope.run)
        if {parse_task(envelope.task)[0], start.stage} != {self._stage}:
            raise InvalidMessage(f"task {envelope.task!r} of stage {start.stage!r}, expected one of stage {self._stage!r}")
        return envelope, start

    async def _refuse(self, delivery: Delivery, error: InvalidMessage) -> None:
        """Keep a message that nobody can use with the reason, and take it off the queue."""
        log.warning("message %s cannot be used: %s", delivery.subject, error)
        await bury(self._bus, self._stage, delivery, str(error))
        await delivery.ack()
        self._counts["refused"] += 1
