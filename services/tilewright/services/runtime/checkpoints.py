"""How far a search has come, kept in KV ``tw_checkpoints`` under the question it answers, so that a retry need not start from nothing.

What is kept is the best candidate so far and, from plugins that yield it, the whole state of the search. From such a state the
retry goes on exactly where the other ended, budget used included, and comes to the same answer. A plugin without one searches
again, as reproducibly as the first time; the candidate counts where that search is cut short before it finds a better one.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Self, TypeVar

import msgspec

from tilewright.protocol.bus import Bucket
from tilewright.protocol.codec import BLOB_THRESHOLD, MAX_VALUE, decode, encode, typed
from tilewright.protocol.errors import InvalidMessage, TilewrightError

from .claims import ClaimState

log = logging.getLogger("tilewright.runtime")
T = TypeVar("T")


class Checkpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of one search. `candidate` is a candidate of the plugin as builtins, without its own checkpoint."""

    candidate: Any
    #: Evaluations used when the plugin yielded `state`.
    evaluations: int
    claims: ClaimState = ClaimState()
    #: The plugin's own state; None when it has none.
    state: bytes | None = None

    @classmethod
    def read(cls, data: bytes) -> Self | None:
        """What was kept; None when nothing was, or something that this version cannot read."""
        try:
            return decode(data, cls, limit=MAX_VALUE) if data else None
        except InvalidMessage:
            return None

    def as_candidate(self, kind: type[T]) -> T | None:
        """The candidate as a type; None when it is none."""
        try:
            return typed(self.candidate, kind)
        except InvalidMessage:
            return None


def pack(candidate: msgspec.Struct, evaluations: int, claims: ClaimState, state: bytes | None) -> bytes:
    """Bytes of a checkpoint."""
    plain = msgspec.to_builtins(msgspec.structs.replace(candidate, checkpoint=None), builtin_types=(bytes,))
    return encode(Checkpoint(plain, evaluations, claims, state))


class Keeper:
    """Keeps the checkpoints of one job: the newest is written, the ones that it overtook are not."""

    def __init__(self, bucket: Bucket, *, look: bool) -> None:
        self._bucket = bucket
        self._look = look
        self._key = ""
        self._newest = b""
        self._writing: asyncio.Task[None] | None = None

    async def load(self, key: str) -> bytes:
        """What was kept for a question; empty when nothing was, or nobody is to `look`. Later ones are kept for the same question."""
        self._key = key
        entry = await self._bucket.get(key) if self._look else None
        return entry.value if entry is not None else b""

    def save(self, data: bytes) -> None:
        """Keep a checkpoint, soon; one that is too large for the bucket is not kept."""
        if len(data) > BLOB_THRESHOLD:
            log.info("a checkpoint of %d bytes is not kept, expected at most %d", len(data), BLOB_THRESHOLD)
            return
        self._newest = data
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        while data := self._newest:
            self._newest = b""
            try:
                await self._bucket.put(self._key, data)
            except TilewrightError as error:  # the search goes on, and the next one may be kept
                log.warning("a checkpoint is not kept: %s", error)

    async def close(self) -> None:
        """Wait for a moment until the last one is kept."""
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=1.0)
            self._writing.cancel()
