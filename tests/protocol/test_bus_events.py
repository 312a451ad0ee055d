"""Events: replayed, followed, and read on across reconnects without gaps or repeats."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from tilewright.protocol import _events
from tilewright.protocol._pull import Puller
from tilewright.protocol.bus import Bus, StreamEvent
from tilewright.protocol.errors import NoConnection, NotBootstrapped
from tilewright.protocol.subjects import DEAD_STREAM, EVENT_STREAM, dead_subject, event_subject, events_of
from tilewright.services.runtime.nats_server import NatsServer


async def say(bus: Bus, run: str, *numbers: int) -> None:
    """Store events (confirmed, so that a test knows they are there)."""
    for number in numbers:
        await bus.publish(event_subject(run, "map", f"map-{number % 3}", "progress"), b"%d" % number, f"{run}.{number}")


async def collect(events: AsyncIterator[StreamEvent], count: int, seconds: float = 20.0) -> list[int]:
    """The next `count` events as numbers."""
    found: list[int] = []
    async with asyncio.timeout(seconds), aclosing(events):  # type: ignore[type-var]
        async for event in events:
            found.append(int(event.data))
            if len(found) == count:
                break
    return found


async def consumers(bus: Bus, stream: str = EVENT_STREAM) -> list[str]:
    return (await bus.connection.api(f"CONSUMER.NAMES.{stream}"))["consumers"] or []


async def test_replay_of_one_run(bus: Bus) -> None:
    await say(bus, "run1", 0, 1)
    await say(bus, "run2", 100)
    await say(bus, "run1", 2)
    events = [event async for event in bus.events(events_of("run1"), follow=False)]
    assert [event.data for event in events] == [b"0", b"1", b"2"]
    assert [event.sequence for event in events] == [1, 2, 4]
    assert events[0].subject == "tw.v1.evt.run1.map.map-0.progress"
    assert events[0].stored <= events[1].stored
    assert await consumers(bus) == [], "the reader gave its consumer back"


async def test_replay_from_a_sequence(bus: Bus) -> None:
    await say(bus, "run1", *range(5))
    assert [int(event.data) async for event in bus.events(events_of("run1"), start=3, follow=False)] == [2, 3, 4]
    assert [event async for event in bus.events(events_of("run1"), start=6, follow=False)] == []
    assert [int(event.data) async for event in bus.events(events_of("run1"), start=0, follow=False)] == [0, 1, 2, 3, 4]


async def test_replay_of_nothing(bus: Bus) -> None:
    assert [event async for event in bus.events(events_of("run1"), follow=False)] == []
    await say(bus, "run2", 0)
    assert [event async for event in bus.events(events_of("run1"), follow=False)] == []


async def test_replay_of_more_than_one_batch(bus: Bus) -> None:
    count = 3 * _events.BATCH + 7
    await asyncio.gather(*(bus.publish("tw.v1.evt.run1.map.t.log", b"%d" % i, f"{i}") for i in range(count)))
    events = [event async for event in bus.events(events_of("run1"), follow=False)]
    assert [event.sequence for event in events] == list(range(1, count + 1))


async def test_replay_ends_where_the_stream_ended_at_its_start(bus: Bus) -> None:
    await say(bus, "run1", *range(3))
    found = []
    async for event in bus.events(events_of("run1"), follow=False):
        found.append(int(event.data))
        await say(bus, "run1", 100 + int(event.data))
    assert found == [0, 1, 2]


async def test_following(bus: Bus) -> None:
    await say(bus, "run1", 0)
    following = asyncio.create_task(collect(bus.events(events_of("run1")), 4))
    await say(bus, "run1", 1)
    await asyncio.sleep(0.05)
    await say(bus, "run1", 2)
    await bus.emit(event_subject("run1", "map", "map-0", "log"), b"3", "run1.3")
    assert await following == [0, 1, 2, 3]


async def test_an_event_emitted_twice_is_one(bus: Bus) -> None:
    for _ in range(3):
        await bus.emit(event_subject("run1", "map", "map-0", "log"), b"1", "the same id")
    await say(bus, "run1", 2)
    assert [int(event.data) async for event in bus.events(events_of("run1"), follow=False)] == [1, 2]


async def test_other_streams_can_be_read(bus: Bus) -> None:
    await bus.publish(dead_subject("map"), b"7", "dead")
    assert [event.data async for event in bus.events(dead_subject("*"), stream=DEAD_STREAM, follow=False)] == [b"7"]


async def test_followers_are_independent(bus: Bus) -> None:
    followers = [asyncio.create_task(collect(bus.events(events_of("run1")), 3)) for _ in range(4)]
    await asyncio.sleep(0.05)
    await say(bus, "run1", 0, 1, 2)
    assert await asyncio.gather(*followers) == [[0, 1, 2]] * 4


async def test_idle_followers_ask_again(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_events, "EXPIRES", 0.1)
    monkeypatch.setattr(_events, "HEARTBEAT", 0.0)
    following = asyncio.create_task(collect(bus.events(events_of("run1")), 2))
    await asyncio.sleep(0.35)
    await say(bus, "run1", 0)
    await asyncio.sleep(0.25)
    await say(bus, "run1", 1)
    assert await following == [0, 1]


async def test_a_quiet_stream_is_not_taken_for_a_dead_one(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_events, "HEARTBEAT", 0.1)
    monkeypatch.setattr(_events, "SILENCE", 1.0)
    following = asyncio.create_task(collect(bus.events(events_of("run1")), 2))
    await say(bus, "run1", 0)
    await asyncio.sleep(0.05)
    before = await consumers(bus)
    await asyncio.sleep(1.5)
    assert await consumers(bus) == before, "one consumer all the time"
    await say(bus, "run1", 1)
    assert await following == [0, 1]


async def test_reading_on_after_the_line_was_cut(bus: Bus, through_proxy: Any, eventually: Callable[..., Any]) -> None:
    other, proxy = await through_proxy()
    following = asyncio.create_task(collect(other.events(events_of("run1")), 40))
    for number in range(40):
        await say(bus, "run1", number)
        if number % 10 == 5:
            cuts = other.reconnects
            proxy.cut()
            await eventually(lambda cuts=cuts: other.reconnects > cuts)
    assert await following == list(range(40))
    assert other.reconnects == 4


async def test_reading_on_after_the_server_crashed(own_server: NatsServer, own_bus: Bus) -> None:
    following = asyncio.create_task(collect(own_bus.events(events_of("run1")), 6))
    await say(own_bus, "run1", 0, 1, 2)
    await own_server.stop()  # orderly: an asynchronously persisted tail may be lost in a crash
    await own_server.start()
    await say(own_bus, "run1", 3, 4, 5)
    assert await following == list(range(6))


async def test_reading_on_when_the_tail_was_lost_and_its_numbers_are_given_out_again(own_server: NatsServer, own_bus: Bus) -> None:
    """A reader that has seen 3 events of which the crash lost 2 must see the new 2 and 3, and nothing twice."""
    async with asyncio.timeout(20), aclosing(own_bus.events(events_of("run1"))) as events:
        await say(own_bus, "run1", 0, 1, 2)
        assert [int((await anext(events)).data) for _ in range(3)] == [0, 1, 2]
        lose_the_rest = await tail_lost(own_server, own_bus, keep=1)
        await own_server.stop()
        lose_the_rest()
        await own_server.start()
        assert (await own_bus.connection.api(f"STREAM.INFO.{EVENT_STREAM}"))["state"]["last_seq"] == 1
        await say(own_bus, "run1", 10, 11, 12, 13)
        assert [int((await anext(events)).data) for _ in range(4)] == [10, 11, 12, 13]


async def tail_lost(server: NatsServer, bus: Bus, keep: int) -> Callable[[], None]:
    """Returns what makes the dead server's event stream as if only the first `keep` messages had reached the disk."""
    store = server.folder / "store" / "jetstream" / "$G" / "streams" / EVENT_STREAM
    count = int((await bus.connection.api(f"STREAM.INFO.{EVENT_STREAM}"))["state"]["messages"])

    def cut() -> None:
        block = store / "msgs" / "1.blk"
        size = block.stat().st_size
        with block.open("r+b") as file:
            file.truncate(size // count * keep)
        for index in store.glob("msgs/*.db"):
            index.unlink()
        shutil.rmtree(store / "obs", ignore_errors=True)

    return cut


async def test_a_consumer_that_vanishes_is_made_again(bus: Bus, eventually: Callable[..., Any]) -> None:
    following = asyncio.create_task(collect(bus.events(events_of("run1")), 4))
    await say(bus, "run1", 0, 1)
    await eventually(lambda: consumers(bus))
    for name in await consumers(bus):
        await bus.connection.api(f"CONSUMER.DELETE.{EVENT_STREAM}.{name}")
    await say(bus, "run1", 2, 3)
    assert await following == [0, 1, 2, 3]


async def test_a_silent_consumer_is_made_again(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the node that held it died while our own connection lives."""
    monkeypatch.setattr(_events, "SILENCE", 0.2)
    ask = Puller.request
    deaf = True

    async def request(self: Puller, batch: int, expires: float, heartbeat: float) -> None:
        nonlocal deaf
        if deaf:
            deaf = False
        else:
            await ask(self, batch, expires, heartbeat)

    monkeypatch.setattr(Puller, "request", request)
    await say(bus, "run1", 0)
    assert await collect(bus.events(events_of("run1")), 1) == [0]


async def test_a_gap_in_what_arrives_is_filled(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    await say(bus, "run1", *range(5))
    hear = Puller._on_message
    heard = 0

    async def lose_one(self: Puller, message: Any) -> None:
        nonlocal heard
        heard += 1
        if heard != 3:
            await hear(self, message)

    monkeypatch.setattr(Puller, "_on_message", lose_one)
    assert [int(event.data) async for event in bus.events(events_of("run1"), follow=False)] == [0, 1, 2, 3, 4]


async def test_reading_on_when_the_last_one_read_has_expired(bus: Bus, through_proxy: Any, eventually: Callable[..., Any]) -> None:
    other, proxy = await through_proxy()
    async with asyncio.timeout(20), aclosing(other.events(events_of("run1"))) as events:
        await say(bus, "run1", 0, 1, 2)
        assert [int((await anext(events)).data) for _ in range(3)] == [0, 1, 2]
        await bus.connection.api(f"STREAM.PURGE.{EVENT_STREAM}")
        proxy.cut()
        await eventually(lambda: other.reconnects)
        await say(bus, "run1", 3)
        assert int((await anext(events)).data) == 3


async def test_without_a_stream(bus: Bus) -> None:
    await bus.connection.api(f"STREAM.DELETE.{EVENT_STREAM}")
    with pytest.raises(NotBootstrapped, match="stream TW_EVT does not exist"):
        await collect(bus.events(events_of("run1")), 1)


async def test_a_stream_that_vanishes_under_a_follower(bus: Bus) -> None:
    await say(bus, "run1", 0)
    following = asyncio.create_task(collect(bus.events(events_of("run1")), 2))
    await asyncio.sleep(0.05)
    await bus.connection.api(f"STREAM.DELETE.{EVENT_STREAM}")
    with pytest.raises(NotBootstrapped, match="stream TW_EVT does not exist"):
        await following


async def test_a_stream_that_vanishes_before_the_first_consumer(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    async def still_there(_self: _events.Reader) -> dict[str, int]:
        return {"last_seq": 5}

    monkeypatch.setattr(_events.Reader, "_stream_state", still_there)
    await bus.connection.api(f"STREAM.DELETE.{EVENT_STREAM}")
    with pytest.raises(NotBootstrapped, match="stream TW_EVT does not exist"):
        await collect(bus.events(events_of("run1")), 1)


async def test_closing_the_bus_ends_followers(connect: Any, bus: Bus) -> None:
    other = await connect()
    following = asyncio.create_task(collect(other.events(events_of("run1")), 1))
    await asyncio.sleep(0.05)
    await other.close()
    with pytest.raises(NoConnection, match="the bus is closed"):
        await following
