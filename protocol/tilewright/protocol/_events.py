"""Reading a stream from a sequence on, across reconnects, without gaps or repeats.

The reader owns an unnamed consumer in the server's memory and makes a new one, from the message after the last it
delivered, whenever the connection came back or the consumer's own numbering shows a gap. (A server that died may have lost
the tail of an asynchronously persisted stream and given its numbers out again; then the reader goes on by time.)
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.msg import Msg

from ._connection import STREAM_NOT_FOUND, Connection, not_bootstrapped
from ._pull import ALIVE, EMPTY, Puller, Status
from .errors import NotBootstrapped

log = logging.getLogger("tilewright.bus")

#: Messages asked for at once: the most that waits here for a slow reader.
BATCH = 100
#: Seconds that one request waits for messages.
EXPIRES = 20.0
#: Seconds after which the server says that it is still there, and those without a word after which its consumer is gone: the
#: server that held it may be another one of the cluster than ours, and dead.
HEARTBEAT, SILENCE = 2.0, 5.0
#: Seconds after which the server drops the consumer of a reader that is gone.
INACTIVE = 60.0
#: Seconds before a consumer that was lost without a reconnect is made again.
PAUSE = 0.2


class StreamEvent(msgspec.Struct, frozen=True):
    """One event as read back."""

    subject: str
    data: bytes
    sequence: int
    #: Wall clock when it was stored, in seconds.
    stored: float = 0.0


def _stored_ns(reply: str) -> int:
    """Time of a message in ns, from its acknowledgement subject (whose newer form names domain and account first)."""
    tokens = reply.split(".")
    return int(tokens[7 if len(tokens) == 9 else 9])


class _Rebuild(Exception):
    """The consumer is no longer the right one."""


class Reader:
    """The state of one iteration: where it is, and the consumer it reads from."""

    def __init__(self, connection: Connection, stream: str, subject: str, start: int, follow: bool) -> None:
        self._connection = connection
        self._stream = stream
        self._subject = subject
        self._start = start
        self._follow = follow
        #: Sequence and time (ns) of the last message delivered.
        self._last: tuple[int, int] | None = None
        self._end = 0
        self._answers: asyncio.Queue[Msg | Status | None] = asyncio.Queue()
        self._puller: Puller | None = None
        self._consumer = ""
        self._forget = connection.subscribe_changes(lambda: self._answers.put_nowait(None))

    async def read(self) -> AsyncIterator[StreamEvent]:
        """The events; see `Bus.events`."""
        self._end = int((await self._stream_state())["last_seq"])
        while True:
            await self._connection.wait_usable()
            pending = await self._make_consumer()
            if not self._follow and not pending:
                return
            try:
                async for event in self._consume():
                    yield event
                return
            except _Rebuild as reason:
                log.debug("events %s: %s, reading on from %s", self._subject, reason, self._last)

    async def _consume(self) -> AsyncIterator[StreamEvent]:
        outstanding, expected = 0, 1
        while True:
            if outstanding == 0:
                assert self._puller is not None
                await self._puller.request(BATCH, EXPIRES, HEARTBEAT)
                outstanding = BATCH
            try:
                async with asyncio.timeout(SILENCE):
                    answer = await self._answers.get()
            except TimeoutError as error:
                raise _Rebuild("the consumer fell silent") from error
            if answer is None:
                raise _Rebuild("reconnected")
            if isinstance(answer, Status):
                if answer.code == ALIVE:
                    continue
                if answer.code not in EMPTY:
                    await asyncio.sleep(PAUSE)
                    raise _Rebuild(answer.text)
                outstanding = 0
                continue
            metadata = answer.metadata
            if metadata.sequence.consumer != expected:
                raise _Rebuild(f"message {expected} of the consumer is missing")
            expected += 1
            outstanding -= 1
            sequence, stored = metadata.sequence.stream, _stored_ns(answer.reply)
            fresh = self._last is None or stored > self._last[1] or sequence > self._last[0]
            if fresh and (self._follow or sequence <= self._end):
                self._last = (sequence, stored)
                yield StreamEvent(answer.subject, answer.data, sequence, stored / 1e9)
            if not self._follow and (metadata.num_pending == 0 or sequence >= self._end):
                return

    async def _stream_state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = (await self._connection.api(f"STREAM.INFO.{self._stream}"))["state"]
        except nats.js.errors.NotFoundError as error:
            raise not_bootstrapped(f"stream {self._stream}") from error
        return state

    async def _make_consumer(self) -> int:
        """A new consumer from where we are; the number of messages that wait for us."""
        await self._drop_consumer()
        self._answers = asyncio.Queue()
        self._consumer = f"tw_reader_{secrets.token_hex(8)}"
        self._puller = Puller(self._connection, self._stream, self._consumer, self._answers.put_nowait)
        await self._puller.open()
        config: dict[str, Any] = {
            "name": self._consumer,
            "ack_policy": "none",
            "replay_policy": "instant",
            "filter_subject": self._subject,
            "inactive_threshold": int(INACTIVE * 1e9),
            "mem_storage": True,
            "num_replicas": 1,
            **await self._position(),
        }
        call = f"CONSUMER.CREATE.{self._stream}.{self._consumer}"
        try:
            created = await self._connection.api(call, {"stream_name": self._stream, "config": config})
        except nats.js.errors.APIError as error:
            if error.err_code == STREAM_NOT_FOUND:
                raise not_bootstrapped(f"stream {self._stream}") from error
            raise
        return int(created["num_pending"])

    async def _position(self) -> dict[str, Any]:
        if self._last is None:
            return {"deliver_policy": "by_start_sequence", "opt_start_seq": max(1, self._start)}
        sequence, stored = self._last
        if await self._was_rewound(sequence, stored):
            when = datetime.fromtimestamp(stored // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            return {"deliver_policy": "by_start_time", "opt_start_time": f"{when}.{stored % 10**9:09d}Z"}
        return {"deliver_policy": "by_start_sequence", "opt_start_seq": sequence + 1}

    async def _was_rewound(self, sequence: int, stored: int) -> bool:
        """True when the server came back without the message we last saw and has given, or will give, its number out again."""
        try:
            message = await self._connection.ask(
                f"stream {self._stream}", lambda _: self._connection.js.get_msg(self._stream, seq=sequence)
            )
        except nats.js.errors.NotFoundError:
            return int((await self._stream_state())["last_seq"]) < sequence
        return message.time is not None and abs(message.time.timestamp() - stored / 1e9) > 1e-3

    async def _drop_consumer(self) -> None:
        if self._puller is None:
            return
        puller, self._puller = self._puller, None
        try:
            await puller.close()
            if self._connection.usable:
                await self._connection.js.delete_consumer(self._stream, self._consumer)
        except (nats.errors.Error, TimeoutError, NotBootstrapped) as error:
            log.debug("consumer %s: %s: %s", self._consumer, type(error).__name__, error)

    async def close(self) -> None:
        """Give the consumer back."""
        self._forget()
        await self._drop_consumer()
