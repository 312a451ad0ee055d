"""Large values by content: chunks in a stream, read back by direct gets.

nats-py's object store reads into bytes in quadratic time (90 s for 100 MB) and cannot skip what is there already.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from collections.abc import Awaitable, Iterable
from datetime import datetime
from typing import Any

import nats.js.errors

from . import subjects
from ._connection import Connection
from ._publish import publish
from .codec import MAX_VALUE
from .errors import InvalidInput

#: Bytes of one chunk.
CHUNK = 512 * 1024
#: Chunks under way at once.
IN_FLIGHT = 16
#: A blob older than this many seconds is sent again when it is put again, so that it outlives what refers to it.
#: `Limits.blob_age` exceeds `Limits.result_age` by more.
REFRESH_AFTER = 86400.0

_SIZE = "Tw-Size"
_KEY = re.compile(r"[0-9a-f]{64}")


def _count(size: int) -> int:
    return max(1, -(-size // CHUNK))


def _check(key: str) -> None:
    if not _KEY.fullmatch(key):
        raise InvalidInput(f"blob key: {key!r}, expected 64 hexadecimal digits")


async def _bounded(work: Iterable[Awaitable[Any]]) -> list[Any]:
    """Results in order, at most `IN_FLIGHT` at a time; the first error ends the others."""
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one(item: Awaitable[Any]) -> Any:
        async with slots:
            return await item

    tasks = [asyncio.ensure_future(one(item)) for item in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


class Blobs:
    """The blob store: part ``i`` of blob ``k`` is the last message on ``subjects.blob_subject(k, i)``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def put(self, data: bytes) -> str:
        """See `Bus.put_blob`."""
        if len(data) > MAX_VALUE:
            raise InvalidInput(f"blob of {len(data)} bytes, expected at most {MAX_VALUE}")
        key = hashlib.sha256(data).hexdigest()
        count = _count(len(data))
        if not await self._is_complete(key, count):
            put = secrets.token_hex(6)
            view = memoryview(data)
            await _bounded(
                publish(
                    self._connection,
                    subjects.blob_subject(key, part),
                    bytes(view[part * CHUNK : (part + 1) * CHUNK]),
                    f"{key}.{part}.{put}",
                    {_SIZE: str(len(data))},
                )
                for part in range(count)
            )
        return key

    async def _is_complete(self, key: str, count: int) -> bool:
        """True when all parts are there and young enough; the first was sent first, so it is about the first to expire."""
        if len(await self._connection.subjects(subjects.BLOB_STREAM, subjects.blob_parts(key))) != count:
            return False
        ages = [await self._stored(key, part) for part in {0, count - 1}]
        return all(stored is not None and time.time() - stored.timestamp() < REFRESH_AFTER for stored in ages)

    async def _stored(self, key: str, part: int) -> datetime | None:
        message = await self._part(key, part)
        return message.time if message is not None else None

    async def _part(self, key: str, part: int) -> Any:
        subject = subjects.blob_subject(key, part)
        try:
            return await self._connection.ask(
                f"stream {subjects.BLOB_STREAM}",
                lambda _: self._connection.js.get_last_msg(subjects.BLOB_STREAM, subject, direct=True),
            )
        except nats.js.errors.NotFoundError:
            return None

    async def get(self, key: str) -> bytes | None:
        """See `Bus.get_blob`."""
        _check(key)
        first = await self._part(key, 0)
        if first is None:
            return None
        size = (first.headers or {}).get(_SIZE, "")
        if not size.isdecimal() or int(size) > MAX_VALUE:
            return None
        rest = await _bounded(self._part(key, part) for part in range(1, _count(int(size))))
        if any(message is None for message in rest):
            return None
        data = b"".join(message.data or b"" for message in (first, *rest))
        return data if hashlib.sha256(data).hexdigest() == key else None
