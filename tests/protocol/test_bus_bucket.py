"""Buckets: compare-and-swap that is right even when answers are lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tilewright.protocol.bus import Bucket, Bus, Entry
from tilewright.protocol.errors import Conflict, InvalidInput, NotBootstrapped
from tilewright.protocol.subjects import RESULTS_BUCKET, RUNS_BUCKET, Limits


async def test_create_get_update_delete(bus: Bus) -> None:
    bucket = await bus.bucket(RUNS_BUCKET)
    assert await bucket.get("run1") is None
    first = await bucket.create("run1", b"a")
    assert await bucket.get("run1") == Entry(b"a", first)
    second = await bucket.update("run1", b"b", first)
    assert second > first
    assert await bucket.get("run1") == Entry(b"b", second)
    await bucket.delete("run1")
    await bucket.delete("run1")
    assert await bucket.get("run1") is None


async def test_an_empty_value_is_a_value(bus: Bus) -> None:
    bucket = await bus.bucket(RUNS_BUCKET)
    assert await bucket.get("run1") is None
    revision = await bucket.create("run1", b"")
    assert await bucket.get("run1") == Entry(b"", revision)


async def test_the_first_writer_wins(bus: Bus) -> None:
    bucket = await bus.bucket(RESULTS_BUCKET)
    outcomes = await asyncio.gather(*(bucket.create("map.0", b"%d" % writer) for writer in range(10)), return_exceptions=True)
    assert sum(isinstance(outcome, int) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 9
    with pytest.raises(Conflict, match=r"bucket tw_results, key map\.0"):
        await bucket.create("map.0", b"late")


async def test_a_stale_revision_is_a_conflict(bus: Bus) -> None:
    bucket = await bus.bucket(RUNS_BUCKET)
    first = await bucket.create("run1", b"a")
    await bucket.update("run1", b"b", first)
    for stale in (first, first + 100):
        with pytest.raises(Conflict):
            await bucket.update("run1", b"c", stale)
    entry = await bucket.get("run1")
    assert entry is not None
    assert entry.value == b"b"


async def test_counting_with_many_writers_loses_nothing(bus: Bus) -> None:
    bucket = await bus.bucket(RUNS_BUCKET)
    await bucket.create("counter", b"0")

    async def add() -> None:
        while True:
            entry = await bucket.get("counter")
            assert entry is not None
            try:
                await bucket.update("counter", b"%d" % (int(entry.value) + 1), entry.revision)
            except Conflict:
                continue
            return

    await asyncio.gather(*(add() for _ in range(20)))
    entry = await bucket.get("counter")
    assert entry is not None
    assert entry.value == b"20"


async def test_a_deleted_key_can_be_created_but_not_updated(bus: Bus) -> None:
    bucket = await bus.bucket(RUNS_BUCKET)
    old = await bucket.create("run1", b"a")
    await bucket.delete("run1")
    with pytest.raises(Conflict):
        await bucket.update("run1", b"b", old)
    assert await bucket.create("run1", b"c") > old


@pytest.mark.parametrize("operation", ["DEL", "PURGE"])
async def test_a_key_deleted_by_another_tool(bus: Bus, operation: str) -> None:
    """``nats kv del`` leaves a marker behind."""
    bucket = await bus.bucket(RUNS_BUCKET)
    await bucket.create("run1", b"a")
    await bus.publish("$KV.tw_runs.run1", b"", "marker", headers={"KV-Operation": operation})
    assert await bucket.get("run1") is None
    revision = await bucket.create("run1", b"b")
    assert await bucket.get("run1") == Entry(b"b", revision)


async def test_put_overwrites(bus: Bus) -> None:
    bucket = await bus.bucket(RUNS_BUCKET)
    await bucket.put("run1", b"a")
    second = await bucket.put("run1", b"b")
    assert await bucket.get("run1") == Entry(b"b", second)


async def test_keys(bus: Bus) -> None:
    bucket = await bus.bucket(RUNS_BUCKET)
    assert await bucket.keys() == []
    for key in ("r2.map-0", "r1.map-1", "r1.map-0", "r10.map-0", "r1"):
        await bucket.put(key, b"")
    assert await bucket.keys() == ["r1", "r1.map-0", "r1.map-1", "r10.map-0", "r2.map-0"]
    assert await bucket.keys("r1.") == ["r1.map-0", "r1.map-1"]
    assert await bucket.keys("r1") == ["r1", "r1.map-0", "r1.map-1", "r10.map-0"]
    assert await bucket.keys("r1.map-1") == ["r1.map-1"]
    assert await bucket.keys("nobody.") == []
    await bucket.delete("r1.map-0")
    assert await bucket.keys("r1.") == ["r1.map-1"]


async def test_keys_come_in_pages(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server names at most 100 000 subjects at once."""
    bucket = await bus.bucket(RUNS_BUCKET)
    names = [f"$KV.tw_runs.k{index}" for index in range(7)]

    async def page(call: str, request: dict[str, Any]) -> dict[str, Any]:
        assert (call, request["subjects_filter"]) == ("STREAM.INFO.KV_tw_runs", "$KV.tw_runs.>")
        return {"total": 7, "state": {"subjects": dict.fromkeys(names[request["offset"] : request["offset"] + 3], 1)}}

    monkeypatch.setattr(bus.connection, "api", page)
    assert await bucket.keys() == [f"k{index}" for index in range(7)]


