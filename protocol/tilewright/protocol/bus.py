"""NATS, behind one small class. Everything that talks to a server goes through here.

This file is the contract; bodies follow.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec


class BusSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """How to reach the server. Secrets are read from files, never from arguments."""

    #: ``nats://`` or ``tls://`` URLs, comma separated.
    url: str
    #: Token (embedded server); normally read from a 0600 file by the caller.
    token: str = ""
    #: Path of a ``.creds`` file.
    credentials: str = ""
    #: Path of an nkey seed file.
    nkey_seed: str = ""
    #: Path of a CA bundle for ``tls://``.
    ca: str = ""
    #: Seconds for the first connection.
    connect_timeout: float = 5.0
    #: Client name shown by the server.
    name: str = "tilewright"


class Delivery:
    """One job taken from a queue. It is ours until `ack`, `nak` or `term`, or until ack_wait passes without `in_progress`."""

    data: bytes
    headers: dict[str, str]
    subject: str
    #: 1 for the first delivery.
    deliveries: int
    stream_sequence: int

    async def ack(self) -> None:
        """Done; returns once the server has confirmed."""
        raise NotImplementedError

    async def nak(self, delay: float = 0.0) -> None:
        """Give it back; it is delivered again after `delay` seconds."""
        raise NotImplementedError

    async def term(self) -> None:
        """Never deliver it again."""
        raise NotImplementedError

    async def in_progress(self) -> None:
        """Still working: restart ack_wait."""
        raise NotImplementedError


class Queue:
    """A bound durable pull consumer of one work-queue stream."""

    async def fetch(self, timeout: float = 5.0) -> Delivery | None:
        """The next job, or None after `timeout`. Wakes up at once on reconnect; a missing consumer costs a pause, never a busy loop."""
        raise NotImplementedError

    async def close(self) -> None:
        """Unsubscribe (before the bus is drained)."""
        raise NotImplementedError


class Entry(msgspec.Struct, frozen=True):
    """A value with its revision."""

    value: bytes
    revision: int


class Bucket:
    """A KV bucket."""

    async def get(self, key: str) -> Entry | None:
        """The entry, or None."""
        raise NotImplementedError

    async def create(self, key: str, value: bytes) -> int:
        """Write only if absent; the revision. Raises `Conflict` when the key exists."""
        raise NotImplementedError

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Write only over `revision`; the new one. Raises `Conflict` when somebody was faster."""
        raise NotImplementedError

    async def put(self, key: str, value: bytes) -> int:
        """Write over whatever is there."""
        raise NotImplementedError

    async def delete(self, key: str) -> None:
        """Remove a key."""
        raise NotImplementedError

    async def keys(self, prefix: str = "") -> list[str]:
        """Keys that start with `prefix`, sorted."""
        raise NotImplementedError


class StreamEvent(msgspec.Struct, frozen=True):
    """One event as read back."""

    subject: str
    data: bytes
    sequence: int


class ServiceInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one running service says of itself."""

    name: str
    id: str
    version: str
    metadata: dict[str, str] = {}
    #: Free-form statistics (slots, busy, ...).
    stats: dict[str, Any] = {}


class Bus:
    """A connection. Use ``async with await Bus.connect(settings) as bus``; leaving drains it (bounded)."""

    @classmethod
    async def connect(cls, settings: BusSettings) -> Bus:
        """Connect, or raise `NoConnection` that says why (nobody listens, wrong token, untrusted certificate)."""
        raise NotImplementedError

    async def __aenter__(self) -> Bus:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Drain within a few seconds, whatever is still subscribed."""
        raise NotImplementedError

    @property
    def reconnects(self) -> int:
        """Times the connection was re-established."""
        raise NotImplementedError

    async def publish(self, subject: str, data: bytes, message_id: str, *, headers: dict[str, str] | None = None) -> bool:
        """Publish once to a stream: retried (same id) until confirmed; False when the server had it already.

        Raises `Backlog` when the stream is full, `NotBootstrapped` when no stream takes the subject, `NoConnection` after 30 s.
        """
        raise NotImplementedError

    async def emit(self, subject: str, data: bytes, message_id: str) -> None:
        """Publish an event: not confirmed, never raises for a lost connection."""
        raise NotImplementedError

    async def signal(self, subject: str, data: bytes = b"") -> None:
        """Core publish (no stream)."""
        raise NotImplementedError

    async def listen(self, subject: str) -> AsyncIterator[bytes]:
        """Core subscription."""
        raise NotImplementedError
        yield b""

    async def queue(self, stream: str) -> Queue:
        """Bind to a stream's durable consumer (`subjects.durable`); `NotBootstrapped` when it does not exist."""
        raise NotImplementedError

    async def bucket(self, name: str) -> Bucket:
        """Bind to a KV bucket; `NotBootstrapped` when it does not exist."""
        raise NotImplementedError

    async def events(self, subject: str, *, stream: str = "TW_EVT", start: int = 1, follow: bool = True) -> AsyncIterator[StreamEvent]:
        """Events matching a subject filter from a sequence on; rebuilt within milliseconds of a reconnect, without gaps or repeats.

        With ``follow=False`` it ends at what the stream held when it started.
        """
        raise NotImplementedError
        yield StreamEvent("", b"", 0)

    async def put_blob(self, data: bytes) -> str:
        """Store bytes by content in 512 KiB chunks; returns the key (sha256 hex). Existing blobs are not sent again."""
        raise NotImplementedError

    async def get_blob(self, key: str) -> bytes | None:
        """Bytes of a blob, verified against its key; None when it is gone."""
        raise NotImplementedError

    async def serve_info(self, name: str, metadata: dict[str, str], stats: Any) -> None:
        """Answer ``$SRV`` discovery as a service (nats.micro); `stats` is a callable that returns a dict."""
        raise NotImplementedError

    async def services(self, timeout: float = 0.4) -> Sequence[ServiceInfo]:
        """Every running service instance that answers in time."""
        raise NotImplementedError

    async def lag(self, stream: str) -> tuple[int, int]:
        """``(pending, being worked on)`` of a work queue."""
        raise NotImplementedError
