"""Jobs from a work queue: one at a time, never held without being worked on."""

from __future__ import annotations

import asyncio
import json
import logging

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg

from ._connection import Connection, not_bootstrapped
from ._pull import EMPTY, Puller, Status
from .errors import NoConnection

log = logging.getLogger("tilewright.bus")

#: Seconds that a client waits longer than the server, for the server's own "nothing there".
GRACE = 1.0
#: Seconds that a live server may take to confirm a verdict.
CONFIRMATION = 1.0
#: Pause after a consumer was found missing: doubled from the first to the second, in seconds.
PAUSES = (0.1, 5.0)


class Delivery:
    """One job taken from a queue. It is ours until `ack`, `nak` or `term`, or until ack_wait passes without `in_progress`.

    The first of `ack`, `nak`, `term` counts; later ones, and later `in_progress`, do nothing.
    """

    def __init__(self, connection: Connection, message: Msg) -> None:
        self._connection = connection
        self._reply = message.reply
        self._settled = False
        self._stream = message.metadata.stream
        metadata = message.metadata
        self.data: bytes = message.data
        self.headers: dict[str, str] = dict(message.headers or {})
        self.subject: str = message.subject
        #: 1 for the first delivery.
        self.deliveries: int = metadata.num_delivered
        self.stream_sequence: int = metadata.sequence.stream

    async def ack(self) -> None:
        """Done; returns once the server has confirmed. Raises `NoConnection` when it cannot be reached: the job comes again."""
        await self._settle(b"+ACK", removes=True)

    async def nak(self, delay: float = 0.0) -> None:
        """Give it back; it is delivered again after `delay` seconds."""
        await self._settle(b"-NAK " + json.dumps({"delay": int(delay * 1e9)}).encode() if delay > 0 else b"-NAK", removes=False)

    async def term(self) -> None:
        """Never deliver it again."""
        await self._settle(b"+TERM", removes=True)

    async def in_progress(self) -> None:
        """Still working: restart ack_wait. Not confirmed, and nothing while the connection is lost."""
        if not self._settled and self._connection.usable:
            await self._connection.send(self._reply, b"+WPI")

    async def _settle(self, verdict: bytes, *, removes: bool) -> None:
        if self._settled:
            return
        self._settled = True
        if not await self._connection.ask(f"the consumer of {self.subject}", lambda _: self._confirm(verdict)) and removes:
            await self._remove()

    async def _confirm(self, verdict: bytes) -> bool:
        """False when a live server does not answer: it crashed since, and its consumer does not know that it delivered this job."""
        try:
            await self._connection.client.request(self._reply, verdict, timeout=CONFIRMATION)
        except nats.errors.TimeoutError:
            if self._connection.usable:
                return False
            raise
        return True

    async def _remove(self) -> None:
        """What an ack of a work queue comes to: the message leaves the stream."""
        try:
            await self._connection.api(f"STREAM.MSG.DELETE.{self._stream}", {"seq": self.stream_sequence, "no_erase": True})
        except nats.js.errors.APIError as error:
            log.debug("%s: removing message %d: %s", self._stream, self.stream_sequence, error.description)


class Queue:
    """A bound durable pull consumer of one work-queue stream. Several tasks may `fetch` from one queue."""

    def __init__(self, connection: Connection, stream: str, consumer: str) -> None:
        self._connection = connection
        self._name = f"consumer {consumer} of stream {stream}"
        self._puller = Puller(connection, stream, consumer, self._arrived)
        self._answers: asyncio.Queue[Msg | Status | None] = asyncio.Queue()
        self._one_at_a_time = asyncio.Lock()
        self._wanted = False
        self._closed = False
        self._pause = PAUSES[0]
        self._returning: set[asyncio.Task[bool]] = set()
        self._forget = connection.subscribe_changes(lambda: self._answers.put_nowait(None))

    async def open(self) -> None:
        """Start listening for answers."""
        await self._puller.open()

    def _arrived(self, answer: Msg | Status) -> None:
        if isinstance(answer, Status):
            self._answers.put_nowait(answer)
        elif self._wanted:
            self._wanted = False
            self._answers.put_nowait(answer)
        else:
            self._hand_back(answer)

    def _hand_back(self, message: Msg) -> None:
        """Return a job at once that came after its fetch had ended, instead of sitting on it for ack_wait."""
        task = asyncio.create_task(self._connection.send(message.reply, b"-NAK"))
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)

    async def fetch(self, timeout: float = 5.0) -> Delivery | None:
        """The next job, or None after `timeout`. Wakes up at once on reconnect; a missing consumer costs a pause, never a busy loop.

        Raises `NoConnection` once the connection is closed for good.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        try:
            async with asyncio.timeout_at(deadline + GRACE), self._one_at_a_time:
                try:
                    return await self._fetch(deadline)
                finally:
                    self._wanted = False
                    self._clear()
        except TimeoutError:
            return None

    async def _fetch(self, deadline: float) -> Delivery | None:
        loop = asyncio.get_running_loop()
        while (left := deadline - loop.time()) > 0:
            if self._closed:
                raise NoConnection(f"{self._name}: the queue is closed")
            if not await self._connection.wait_usable(left):
                return None
            self._clear()
            self._wanted = True
            await self._puller.request(1, max(left, 0.01))
            answer = await self._answers.get()
            if isinstance(answer, Msg):
                self._pause = PAUSES[0]
                return Delivery(self._connection, answer)
            if isinstance(answer, Status) and answer.code not in EMPTY:
                await self._rest(answer, deadline)
        return None

    async def _rest(self, status: Status, deadline: float) -> None:
        """The consumer is gone or in trouble: wait, each time longer, and look again (it is bound by name)."""
        if self._pause == PAUSES[0]:
            log.warning("%s: %s", self._name, status.text or not_bootstrapped("it"))
        wait = min(self._pause, deadline - asyncio.get_running_loop().time())
        self._pause = min(2 * self._pause, PAUSES[1])
        await asyncio.sleep(max(wait, 0.01))

    def _clear(self) -> None:
        """Forget answers to earlier requests; a job among them is handed back."""
        while not self._answers.empty():
            answer = self._answers.get_nowait()
            if isinstance(answer, Msg):
                self._hand_back(answer)

    async def close(self) -> None:
        """Unsubscribe (before the bus is drained); a job that is just arriving is handed back."""
        if self._closed:
            return
        self._closed = True
        self._forget()
        self._answers.put_nowait(None)
        await self._puller.close()
        if self._returning:
            await asyncio.wait(self._returning, timeout=GRACE)
