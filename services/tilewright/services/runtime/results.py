"""The result store: answers by the question they answer (KV ``tw_results``), large ones as blobs.

First writer wins: a question has one recorded answer, whoever computed it and however often.
"""

from __future__ import annotations

import msgspec

from tilewright.protocol.bus import Bucket, Bus
from tilewright.protocol.codec import BLOB_THRESHOLD, decode, encode
from tilewright.protocol.errors import Conflict
from tilewright.protocol.run import parse_task
from tilewright.protocol.subjects import RESULTS_BUCKET


class StoredAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the bucket holds: the encoded answer, or the key of the blob that holds it."""

    answer: bytes = b""
    blob: str = ""


def run_key(run: str, task: str) -> str:
    """Where an answer that only its own run may use is kept (one that a time limit cut): below its stage, like every answer."""
    return f"{parse_task(task)[0]}.{run}.{task}"


class ResultStore:
    """Reads and writes encoded answers. Keys are those of `keys.result_key`, or of `run_key`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._opened: Bucket | None = None

    async def _bucket(self) -> Bucket:
        if self._opened is None:
            self._opened = await self._bus.bucket(RESULTS_BUCKET)
        return self._opened

    async def get(self, key: str) -> bytes | None:
        """The encoded answer; None when there is none (any more)."""
        return (await self._read(key))[0]

    async def _read(self, key: str) -> tuple[bytes | None, int]:
        entry = await (await self._bucket()).get(key)
        if entry is None:
            return None, 0
        stored = decode(entry.value, StoredAnswer)
        return (await self._bus.get_blob(stored.blob) if stored.blob else stored.answer), entry.revision

    async def put(self, key: str, answer: bytes) -> bytes:
        """Record an encoded answer unless there is one; returns the one that stands."""
        large = len(answer) > BLOB_THRESHOLD
        stored = StoredAnswer(blob=await self._bus.put_blob(answer)) if large else StoredAnswer(answer=answer)
        bucket = await self._bucket()
        while True:
            try:
                await bucket.create(key, encode(stored))
                return answer
            except Conflict:
                theirs, revision = await self._read(key)
            if theirs is not None:
                return theirs
            if revision:  # its blob is gone: the record stands for nothing
                try:
                    await bucket.update(key, encode(stored), revision)
                    return answer
                except Conflict:
                    continue
