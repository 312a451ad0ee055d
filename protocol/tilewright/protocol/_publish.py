"""Publishing once: the same message id until the stream confirms."""

from __future__ import annotations

from nats.errors import MaxPayloadError
from nats.js.api import PubAck
from nats.js.errors import APIError

from ._connection import PATIENCE, Connection
from .errors import Backlog, InvalidMessage

#: JetStream error codes of "no room": a stream's own limit, the account's, the server's.
_FULL = (10077, 10047, 10023, 10002, 10028)


async def publish(
    connection: Connection, subject: str, data: bytes, message_id: str, headers: dict[str, str] | None = None, *, patience: float = PATIENCE
) -> PubAck:
    """Publish to the stream that takes `subject`, exactly once within its duplicate window.

    Raises `Backlog` when it is full, `NotBootstrapped` when there is none, `InvalidMessage` when `data` is too large for
    the server, `NoConnection` after `patience` seconds, and nats-py's ``APIError`` for a refused expectation.
    """
    chosen = {**(headers or {}), "Nats-Msg-Id": message_id}
    try:
        return await connection.ask(
            f"a stream for {subject}",
            lambda timeout: connection.js.publish(subject, data, timeout=timeout, headers=chosen),
            patience=patience,
        )
    except MaxPayloadError as error:
        raise InvalidMessage(f"{subject}: {len(data)} bytes, expected at most {connection.client.max_payload}; use a blob") from error
    except APIError as error:
        if error.err_code in _FULL:
            raise Backlog(f"{subject}: {error.description}") from error
        raise