@pytest.mark.parametrize("key", ["", "sha256:abc", "two words", "a..b", ".a", "a.", "a.*", ">", "$KV", "größe", "a\r\nPUB x 0\r\n"])
async def test_invalid_keys(bus: Bus, key: str) -> None:
    bucket = await bus.bucket(RUNS_BUCKET)
    for attempt in (bucket.get(key), bucket.create(key, b""), bucket.update(key, b"", 1), bucket.put(key, b""), bucket.delete(key)):
        with pytest.raises(InvalidInput, match=r"key: .*, expected words of letters"):
            await attempt
    assert await bucket.keys() == []


async def test_no_such_bucket(bus: Bus) -> None:
    with pytest.raises(NotBootstrapped, match=r"bucket tw_nothing does not exist.*tilewright admin init"):
        await bus.bucket("tw_nothing")


async def test_a_bucket_that_vanishes(bus: Bus) -> None:
    bucket = await bus.bucket(RUNS_BUCKET)
    await bus.connection.api("STREAM.DELETE.KV_tw_runs")
    with pytest.raises(NotBootstrapped, match="bucket tw_runs"):
        await bucket.get("run1")
    with pytest.raises(NotBootstrapped):
        await bucket.keys()
    with pytest.raises(NotBootstrapped):
        await bucket.delete("run1")
    with pytest.raises(NotBootstrapped):
        await bucket.create("run1", b"")


async def holds(bucket: Bucket, value: bytes) -> bool:
    """True once the key of these tests has the value: the write was made, whatever became of its answer."""
    entry = await bucket.get("run1")
    return entry is not None and entry.value == value


async def test_a_lost_swap_that_somebody_overwrote_is_a_conflict(bus: Bus, through_proxy: Any, eventually: Any) -> None:
    other, proxy = await through_proxy()
    bucket, watch = await other.bucket(RUNS_BUCKET), await bus.bucket(RUNS_BUCKET)
    revision = await bucket.create("run1", b"a")
    proxy.hold_answers()
    swapping = asyncio.create_task(bucket.update("run1", b"b", revision))
    await eventually(lambda: holds(watch, b"b"))
    await watch.put("run1", b"c")
    proxy.cut()
    with pytest.raises(Conflict):
        await swapping


async def test_a_swap_whose_answer_was_lost_is_ours(bus: Bus, through_proxy: Any, eventually: Any) -> None:
    """Asked again it must not meet its own first attempt as somebody else's."""
    other, proxy = await through_proxy()
    bucket, watch = await other.bucket(RUNS_BUCKET), await bus.bucket(RUNS_BUCKET)
    revision = await bucket.create("run1", b"a")
    proxy.hold_answers()
    swapping = asyncio.create_task(bucket.update("run1", b"b", revision))
    await eventually(lambda: holds(watch, b"b"))
    proxy.cut()
    swapped = await swapping
    assert await watch.get("run1") == Entry(b"b", swapped)
    proxy.hold_answers()
    creating = asyncio.create_task(bucket.create("run2", b"a"))
    await eventually(lambda: watch.get("run2"))
    proxy.cut()
    created = await creating
    assert await watch.get("run2") == Entry(b"a", created)
    assert other.reconnects == 2


class TestSmallStore:
    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(result_bytes=20_000)

    async def test_a_full_result_cache_forgets_the_oldest(self, bus: Bus) -> None:
        bucket = await bus.bucket(RESULTS_BUCKET)
        for index in range(10):
            await bucket.create(f"map.{index}", bytes(4000))
        kept = await bucket.keys()
        assert 1 <= len(kept) < 10
        assert kept == [f"map.{index}" for index in range(10 - len(kept), 10)]
        await (await bus.bucket(RUNS_BUCKET)).put("run1", b"run state can still be written")
