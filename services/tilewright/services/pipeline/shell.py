"""One replica of the pipeline: its two queues, its look for lost jobs, and what it does with messages it cannot use.

Any number of replicas may run; none is special. What a replica holds in memory it can lose at any instant.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from tilewright.protocol import subjects
from tilewright.protocol.bus import Bus, Delivery, Queue
from tilewright.protocol.codec import decode
from tilewright.protocol.errors import InvalidInput, InvalidMessage, NoConnection, TilewrightError
from tilewright.protocol.keys import message_id
from tilewright.protocol.messages import Cancel, Envelope, Event, Failure, Outcome, Submit, UnknownMessage, pack, unpack
from tilewright.protocol.run import check_run, parse_task
from tilewright.protocol.subjects import Stage, done_subject
from tilewright.services.runtime import logs
from tilewright.services.runtime.dead import bury
from tilewright.services.runtime.metrics import Metrics
from tilewright.services.runtime.runs import carry_out_cancel
from tilewright.services.runtime.tracing import Tracing

from . import step
from .port import NatsPort

log = logging.getLogger("tilewright.pipeline")

#: Deliveries after which a message of an unknown kind or run, and one that fails for no good reason, is put aside.
UNKNOWN_TRIES, UNEXPECTED_TRIES = 4, 20
#: Seconds before such a message is tried again; doubled each time up to the second.
PAUSES = (0.5, 30.0)

#: Takes in a message from a subject; False when there is no such run.
Handler = Callable[[str, Envelope, Any], Awaitable[bool]]


class Replica:
    """See the module docstring. `tick` is the number of seconds between two looks for lost jobs."""

    def __init__(self, bus: Bus, port: NatsPort, tick: float, metrics: Metrics | None = None, tracing: Tracing | None = None) -> None:
        self._bus = bus
        self._metrics = metrics or Metrics(subjects.PIPELINE)
        self._tracing = tracing or Tracing()
        self._port = port
        self._tick = tick
        self._over: set[str] = set()
        self.handled = 0
        #: True from when it is bound to its queues until it stops.
        self.ready = False

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; what is in hand then is finished first."""
        queues = (await self._bus.queue(subjects.RUN_STREAM), await self._bus.queue(subjects.DONE_STREAM))
        self.ready = True
        workers = [
            asyncio.create_task(self._consume(queues[0], self._asked, stop)),
            asyncio.create_task(self._consume(queues[1], self._ended, stop)),
        ]
        watch = asyncio.create_task(self._watch())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([*workers, watch, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.ready = False
            stop.set()
            watch.cancel()
            for queue in queues:
                await queue.close()
            await asyncio.wait([*workers, watch, stopping])
        for task in workers:
            task.result()

    async def _consume(self, queue: Queue, handle: Handler, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                delivery = await queue.fetch()
            except NoConnection:
                if stop.is_set():
                    return
                raise
            if delivery is not None:
                await self._handle(delivery, handle)

    async def _handle(self, delivery: Delivery, handle: Handler) -> None:
        """Take one message in and settle it. Whatever it is, the replica lives on and the message is not lost."""
        try:
            try:
                envelope, message = unpack(delivery.data)
                with (
                    logs.about(envelope.run, envelope.task),
                    self._tracing.span(f"take {envelope.kind}", envelope.run, envelope.task, delivery.headers),
                ):
                    taken = await handle(delivery.subject, envelope, message)
                if taken:
                    self.handled += 1
                    await delivery.ack()
                else:
                    await self._again(delivery, "no such run", UNKNOWN_TRIES)
            except UnknownMessage as error:
                await self._again(delivery, str(error), UNKNOWN_TRIES)
            except InvalidInput as error:
                await self._put_aside(delivery, str(error))
            except NoConnection:
                raise
            except Exception as error:
                log.exception("%s: message %d", delivery.subject, delivery.stream_sequence)
                await self._again(delivery, f"{type(error).__name__}: {error}", UNEXPECTED_TRIES)
        except TilewrightError as error:
            # Not settled, so it is delivered again.
            log.warning("%s: message %d: %s", delivery.subject, delivery.stream_sequence, error)

    async def _again(self, delivery: Delivery, reason: str, tries: int) -> None:
        if delivery.deliveries < tries:
            await delivery.nak(min(PAUSES[0] * 2 ** (delivery.deliveries - 1), PAUSES[1]))
        else:
            await self._put_aside(delivery, reason)

    async def _put_aside(self, delivery: Delivery, reason: str) -> None:
        """Keep a message that cannot be used with its reason, tell the run's watchers, and go on."""
        log.error("%s: message %d is put aside: %s", delivery.subject, delivery.stream_sequence, reason)
        run = _run_of(delivery)
        await bury(self._bus, subjects.PIPELINE, delivery, reason, run=run)
        await delivery.term()
        if run:
            event = Event(reason, failure=Failure("bad input", reason, exit_code=2))
            identity = message_id(run, "run", delivery.stream_sequence, "error")
            await self._bus.emit(subjects.event_subject(run, "run", "-", "error"), pack(event, run), identity)

    async def _asked(self, subject: str, envelope: Envelope, message: Any) -> bool:
        check_run(envelope.run)
        if isinstance(message, Cancel):
            return await carry_out_cancel(self._bus, self._port, envelope.run, self._port.now()) is not None
        if not isinstance(message, Submit):
            raise InvalidInput(f"kind: {envelope.kind!r} on {subject}, expected run.submit or run.cancel")
        await step.submit(self._port, envelope.run, message, envelope.sent)
        return True

    async def _ended(self, subject: str, envelope: Envelope, message: Any) -> bool:
        if not isinstance(message, Outcome):
            raise InvalidInput(f"kind: {envelope.kind!r} among outcomes, expected task.outcome")
        stage, index = parse_task(envelope.task)
        _check_sender(subject, envelope.run, stage, message)
        return await step.outcome(self._port, envelope.run, stage, index, message)

    async def _watch(self) -> None:
        """Look for lost jobs, first of all at those of runs that were going on while nobody was here."""
        while True:
            try:
                await self._reconcile()
                for queue in (subjects.RUN_STREAM, *map(subjects.job_stream, subjects.STAGES), subjects.DONE_STREAM):
                    self._metrics.queue(queue, *await self._bus.lag(queue))
            except TilewrightError as error:
                log.warning("looking for lost jobs: %s", error)
            await asyncio.sleep(self._tick)

    async def _reconcile(self) -> None:
        runs = await self._port.ids()
        self._over.intersection_update(runs)
        for run in runs:
            if run not in self._over:
                state = await step.reconcile(self._port, run)
                if state is not None and not state.active:
                    self._over.add(run)


def _check_sender(subject: str, run: str, stage: Stage, outcome: Outcome) -> None:
    """Raise unless an outcome came in where only its own stage's service may publish, and names an answer of that stage."""
    if subject != done_subject(run, stage) or outcome.stage != stage:
        raise InvalidMessage(f"outcome of {run}.{stage} on {subject}, expected {done_subject(run, stage)}")
    if outcome.result and not outcome.result.startswith(f"{stage}."):
        raise InvalidMessage(f"result: {outcome.result!r}, expected an answer of stage {stage}")


def _run_of(delivery: Delivery) -> str:
    """The run that a message is about, as far as that can be told; empty when it cannot."""
    try:
        run = decode(delivery.data, Envelope).run
        check_run(run)
    except InvalidInput:
        return ""
    return run
