"""NATS, behind one small class. Everything that talks to a server goes through here.

What a caller may rely on: every publish to a stream and every write to a bucket happens once, whatever the connection does
meanwhile; every wait wakes up when the connection comes back; nothing waits for ever on a connection that is closed for good.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg

from . import _discovery, subjects
from ._blobs import Blobs
from ._bucket import Bucket, Entry
from ._connection import UNSUBSCRIBING, Connection, check_schema, not_bootstrapped
from ._discovery import ServiceInfo
from ._events import Reader, StreamEvent
from ._publish import publish
from ._queue import Delivery, Queue
from ._settings import BusSettings

__all__ = ["Bucket", "Bus", "BusSettings", "Delivery", "Entry", "Queue", "ServiceInfo", "StreamEvent"]

log = logging.getLogger("tilewright.bus")


class Bus:
    """A connection. Use ``async with await Bus.connect(settings) as bus``; leaving drains it (bounded)."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._blobs = Blobs(connection)
        self._opened: list[Callable[[], Any]] = []

    @classmethod
    async def connect(cls, settings: BusSettings) -> Bus:
        """Connect, or raise `NoConnection` that says why (nobody listens, wrong token, untrusted certificate).

        A setting that cannot be used (no such file, not an address) is `InvalidInput`.
        """
        return cls(await Connection.open(settings))

    async def __aenter__(self) -> Bus:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Drain within a few seconds, whatever is still subscribed."""
        opened, self._opened = self._opened, []
        await asyncio.gather(*(_end(close) for close in opened))
        await self.connection.close()

    @property
    def connected(self) -> bool:
        """True while the connection is up; it is re-established by itself."""
        return self.connection.usable

    @property
    def reconnects(self) -> int:
        """Times the connection was re-established."""
        return self.connection.reconnects

    async def publish(self, subject: str, data: bytes, message_id: str, *, headers: dict[str, str] | None = None) -> bool:
        """Publish once to a stream: retried (same id) until confirmed; False when the server had it already.

        (False may also mean that an earlier attempt of this very call was stored and its answer lost.)
        Raises `Backlog` when the stream is full, `NotBootstrapped` when no stream takes the subject, `NoConnection` after 30 s.
        """
        answer = await publish(self.connection, subject, data, message_id, headers)
        return not answer.duplicate

    async def emit(self, subject: str, data: bytes, message_id: str) -> None:
        """Publish an event: not confirmed, never raises for a lost connection."""
        await self.connection.send(subject, data, headers={"Nats-Msg-Id": message_id})

    async def signal(self, subject: str, data: bytes = b"") -> None:
        """Core publish (no stream): whoever listens now hears it. Never raises for a lost connection."""
        await self.connection.send(subject, data)

    async def listen(self, subject: str) -> AsyncGenerator[bytes, None]:
        """Core subscription, from the first step of the iteration on; ends when the bus is closed."""
        heard: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def hear(message: Msg) -> None:
            heard.put_nowait(message.data)

        subscription = await self.connection.subscribe(subject, hear)
        forget = self.connection.subscribe_changes(lambda: heard.put_nowait(None))
        try:
            while True:
                data = await heard.get()
                if data is not None:
                    yield data
                elif self.connection.client.is_closed:
                    return
        finally:
            forget()
            await self.connection.unsubscribe(subscription)

    async def queue(self, stream: str) -> Queue:
        """Bind to a stream's durable consumer (`subjects.durable`); `NotBootstrapped` when it does not exist."""
        consumer = subjects.durable(stream)
        info = await self._consumer_info(stream, consumer)
        check_schema(f"consumer {consumer} of stream {stream}", info["config"])
        queue = Queue(self.connection, stream, consumer)
        await queue.open()
        self._opened.append(queue.close)
        return queue

    async def _consumer_info(self, stream: str, consumer: str) -> dict[str, Any]:
        try:
            return await self.connection.api(f"CONSUMER.INFO.{stream}.{consumer}")
        except nats.js.errors.NotFoundError as error:
            raise not_bootstrapped(f"consumer {consumer} of stream {stream}") from error

    async def bucket(self, name: str) -> Bucket:
        """Bind to a KV bucket; `NotBootstrapped` when it does not exist."""
        try:
            info = await self.connection.api(f"STREAM.INFO.KV_{name}")
        except nats.js.errors.NotFoundError as error:
            raise not_bootstrapped(f"bucket {name}") from error
        check_schema(f"bucket {name}", info["config"])
        return Bucket(self.connection, name)

    async def events(
        self, subject: str, *, stream: str = subjects.EVENT_STREAM, start: int = 1, follow: bool = True
    ) -> AsyncGenerator[StreamEvent, None]:
        """Events matching a subject filter from a sequence on; rebuilt within milliseconds of a reconnect, without gaps or repeats.

        With ``follow=False`` it ends at what the stream held when it started.
        """
        reader = Reader(self.connection, stream, subject, start, follow)
        try:
            async for event in reader.read():
                yield event
        finally:
            await reader.close()

    async def put_blob(self, data: bytes) -> str:
        """Store bytes by content in 512 KiB chunks; returns the key (sha256 hex). Existing blobs are not sent again."""
        return await self._blobs.put(data)

    async def get_blob(self, key: str) -> bytes | None:
        """Bytes of a blob, verified against its key; None when it is gone."""
        return await self._blobs.get(key)

    async def serve_info(self, name: str, metadata: dict[str, str], stats: Callable[[], dict[str, Any]]) -> None:
        """Answer ``$SRV`` discovery as a service (nats.micro); `stats` is a callable that returns a dict (JSON values)."""
        service = await _discovery.serve(self.connection, name, importlib.metadata.version("tilewright"), metadata, stats)
        self._opened.append(service.stop)

    async def services(self, timeout: float = 0.4) -> Sequence[ServiceInfo]:
        """Every running service instance that answers in time."""
        return await _discovery.discover(self.connection, timeout)

    async def subjects(self, stream: str, pattern: str) -> dict[str, int]:
        """Subjects under which a stream holds messages now, with their number: whether a job is still queued or in work."""
        return await self.connection.subjects(stream, pattern)

    async def lag(self, stream: str) -> tuple[int, int]:
        """``(pending, being worked on)`` of a work queue, as its consumer counts.

        Jobs that used up their deliveries are in neither, and after a crash of the server the count may be short for a while;
        `subjects` says what the stream really holds.
        """
        info = await self._consumer_info(stream, subjects.durable(stream))
        return int(info["num_pending"]), int(info["num_ack_pending"])


async def _end(close: Callable[[], Any]) -> None:
    """Close one thing, for as long as that may take and no longer."""
    try:
        async with asyncio.timeout(UNSUBSCRIBING):
            await close()
    except (nats.errors.Error, TimeoutError) as error:
        log.debug("closing: %s: %s", type(error).__name__, error)
