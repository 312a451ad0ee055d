"""Key-value buckets with compare-and-swap, on the wire format of NATS KV (``nats kv`` can look inside).

Every write carries a message id, so asking again after a lost answer is one write, and a swap that we won ourselves is not
taken for somebody else's. Reads go to the leader: what was written is read.
"""

from __future__ import annotations

import re
import secrets

import msgspec
import nats.js.errors
from nats.js.api import Header, RawStreamMsg

from ._connection import STREAM_NOT_FOUND, Connection, not_bootstrapped
from ._publish import publish
from .errors import Conflict, InvalidInput

_KEY = re.compile(r"[-/_=a-zA-Z0-9]+(\.[-/_=a-zA-Z0-9]+)*")
_WRONG_SEQUENCE = (10071, 10164)
_EXPECT = "Nats-Expected-Last-Subject-Sequence"
#: Headers of a message that says "deleted".
_MARKERS = ("KV-Operation", "Nats-Marker-Reason")


class Entry(msgspec.Struct, frozen=True):
    """A value with its revision."""

    value: bytes
    revision: int


def check_key(key: str) -> None:
    """Raise `InvalidInput` unless `key` is made of dot-separated words of letters, digits and ``-/_=``."""
    if not _KEY.fullmatch(key):
        raise InvalidInput(f"key: {key!r}, expected words of letters, digits and -/_= separated by single dots")


class Bucket:
    """A KV bucket."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self._name = name
        self._stream = f"KV_{name}"

    def _subject(self, key: str) -> str:
        check_key(key)
        return f"$KV.{self._name}.{key}"

    async def _last(self, key: str) -> RawStreamMsg | None:
        subject = self._subject(key)
        try:
            return await self._connection.ask(f"bucket {self._name}", lambda _: self._connection.js.get_last_msg(self._stream, subject))
        except nats.js.errors.NotFoundError as error:
            if error.err_code == STREAM_NOT_FOUND:
                raise not_bootstrapped(f"bucket {self._name}") from error
            return None

    async def get(self, key: str) -> Entry | None:
        """The entry, or None."""
        message = await self._last(key)
        if message is None or message.seq is None or _is_deleted(message):
            return None
        return Entry(message.data or b"", message.seq)

    async def create(self, key: str, value: bytes) -> int:
        """Write only if absent; the revision. Raises `Conflict` when the key exists."""
        try:
            return await self._write(key, value, 0)
        except Conflict:
            message = await self._last(key)
            if message is None or message.seq is None or not _is_deleted(message):
                raise
            return await self._write(key, value, message.seq)

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Write only over `revision`; the new one. Raises `Conflict` when somebody was faster."""
        return await self._write(key, value, revision)

    async def put(self, key: str, value: bytes) -> int:
        """Write over whatever is there."""
        return await self._write(key, value, None)

    async def _write(self, key: str, value: bytes, expected: int | None) -> int:
        headers = {} if expected is None else {_EXPECT: str(expected)}
        write = secrets.token_hex(12)
        try:
            written = await publish(self._connection, self._subject(key), value, write, headers)
        except nats.js.errors.APIError as error:
            if error.err_code not in _WRONG_SEQUENCE:
                raise
            # The server compares before it looks for duplicates, so an answer that was lost comes back as a conflict with ourselves.
            last = await self._last(key)
            if last is None or last.seq is None or (last.headers or {}).get(Header.MSG_ID) != write:
                raise Conflict(f"bucket {self._name}, key {key}: not at revision {expected} any more") from error
            return last.seq
        return int(written.seq)

    async def delete(self, key: str) -> None:
        """Remove a key, without a trace: an `update` of the removed revision is a `Conflict`."""
        filtered = {"filter": self._subject(key)}
        try:
            await self._connection.api(f"STREAM.PURGE.{self._stream}", filtered)
        except nats.js.errors.NotFoundError as error:
            raise not_bootstrapped(f"bucket {self._name}") from error

    async def keys(self, prefix: str = "") -> list[str]:
        """Keys that start with `prefix`, sorted. A key may be gone by the time it is read."""
        root = f"$KV.{self._name}."
        words = prefix.rpartition(".")[0]
        found = await self._connection.subjects(self._stream, f"{root}{words}.>" if words else f"{root}>")
        return sorted(key for subject in found if (key := subject.removeprefix(root)).startswith(prefix))


def _is_deleted(message: RawStreamMsg) -> bool:
    return any(name in _MARKERS for name in message.headers or {})
