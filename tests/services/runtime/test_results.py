"""The result store and the counting of failures, with several writers."""

from __future__ import annotations

import asyncio

import pytest

from tilewright.protocol.bus import Bus
from tilewright.protocol.codec import BLOB_THRESHOLD
from tilewright.protocol.messages import Failure
from tilewright.protocol.subjects import ATTEMPTS_BUCKET, BLOB_STREAM
from tilewright.services.runtime.attempts import add_failure, attempts
from tilewright.services.runtime.results import ResultStore, run_key

SMALL, LARGE = b"answer", bytes(range(256)) * (BLOB_THRESHOLD // 256 + 1)


@pytest.mark.parametrize("answer", [SMALL, LARGE, b""], ids=["small", "large", "empty"])
async def test_what_was_recorded_is_read(bus: Bus, answer: bytes) -> None:
    store = ResultStore(bus)
    assert await store.get("map.key") is None
    assert await store.put("map.key", answer) == answer
    assert await ResultStore(bus).get("map.key") == answer


@pytest.mark.parametrize("theirs", [SMALL, LARGE], ids=["small", "large"])
async def test_the_first_writer_wins(bus: Bus, theirs: bytes) -> None:
    store = ResultStore(bus)
    await store.put(run_key("run", "map-0"), theirs)
    assert await store.put(run_key("run", "map-0"), b"mine") == theirs
    assert await store.get("map.run.map-0") == theirs


async def test_all_writers_agree(bus: Bus) -> None:
    store = ResultStore(bus)
    answers = await asyncio.gather(*(store.put("map.key", f"answer {number}".encode() * 40_000) for number in range(8)))
    assert len(set(answers)) == 1
    assert await store.get("map.key") == answers[0]


async def test_an_answer_whose_blob_is_gone_is_replaced(bus: Bus) -> None:
    store = ResultStore(bus)
    await store.put("map.key", LARGE)
    await bus.connection.api(f"STREAM.PURGE.{BLOB_STREAM}")
    assert await store.get("map.key") is None
    again = await asyncio.gather(store.put("map.key", SMALL), store.put("map.key", b"other"))
    assert len(set(again)) == 1
    assert await store.get("map.key") == again[0]


async def test_failures_are_counted_by_everybody(bus: Bus) -> None:
    bucket = await bus.bucket(ATTEMPTS_BUCKET)
    assert (await attempts(bucket, "run", "map-0", 0)).failures == ()
    failures = [Failure("crash", f"number {number}") for number in range(6)]
    await asyncio.gather(*(add_failure(bucket, "run", "map-0", 0, failure) for failure in failures))
    known = await attempts(bucket, "run", "map-0", 0)
    assert sorted(failure.message for failure in known.failures) == [failure.message for failure in failures]
    assert known.exhausted
    assert not (await attempts(bucket, "run", "map-0", 1)).exhausted
