"""Publishing: once, whatever the connection does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tilewright.protocol import _publish
from tilewright.protocol.bootstrap import bootstrap
from tilewright.protocol.bus import Bus
from tilewright.protocol.errors import Backlog, InvalidMessage, NoConnection, NotBootstrapped
from tilewright.protocol.keys import message_id
from tilewright.protocol.subjects import DONE_STREAM, Limits, done_subject, job_stream, job_subject
from tilewright.services.runtime.nats_server import NatsServer

JOB = job_subject("map", "run1", "map-0")
QUEUE = job_stream("map")


async def test_the_same_id_is_stored_once(bus: Bus) -> None:
    assert await bus.publish(JOB, b"job", "run1.map-0.0.job") is True
    assert await bus.publish(JOB, b"job", "run1.map-0.0.job") is False
    assert await bus.lag(QUEUE) == (1, 0)


async def test_the_same_id_is_refused_even_after_the_job_was_done(bus: Bus) -> None:
    queue = await bus.queue(QUEUE)
    await bus.publish(JOB, b"job", "run1.map-0.0.job")
    delivery = await queue.fetch()
    assert delivery is not None
    await delivery.ack()
    assert await bus.publish(JOB, b"job", "run1.map-0.0.job") is False
    assert await queue.fetch(0.1) is None


async def test_a_raised_generation_is_a_new_job_inside_the_duplicate_window(bus: Bus) -> None:
    queue = await bus.queue(QUEUE)
    for generation in range(3):
        assert await bus.publish(JOB, b"job", message_id("run1", "map-0", generation, "job"))
        delivery = await queue.fetch()
        assert delivery is not None
        assert delivery.headers["Nats-Msg-Id"] == f"run1.map-0.{generation}.job"
        assert delivery.deliveries == 1
        await delivery.ack()


async def test_headers_travel(bus: Bus) -> None:
    queue = await bus.queue(QUEUE)
    await bus.publish(JOB, b"job", "id", headers={"traceparent": "00-abc"})
    delivery = await queue.fetch()
    assert delivery is not None
    assert (delivery.headers["traceparent"], delivery.subject, delivery.data) == ("00-abc", JOB, b"job")


class TestFull:
    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(job_messages=3, queue_bytes=4000)

    async def test_a_full_queue_is_backlog_and_takes_the_job_later(self, bus: Bus) -> None:
        for task in range(3):
            await bus.publish(job_subject("map", "run1", f"map-{task}"), b"job", f"{task}")
        with pytest.raises(Backlog, match="maximum messages exceeded"):
            await bus.publish(JOB, b"job", "3")
        delivery = await (await bus.queue(QUEUE)).fetch()
        assert delivery is not None
        await delivery.ack()
        assert await bus.publish(JOB, b"job", "3")

    async def test_full_in_bytes(self, bus: Bus) -> None:
        await bus.publish(done_subject("run1", "map"), bytes(3000), "0")
        with pytest.raises(Backlog, match="maximum bytes exceeded"):
            await bus.publish(done_subject("run1", "map"), bytes(3000), "1")
        assert await bus.subjects(DONE_STREAM, ">") == {done_subject("run1", "map"): 1}


async def test_no_stream_takes_the_subject(bus: Bus) -> None:
    with pytest.raises(NotBootstrapped, match=r"stream for tw\.v1\.nowhere does not exist.*tilewright admin init"):
        await bus.publish("tw.v1.nowhere", b"", "id")


async def test_too_large(bus: Bus) -> None:
    with pytest.raises(InvalidMessage, match="2000000 bytes, expected at most 1048576"):
        await bus.publish(JOB, bytes(2_000_000), "id")


async def test_publishing_waits_for_a_dead_server(own_server: NatsServer, own_bus: Bus) -> None:
    await own_server.kill()
    jobs = [asyncio.create_task(own_bus.publish(job_subject("map", "run1", f"map-{i}"), b"job", f"{i}")) for i in range(20)]
    await asyncio.sleep(0)
    await own_server.start()
    assert all(await asyncio.gather(*jobs))
    assert len(await own_bus.subjects(QUEUE, ">")) == 20
    assert own_bus.reconnects == 1
    assert await own_bus.publish(job_subject("map", "run1", "map-0"), b"job", "0") is False, "the window survives the server"


async def test_publishing_gives_up_with_a_reason(own_server: NatsServer, own_bus: Bus) -> None:
    await own_server.kill()
    with pytest.raises(NoConnection, match=r"did not answer for 0\.3 s"):
        await _publish.publish(own_bus.connection, JOB, b"job", "id", patience=0.3)


async def test_a_lost_answer_is_asked_for_again(bus: Bus, through_proxy: Any, eventually: Any) -> None:
    other, proxy = await through_proxy()
    proxy.hold_answers()
    publishing = asyncio.create_task(other.publish(JOB, b"job", "id"))
    await eventually(lambda: bus.subjects(QUEUE, ">"))  # it is stored, only the answer is missing
    assert not publishing.done()
    proxy.cut()
    assert await publishing is False
    assert await bus.lag(QUEUE) == (1, 0)
    assert other.reconnects == 1


async def test_a_stream_that_is_made_late_is_waited_for_a_moment(bus: Bus) -> None:
    await bus.connection.api(f"STREAM.DELETE.{DONE_STREAM}")
    publishing = asyncio.create_task(bus.publish(done_subject("run1", "map"), b"", "id"))
    await asyncio.sleep(0)
    await bootstrap(bus)
    assert await publishing is True


async def test_events_and_signals_never_raise(own_server: NatsServer, own_bus: Bus, eventually: Any) -> None:
    await own_server.kill()
    await eventually(lambda: not own_bus.connected)
    for _ in range(5):  # more than the client buffers
        await own_bus.emit("tw.v1.evt.r.map.t.log", bytes(900_000), "id")
        await own_bus.signal("tw.v1.ctl.cancel.r", bytes(900_000))
    await own_bus.close()
    await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})  # nothing of the client is left half closed
    await own_bus.emit("tw.v1.evt.r.map.t.log", b"", "id")
