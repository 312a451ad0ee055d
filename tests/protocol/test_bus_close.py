"""Leaving: bounded, whatever is subscribed, whatever the line does. And the two things without streams: signals and discovery."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tilewright.protocol import _connection
from tilewright.protocol.bus import Bus, ServiceInfo
from tilewright.protocol.errors import NoConnection
from tilewright.protocol.subjects import cancel_subject, event_subject, events_of, job_subject
from tilewright.services.runtime.nats_server import NatsServer

Connect = Callable[[], Awaitable[Bus]]


async def busy(bus: Bus) -> list[asyncio.Task[Any]]:
    """Everything that can be subscribed at once, with messages that nobody reads."""
    queue = await bus.queue("TW_JOB_MAP")
    await bus.serve_info("mapper", {}, dict)
    for number in range(300):
        await bus.emit(event_subject("run1", "map", "t", "log"), b"%d" % number, f"{number}")
    await bus.publish(job_subject("map", "r", "t"), b"", "job")
    events = bus.events(events_of("run1"))
    await anext(events)
    listening = bus.listen(cancel_subject("run1"))
    tasks = [asyncio.create_task(anext(listening, None)), asyncio.create_task(queue.fetch(600.0)), asyncio.create_task(queue.fetch(600.0))]
    await asyncio.sleep(0.05)
    for _ in range(100):
        await bus.signal(cancel_subject("run1"))
    tasks.append(asyncio.create_task(drop(events)))
    return tasks


async def drop(events: Any) -> None:
    """Holds a reader that never reads on."""
    try:
        await asyncio.Event().wait()
    finally:
        await events.aclose()


async def settle(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_closing_with_everything_subscribed(bus: Bus, connect: Connect) -> None:
    other = await connect()
    tasks = await busy(other)
    async with asyncio.timeout(_connection.CLOSING):
        await other.close()
    await settle(tasks)
    assert await bus.services(0.1) == []


async def test_closing_while_the_server_is_gone(own_server: NatsServer, own_bus: Bus, eventually: Any) -> None:
    tasks = await busy(own_bus)
    await own_server.kill()
    await eventually(lambda: not own_bus.connected)
    async with asyncio.timeout(_connection.CLOSING):
        await own_bus.close()
    await settle(tasks)


async def test_closing_over_a_deaf_line(bus: Bus, through_proxy: Any) -> None:
    """The worst case: the peer is there and never answers. Nothing may wait for it longer than it says."""
    other, proxy = await through_proxy()
    tasks = await busy(other)
    proxy.hold_answers()
    async with asyncio.timeout(20):
        await other.close()
    await settle(tasks)


async def test_a_cancellation_inside_of_the_client_is_not_ours(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed in the middle of a reconnect, the client's own tasks cancel what it is waiting for itself."""
    other = await connect()
    close = other.connection.client.close

    async def cancelled_halfway() -> None:
        await close()
        raise asyncio.CancelledError

    monkeypatch.setattr(other.connection.client, "close", cancelled_halfway)
    monkeypatch.setattr(other.connection.client, "drain", asyncio.Event().wait)
    monkeypatch.setattr(_connection, "CLOSING", 0.1)
    await other.close()


async def test_closing_can_be_cancelled(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    other = await connect()
    started = asyncio.Event()

    async def hang() -> None:
        started.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(other.connection.client, "close", hang)
        closing = asyncio.create_task(other.connection._close_client())
        await started.wait()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing


async def test_closing_twice(connect: Connect, nats_server: Any) -> None:
    other = await connect()
    await other.close()
    await other.close()
    assert not other.connected


async def test_what_was_emitted_before_closing_arrives(bus: Bus, connect: Connect) -> None:
    async with await connect() as other:
        for number in range(50):
            await other.emit(event_subject("run1", "map", "t", "log"), b"%d" % number, f"{number}")
    events = [int(event.data) async for event in bus.events(events_of("run1"), follow=False)]
    assert events == list(range(50))


async def test_signals_reach_everybody_who_listens_now(bus: Bus, connect: Connect, eventually: Any) -> None:
    heard: list[bytes] = []

    async def listen(to: Bus) -> None:
        async for data in to.listen(cancel_subject("run1")):
            heard.append(data)

    listeners = [asyncio.create_task(listen(each)) for each in (bus, await connect())]
    await asyncio.sleep(0.05)
    await bus.signal(cancel_subject("run2"), b"other")
    await bus.signal(cancel_subject("run1"), b"now")
    await eventually(lambda: len(heard) == 2)
    assert heard == [b"now", b"now"]
    await settle(listeners)


async def test_listening_survives_a_reconnect(through_proxy: Any, bus: Bus, eventually: Any) -> None:
    other, proxy = await through_proxy()
    hearing = asyncio.create_task(anext(other.listen("tw.v1.ctl.>")))
    await asyncio.sleep(0.05)
    proxy.cut()
    await eventually(lambda: other.reconnects)
    await bus.signal("tw.v1.ctl.cancel.r", b"x")
    assert await hearing == b"x"


async def test_a_closed_bus_cannot_be_used(connect: Connect, nats_server: Any) -> None:
    other = await connect()
    await other.close()
    for use in (
        other.bucket("tw_runs"),
        other.queue("TW_RUN"),
        other.publish("tw.v1.run.submit", b"", "x"),
        other.get_blob("0" * 64),
        other.services(),
    ):
        with pytest.raises(NoConnection, match="the bus is closed"):
            await use
    with pytest.raises(NoConnection):
        await anext(other.listen("x"))


async def test_services_say_who_they_are(bus: Bus, connect: Connect) -> None:
    assert await bus.services(0.1) == []
    first, second = await connect(), await connect()
    busy = 0
    await first.serve_info("mapper", {"slots": "2"}, lambda: {"busy": busy})
    await second.serve_info("mapper", {"slots": "4"}, lambda: {"busy": 3, "plugins": ["cosa"]})
    await second.serve_info("simulator", {}, dict)
    busy = 1
    found = await bus.services()
    assert [service.name for service in found] == ["mapper", "mapper", "simulator"]
    assert len({service.id for service in found}) == 3
    mappers = sorted(found[:2], key=lambda service: service.metadata["slots"])
    assert [service.stats for service in mappers] == [{"busy": 1}, {"busy": 3, "plugins": ["cosa"]}]
    assert found[2] == ServiceInfo("simulator", found[2].id, found[2].version)
    await second.close()
    assert [service.name for service in await bus.services()] == ["mapper"]


async def test_the_status_of_one_service(bus: Bus) -> None:
    await bus.serve_info("mapper", {}, lambda: {"busy": 2})
    reply = await bus.connection.client.request("tw.mapper.status")
    assert reply.data == b'{"busy": 2}'


async def test_other_micro_services_do_no_harm(bus: Bus, connect: Connect) -> None:
    """``$SRV`` is shared by everybody on the server; an answer may be anything."""
    other = await connect()
    answers = iter([b"not json", b"[1]", b'{"name": 5}', b'{"name":"x","id":"1","version":"2.0.0","endpoints":[{"data":7}]}'])

    async def answer(message: Any) -> None:
        for each in answers:
            await other.connection.send(message.reply, each)

    await other.connection.subscribe("$SRV.STATS", answer)
    await other.connection.client.flush()
    assert await bus.services() == [ServiceInfo("x", "1", "2.0.0")]
