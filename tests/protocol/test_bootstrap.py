"""Bootstrap owns every setting; everybody else only binds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tilewright.protocol import subjects
from tilewright.protocol.bootstrap import bootstrap, consumers, streams
from tilewright.protocol.bus import Bus
from tilewright.protocol.errors import InvalidInput, NoConnection, NotBootstrapped
from tilewright.protocol.subjects import Limits, durable, job_stream
from tilewright.services.runtime.nats_server import NatsServer

DAY = 86400 * 10**9


async def empty(bus: Bus) -> Bus:
    for stream in (await bus.connection.api("STREAM.NAMES"))["streams"] or ():
        await bus.connection.api(f"STREAM.DELETE.{stream}")
    return bus


async def config(bus: Bus, stream: str) -> dict[str, Any]:
    found: dict[str, Any] = (await bus.connection.api(f"STREAM.INFO.{stream}"))["config"]
    return found


async def test_everything_is_made_once(bus: Bus) -> None:
    await empty(bus)
    made = await bootstrap(bus)
    assert sorted(made) == sorted([each["name"] for each in streams(Limits())] + [each["name"] for each in consumers(30.0).values()])
    assert len(made) == 22
    assert await bootstrap(bus) == []


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        ("TW_JOB_PROFILE", {"subjects": ["tw.v1.job.profile.*.*"], "retention": "workqueue", "discard": "new", "max_msgs": 20_000}),
        ("TW_RUN", {"subjects": ["tw.v1.run.>"], "retention": "workqueue", "duplicate_window": 600 * 10**9}),
        ("TW_DONE", {"subjects": ["tw.v1.done.>"], "retention": "workqueue", "discard": "new", "max_age": 30 * DAY}),
        ("TW_EVT", {"retention": "limits", "persist_mode": "async", "max_age": 7 * DAY, "max_msgs_per_subject": 1000}),
        ("TW_DEAD", {"subjects": ["tw.v1.dead.*"], "retention": "limits"}),
        ("TW_BLOB", {"max_age": 37 * DAY, "max_msgs_per_subject": 1, "discard": "old", "allow_direct": True, "max_bytes": 1 << 31}),
        ("KV_tw_results", {"subjects": ["$KV.tw_results.>"], "max_age": 30 * DAY, "discard": "old", "max_bytes": 1 << 30}),
        ("KV_tw_runs", {"max_msgs_per_subject": 1, "max_age": 30 * DAY, "discard": "new", "max_bytes": -1}),
    ],
)
async def test_what_the_server_made_of_it(bus: Bus, stream: str, expected: dict[str, Any]) -> None:
    found = await config(bus, stream)
    assert {key: found.get(key) for key in expected} == expected
    assert (found["storage"], found["num_replicas"], found["metadata"]["tilewright.schema"]) == ("file", 1, "2")


async def test_consumers(bus: Bus) -> None:
    await bootstrap(bus, ack_wait=30.0)
    for stream, most in ((job_stream("map"), subjects.MAX_DELIVERIES), (subjects.DONE_STREAM, -1), (subjects.RUN_STREAM, -1)):
        found = (await bus.connection.api(f"CONSUMER.INFO.{stream}.{durable(stream)}"))["config"]
        assert (found["ack_policy"], found["ack_wait"], found["max_deliver"]) == ("explicit", 30 * 10**9, most)


async def test_the_store_has_room_for_run_state() -> None:
    """What is bounded leaves at least 200 MB of the embedded server's 4 GiB to what is not."""
    bounded = sum(max(0, each["max_bytes"]) for each in streams(Limits()))
    assert bounded <= (4 << 30) - 200_000_000


async def test_changed_settings_are_updated_and_nothing_is_lost(bus: Bus) -> None:
    await bus.publish(subjects.job_subject("map", "r", "t"), b"", "job")
    assert await bootstrap(bus, Limits(job_messages=7), ack_wait=2.0) == [job_stream(stage) for stage in subjects.STAGES]
    assert (await config(bus, "TW_JOB_MAP"))["max_msgs"] == 7
    assert await bootstrap(bus, Limits(job_messages=7), ack_wait=5.0) == [each["name"] for each in consumers(5.0).values()]
    assert await bus.lag("TW_JOB_MAP") == (1, 0)


async def test_what_an_operator_added_is_kept(bus: Bus) -> None:
    await bus.connection.api("STREAM.UPDATE.TW_EVT", {**(await config(bus, "TW_EVT")), "description": "ours", "max_age": DAY})
    assert await bootstrap(bus, ack_wait=2.0) == ["TW_EVT"]
    found = await config(bus, "TW_EVT")
    assert (found["description"], found["max_age"]) == ("ours", 7 * DAY)


