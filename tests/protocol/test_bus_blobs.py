"""Blobs: by content, in chunks, verified."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from typing import Any

import pytest

from tilewright.protocol import _blobs, _publish
from tilewright.protocol.bus import Bus
from tilewright.protocol.errors import InvalidInput, NotBootstrapped
from tilewright.protocol.subjects import BLOB_STREAM, Limits, blob_parts, blob_subject

CHUNK = _blobs.CHUNK


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


async def stored(bus: Bus) -> int:
    """Messages ever stored in the blob stream."""
    return int((await bus.connection.api(f"STREAM.INFO.{BLOB_STREAM}"))["state"]["last_seq"])


@pytest.mark.parametrize(("size", "parts"), [(0, 1), (1, 1), (CHUNK - 1, 1), (CHUNK, 1), (CHUNK + 1, 2), (20 * CHUNK + 7, 21)])
async def test_round_trip(bus: Bus, size: int, parts: int) -> None:
    data = noise(size)
    key = await bus.put_blob(data)
    assert key == hashlib.sha256(data).hexdigest()
    assert len(await bus.subjects(BLOB_STREAM, blob_parts(key))) == parts
    assert await bus.get_blob(key) == data


async def test_what_is_there_is_not_sent_again(bus: Bus) -> None:
    data = noise(3 * CHUNK)
    await bus.put_blob(data)
    assert await stored(bus) == 3
    await bus.put_blob(data)
    assert await stored(bus) == 3


async def test_an_old_blob_is_sent_again_so_that_it_outlives_its_new_result(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    data = noise(CHUNK + 5)
    key = await bus.put_blob(data)
    later = time.time() + _blobs.REFRESH_AFTER + 1
    monkeypatch.setattr(time, "time", lambda: later)
    await bus.put_blob(data)
    assert await stored(bus) == 4
    assert len(await bus.subjects(BLOB_STREAM, blob_parts(key))) == 2
    assert await bus.get_blob(key) == data


@pytest.mark.parametrize("part", [0, 1, 2])
async def test_a_blob_that_lost_a_part_is_gone_and_comes_back_whole(bus: Bus, part: int) -> None:
    data = noise(3 * CHUNK)
    key = await bus.put_blob(data)
    await bus.connection.api(f"STREAM.PURGE.{BLOB_STREAM}", {"filter": blob_subject(key, part)})
    assert await bus.get_blob(key) is None
    assert await bus.put_blob(data) == key
    assert await bus.get_blob(key) == data


async def test_damaged_content_is_not_returned(bus: Bus) -> None:
    key = hashlib.sha256(b"right").hexdigest()
    await bus.publish(blob_subject(key, 0), b"wrong", "id", headers={"Tw-Size": "5"})
    assert await bus.get_blob(key) is None


@pytest.mark.parametrize("size", ["-1", "1000000000000", "five", None])
async def test_an_absurd_size_is_not_believed(bus: Bus, size: str | None) -> None:
    key = hashlib.sha256(b"right").hexdigest()
    await bus.publish(blob_subject(key, 0), b"right", "id", headers={"Tw-Size": size} if size else {})
    assert await bus.get_blob(key) is None


async def test_unknown_and_impossible_keys(bus: Bus) -> None:
    assert await bus.get_blob("0" * 64) is None
    for key in ("", "xyz", "0" * 63, "0" * 65, "A" * 64, "*", "../" * 10, "0" * 64 + "\n"):
        with pytest.raises(InvalidInput, match="64 hexadecimal digits"):
            await bus.get_blob(key)


async def test_too_large(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_blobs, "MAX_VALUE", 10)
    with pytest.raises(InvalidInput, match="blob of 11 bytes, expected at most 10"):
        await bus.put_blob(bytes(11))


async def test_chunks_under_way_are_bounded(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way = most = 0
    publish = _publish.publish

    async def count(*arguments: Any, **more: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await publish(*arguments, **more)
        finally:
            under_way -= 1

    monkeypatch.setattr(_blobs, "publish", count)
    monkeypatch.setattr(_blobs, "CHUNK", 1024)
    data = noise(200 * 1024)
    key = await bus.put_blob(data)
    assert 2 <= most <= _blobs.IN_FLIGHT
    assert await bus.get_blob(key) == data


async def test_many_writers_of_one_blob(bus: Bus) -> None:
    data = noise(4 * CHUNK)
    keys = await asyncio.gather(*(bus.put_blob(data) for _ in range(4)))
    assert len(set(keys)) == 1
    assert await bus.get_blob(keys[0]) == data


async def test_without_streams(bus: Bus) -> None:
    await bus.connection.api(f"STREAM.DELETE.{BLOB_STREAM}")
    with pytest.raises(NotBootstrapped, match="stream TW_BLOB"):
        await bus.put_blob(b"x")
    with pytest.raises(NotBootstrapped, match="stream TW_BLOB"):
        await bus.get_blob("0" * 64)


class TestSmallStore:
    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(blob_bytes=3 << 20)

    async def test_the_oldest_blob_makes_room(self, bus: Bus) -> None:
        keys = [await bus.put_blob(noise(2 * CHUNK + index)) for index in range(5)]
        assert await bus.get_blob(keys[0]) is None
        assert await bus.get_blob(keys[-1]) is not None
