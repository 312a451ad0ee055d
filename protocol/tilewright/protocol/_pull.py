"""Pull requests to a JetStream consumer, with every answer seen.

nats-py's own ``fetch`` treats a deleted consumer as an empty queue, hangs over a reconnect until its timeout, and may keep
a job that nobody is waiting for any more; here the statuses reach the caller.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from ._connection import Connection

#: Status codes: nothing there in time; nothing yet.
EMPTY, ALIVE = ("404", "408"), "100"


class Status(msgspec.Struct, frozen=True):
    """An answer that is not a message: one of `EMPTY`, `ALIVE`, or a consumer in trouble."""

    code: str
    text: str = ""


class Puller:
    """One inbox for answers to pull requests; each answer goes to `arrived`, whether or not somebody waits for it."""

    def __init__(self, connection: Connection, stream: str, consumer: str, arrived: Callable[[Msg | Status], None]) -> None:
        self._connection = connection
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._arrived = arrived
        self._inbox = connection.client.new_inbox()
        self._serial = 0
        self._subscription: Subscription | None = None

    async def open(self) -> None:
        """Subscribe to the inbox."""
        self._subscription = await self._connection.subscribe(f"{self._inbox}.*", self._on_message)

    async def request(self, batch: int, expires: float, heartbeat: float = 0.0) -> None:
        """Ask for up to `batch` messages within `expires` seconds; what became of earlier requests is no longer told.

        With a `heartbeat` the server says `ALIVE` whenever it had nothing else to say for so many seconds.
        """
        self._serial += 1
        body: dict[str, Any] = {"batch": batch, "expires": int(expires * 1e9), "idle_heartbeat": int(heartbeat * 1e9)}
        await self._connection.send(self._subject, json.dumps(body).encode(), reply=f"{self._inbox}.{self._serial}")

    async def _on_message(self, message: Msg) -> None:
        code = (message.headers or {}).get("Status")
        if code is None:
            self._arrived(message)
        elif message.subject.endswith(f".{self._serial}"):
            self._arrived(Status(code, (message.headers or {}).get("Description", "")))

    async def close(self) -> None:
        """Unsubscribe: the server forgets requests that nobody listens for."""
        if self._subscription:
            await self._connection.unsubscribe(self._subscription)