async def test_streams_of_the_layout_before_are_brought_up_to_date(bus: Bus) -> None:
    """Layout 1 had one subject for the outcomes of all stages, and buckets that took roll-ups."""
    old = {"metadata": {"tilewright.schema": "1"}}
    await bus.connection.api("STREAM.UPDATE.TW_DONE", {**(await config(bus, "TW_DONE")), **old, "subjects": ["tw.v1.done.*"]})
    await bus.connection.api("STREAM.UPDATE.KV_tw_runs", {**(await config(bus, "KV_tw_runs")), **old, "allow_rollup_hdrs": True})
    await bus.publish("tw.v1.done.r", b"", "old")
    assert set(await bootstrap(bus, ack_wait=2.0)) == {"TW_DONE", "KV_tw_runs"}
    assert await bus.subjects("TW_DONE", ">") == {"tw.v1.done.r": 1}
    assert not (await config(bus, "KV_tw_runs")).get("allow_rollup_hdrs")


async def test_several_at_once(bus: Bus, connect: Callable[[], Awaitable[Bus]]) -> None:
    await empty(bus)
    others = [await connect() for _ in range(4)]
    await asyncio.gather(*(bootstrap(each) for each in others))
    assert await bootstrap(bus) == []


async def test_what_cannot_be_changed_is_said(bus: Bus) -> None:
    await bus.connection.api("STREAM.DELETE.TW_DONE")
    await bus.connection.api("STREAM.CREATE.TW_DONE", {"name": "TW_DONE", "subjects": ["tw.v1.done.*"], "retention": "limits"})
    with pytest.raises(InvalidInput, match=r"stream TW_DONE: .*; delete what is in the way, or keep its settings"):
        await bootstrap(bus)


async def test_a_subject_that_another_stream_takes_is_said(bus: Bus) -> None:
    await bus.connection.api("STREAM.DELETE.TW_DONE")
    await bus.connection.api("STREAM.CREATE.SOMEBODY", {"name": "SOMEBODY", "subjects": ["tw.v1.done.>"]})
    with pytest.raises(InvalidInput, match="stream TW_DONE: subjects overlap"):
        await bootstrap(bus)
    await bus.connection.api("STREAM.DELETE.SOMEBODY")


async def test_contradicting_limits() -> None:
    with pytest.raises(InvalidInput, match=r"limits\.blob_age: .* a blob outlives the results that name it"):
        await bootstrap(None, Limits(blob_age=1.0))  # type: ignore[arg-type]


async def test_no_room(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats", max_file_store=1 << 20)
    async with await Bus.connect(await server.start()) as bus:
        with pytest.raises(NoConnection, match=r"stream TW_JOB_PROFILE: no room for its 67108864 bytes"):
            await bootstrap(bus)
    await server.stop()


async def relabel(bus: Bus, number: str) -> None:
    """Write another layout number into a stream, a bucket and a consumer."""
    for stream in ("TW_EVT", "KV_tw_runs"):
        await bus.connection.api(f"STREAM.UPDATE.{stream}", {**(await config(bus, stream)), "metadata": {"tilewright.schema": number}})
    consumer = durable("TW_RUN")
    found = (await bus.connection.api(f"CONSUMER.INFO.TW_RUN.{consumer}"))["config"]
    changed = {**found, "metadata": {"tilewright.schema": number}}
    await bus.connection.api(f"CONSUMER.CREATE.TW_RUN.{consumer}", {"stream_name": "TW_RUN", "config": changed})


async def test_a_newer_layout_is_left_alone(bus: Bus) -> None:
    await relabel(bus, "99")
    with pytest.raises(NoConnection, match="stream TW_EVT has layout 99, expected 2: a newer tilewright made it"):
        await bootstrap(bus)
    for bind in (bus.bucket("tw_runs"), bus.queue("TW_RUN")):
        with pytest.raises(NoConnection, match="has layout 99, expected 2"):
            await bind


@pytest.mark.parametrize("number", ["0", "", "x"])
async def test_an_older_layout_wants_the_command_and_is_updated(bus: Bus, number: str) -> None:
    await relabel(bus, number)
    for bind in (bus.bucket("tw_runs"), bus.queue("TW_RUN")):
        with pytest.raises(NotBootstrapped, match="has layout 0, expected 2; run `tilewright admin init`"):
            await bind
    assert set(await bootstrap(bus, ack_wait=2.0)) == {"TW_EVT", "KV_tw_runs", durable("TW_RUN")}
    await bus.bucket("tw_runs")
    await bus.queue("TW_RUN")


def test_replicated_events_are_persisted_like_everything_else() -> None:
    """The server allows asynchronous persistence for single copies only."""
    assert all("persist_mode" not in each and each["num_replicas"] == 3 for each in streams(Limits(), 3))
