"""Work queues: what happens to a job that is taken, kept, given back, lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tilewright.protocol import _queue
from tilewright.protocol._pull import Puller
from tilewright.protocol.bootstrap import bootstrap
from tilewright.protocol.bus import Bus, Delivery, Queue
from tilewright.protocol.errors import NoConnection, NotBootstrapped
from tilewright.protocol.subjects import MAX_DELIVERIES, durable, job_stream, job_subject
from tilewright.services.runtime.nats_server import NatsServer

QUEUE = job_stream("map")
Connect = Callable[[], Awaitable[Bus]]


@pytest.fixture
def ack_wait() -> float:
    return 1.0


def subject(task: int = 0) -> str:
    return job_subject("map", "run1", f"map-{task}")


async def put(bus: Bus, *tasks: int) -> None:
    for task in tasks or (0,):
        await bus.publish(subject(task), b"%d" % task, f"run1.map-{task}.0.job")


async def take(queue: Queue, timeout: float = 20.0) -> Delivery:
    delivery = await queue.fetch(timeout)
    assert delivery is not None
    return delivery


async def test_an_acked_job_is_gone(bus: Bus) -> None:
    queue = await bus.queue(QUEUE)
    await put(bus)
    delivery = await take(queue)
    assert (delivery.data, delivery.subject, delivery.deliveries, delivery.stream_sequence) == (b"0", subject(), 1, 1)
    assert await bus.lag(QUEUE) == (0, 1)
    await delivery.ack()
    assert await bus.lag(QUEUE) == (0, 0)
    assert await bus.subjects(QUEUE, ">") == {}


async def test_an_empty_queue_is_none(bus: Bus) -> None:
    queue = await bus.queue(QUEUE)
    assert await queue.fetch(0.05) is None


async def test_jobs_come_in_order_one_at_a_time(bus: Bus) -> None:
    queue = await bus.queue(QUEUE)
    await put(bus, 0, 1, 2)
    assert [(await take(queue)).data for _ in range(3)] == [b"0", b"1", b"2"]


async def test_a_job_without_a_verdict_comes_again(bus: Bus, connect: Connect) -> None:
    first, second = await bus.queue(QUEUE), await (await connect()).queue(QUEUE)
    await put(bus)
    await take(first)
    again = await take(second)
    assert (again.data, again.deliveries, again.stream_sequence) == (b"0", 2, 1)


async def test_a_job_of_a_closed_bus_comes_again(bus: Bus, connect: Connect) -> None:
    other = await connect()
    await put(bus)
    await take(await other.queue(QUEUE))
    await other.close()
    assert (await take(await bus.queue(QUEUE))).deliveries == 2


class TestInProgress:
    @pytest.fixture
    def ack_wait(self) -> float:
        return 2.0

    async def test_it_keeps_the_job(self, bus: Bus) -> None:
        queue = await bus.queue(QUEUE)
        await put(bus)
        delivery = await take(queue)
        for _ in range(6):  # longer than ack_wait
            await delivery.in_progress()
            assert await queue.fetch(0.5) is None
        assert await bus.lag(QUEUE) == (0, 1)
        await delivery.ack()


async def test_nak_gives_it_back_at_once(bus: Bus) -> None:
    queue = await bus.queue(QUEUE)
    await put(bus)
    await (await take(queue)).nak()
    assert (await take(queue, 0.9)).deliveries == 2


async def test_nak_with_a_delay(bus: Bus) -> None:
    queue = await bus.queue(QUEUE)
    await put(bus, 0, 1)
    await (await take(queue)).nak(delay=1.5)
    other = await take(queue)
    assert other.data == b"1"
    await other.ack()
    assert await queue.fetch(0.5) is None, "not before its time"
    assert (await take(queue)).data == b"0"


async def test_term_removes_it(bus: Bus) -> None:
    queue = await bus.queue(QUEUE)
    await put(bus)
    await (await take(queue)).term()
    assert await bus.lag(QUEUE) == (0, 0)
    assert await bus.subjects(QUEUE, ">") == {}


@pytest.mark.parametrize("first", ["ack", "nak", "term"])
async def test_only_the_first_verdict_counts(bus: Bus, first: str) -> None:
    queue = await bus.queue(QUEUE)
    await put(bus)
    delivery = await take(queue)
    await getattr(delivery, first)()
    await delivery.term()
    await delivery.ack()
    await delivery.in_progress()
    assert len(await bus.subjects(QUEUE, ">")) == (1 if first == "nak" else 0)


async def test_a_late_ack_is_accepted(bus: Bus) -> None:
    """So an ack is no fence: what a job records must be first-writer-wins."""
    queue = await bus.queue(QUEUE)
    await put(bus)
    late = await take(queue)
    again = await take(queue)
    await late.ack()
    await again.ack()
    assert await bus.lag(QUEUE) == (0, 0)


async def test_after_the_last_delivery_it_stays_but_is_not_offered(bus: Bus) -> None:
    queue = await bus.queue(QUEUE)
    await put(bus)
    for delivery in range(1, MAX_DELIVERIES + 1):
        job = await take(queue)
        assert job.deliveries == delivery
        await job.nak()
    assert await queue.fetch(0.2) is None
    assert await bus.lag(QUEUE) == (0, 0)
    assert await bus.subjects(QUEUE, ">") == {subject(): 1}, "this is how one finds it"


@pytest.mark.parametrize("verdict", ["ack", "term"])
async def test_a_verdict_survives_a_crash_of_the_server(own_server: NatsServer, own_bus: Bus, verdict: str) -> None:
    queue = await own_bus.queue(QUEUE)
    await put(own_bus)
    delivery = await take(queue)
    await own_server.kill()
    settling = asyncio.create_task(getattr(delivery, verdict)())
    await own_server.start()
    await settling
    assert await own_bus.subjects(QUEUE, ">") == {}


@pytest.mark.parametrize("verdict", ["ack", "term", "nak"])
async def test_a_server_that_forgot_the_delivery_does_not_keep_the_worker_waiting(bus: Bus, verdict: str) -> None:
    """A crash may lose what a consumer had delivered; its stream still has the job. Made anew, a consumer knows as little."""
    queue = await bus.queue(QUEUE)
    await put(bus)
    delivery = await take(queue)
    await bus.connection.api(f"CONSUMER.DELETE.{QUEUE}.{durable(QUEUE)}")
    await bootstrap(bus, ack_wait=1.0)
    await getattr(delivery, verdict)()
    again = await queue.fetch(0.2)
    assert (again is not None) == (verdict == "nak")


async def nothing_left(bus: Bus) -> bool:
    return await bus.lag(QUEUE) == (0, 0)


async def test_a_verdict_waits_for_a_line_that_is_down(
    bus: Bus, through_proxy: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_queue, "CONFIRMATION", 0.2)
    other, proxy = await through_proxy()
    queue = await other.queue(QUEUE)
    await put(bus)
    delivery = await take(queue)
    proxy.hold_answers()
    acking = asyncio.create_task(delivery.ack())
    await eventually(lambda: nothing_left(bus))
    await proxy.shut()
    await asyncio.sleep(0.4)
    assert not acking.done()
    await proxy.open()
    await acking
    assert await bus.lag(QUEUE) == (0, 0)


async def test_removing_twice_is_once(bus: Bus) -> None:
    queue = await bus.queue(QUEUE)
    await put(bus)
    delivery = await take(queue)
    await bus.connection.api(f"STREAM.MSG.DELETE.{QUEUE}", {"seq": delivery.stream_sequence})
    await bus.connection.api(f"CONSUMER.DELETE.{QUEUE}.{durable(QUEUE)}")
    await bootstrap(bus, ack_wait=1.0)
    await delivery.ack()
    assert await bus.lag(QUEUE) == (0, 0)


async def test_a_waiting_fetch_wakes_up_when_the_server_is_back(own_server: NatsServer, own_bus: Bus) -> None:
    queue = await own_bus.queue(QUEUE)
    fetching = asyncio.create_task(queue.fetch(600.0))
    await asyncio.sleep(0.05)
    await own_server.kill()
    await own_server.start()
    async with asyncio.timeout(20):
        await put(own_bus)
        delivery = await fetching
    assert delivery is not None
    assert delivery.data == b"0"
    await delivery.ack()
    assert await own_bus.lag(QUEUE) == (0, 0)


async def test_a_fetch_without_a_server_is_none(own_server: NatsServer, own_bus: Bus, eventually: Any) -> None:
    queue = await own_bus.queue(QUEUE)
    await own_server.kill()
    await eventually(lambda: not own_bus.connected)
    assert await queue.fetch(0.1) is None


async def test_in_progress_without_a_server_does_not_raise(own_server: NatsServer, own_bus: Bus, eventually: Any) -> None:
    queue = await own_bus.queue(QUEUE)
    await put(own_bus)
    delivery = await take(queue)
    await own_server.kill()
    await eventually(lambda: not own_bus.connected)
    await delivery.in_progress()


class TestMissingConsumer:
    async def test_binding_says_so(self, bus: Bus) -> None:
        await bus.connection.api(f"CONSUMER.DELETE.{QUEUE}.{durable(QUEUE)}")
        with pytest.raises(
            NotBootstrapped, match=r"consumer tw_job_map_workers of stream TW_JOB_MAP does not exist.*tilewright admin init"
        ):
            await bus.queue(QUEUE)
        with pytest.raises(NotBootstrapped, match="tilewright admin init"):
            await bus.lag(QUEUE)

    async def test_it_is_noticed_waited_for_and_found_again(
        self, bus: Bus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        requests = 0
        ask = Puller.request

        async def count(self: Puller, batch: int, expires: float) -> None:
            nonlocal requests
            requests += 1
            await ask(self, batch, expires)

        monkeypatch.setattr(Puller, "request", count)
        queue = await bus.queue(QUEUE)
        fetching = asyncio.create_task(queue.fetch(1.5))
        await asyncio.sleep(0.05)
        await bus.connection.api(f"CONSUMER.DELETE.{QUEUE}.{durable(QUEUE)}")
        with caplog.at_level(logging.WARNING, "tilewright.bus"):
            assert await fetching is None
            assert await queue.fetch(1.0) is None
        assert 2 <= requests <= 8, "a pause between two looks, each longer"
        assert [record.message for record in caplog.records] == ["consumer tw_job_map_workers of stream TW_JOB_MAP: Consumer Deleted"]
        await bootstrap(bus, ack_wait=1.0)
        await put(bus)
        assert (await take(queue)).data == b"0"

    async def test_a_verdict_on_its_job_says_so(self, bus: Bus) -> None:
        queue = await bus.queue(QUEUE)
        await put(bus)
        delivery = await take(queue)
        await bus.connection.api(f"CONSUMER.DELETE.{QUEUE}.{durable(QUEUE)}")
        with pytest.raises(NotBootstrapped, match="the consumer of tw"):
            await delivery.ack()


class TestNothingIsHeldIdle:
    """ack_wait is an hour here: a job that nobody works on must come back by other means."""

    @pytest.fixture
    def ack_wait(self) -> float:
        return 3600.0

    async def test_a_job_that_comes_after_a_cancelled_fetch(self, bus: Bus, connect: Connect) -> None:
        idle = await bus.queue(QUEUE)
        fetching = asyncio.create_task(idle.fetch(600.0))
        await asyncio.sleep(0.05)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        await put(bus)
        delivery = await take(await (await connect()).queue(QUEUE))
        assert (delivery.data, delivery.deliveries) == (b"0", 2)

    async def test_what_a_restarted_request_brings_twice(self, bus: Bus, through_proxy: Any, eventually: Any) -> None:
        """After a reconnect two requests may be open; the second job must not wait here."""
        other, proxy = await through_proxy()
        queue = await other.queue(QUEUE)
        fetching = asyncio.create_task(queue.fetch(600.0))
        await asyncio.sleep(0.05)
        proxy.cut()
        await eventually(lambda: other.reconnects)
        await put(bus, 0, 1)
        first = await fetching
        assert first is not None
        second = await take(await bus.queue(QUEUE))
        assert {first.data, second.data} == {b"0", b"1"}

    async def test_a_job_that_comes_in_the_very_moment_of_a_cancellation(
        self, bus: Bus, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hear = Puller._on_message
        fetching: asyncio.Task[Delivery | None]

        async def cancel_then_hear(self: Puller, message: Any) -> None:
            fetching.cancel()
            await hear(self, message)

        monkeypatch.setattr(Puller, "_on_message", cancel_then_hear)
        queue = await bus.queue(QUEUE)
        fetching = asyncio.create_task(queue.fetch(600.0))
        await asyncio.sleep(0.05)
        await put(bus)
        with pytest.raises(asyncio.CancelledError):
            await fetching
        monkeypatch.undo()
        assert (await take(await (await connect()).queue(QUEUE))).data == b"0"


async def close_while_fetching(queue: Queue, fetching: asyncio.Task[Delivery | None]) -> Delivery | None:
    await queue.close()
    try:
        return await fetching
    except NoConnection:
        return None


async def test_a_job_that_comes_while_a_queue_is_closed(bus: Bus, connect: Connect) -> None:
    """It is handed back; what the server sends into an inbox that is just closing comes again after ack_wait."""
    for task in range(20):
        closing = await bus.queue(QUEUE)
        fetching = asyncio.create_task(closing.fetch(600.0))
        await asyncio.sleep(0.002 * (task % 5))
        _, verdict = await asyncio.gather(put(bus, task), close_while_fetching(closing, fetching))
        if verdict is not None:
            await verdict.nak()
    last = await (await connect()).queue(QUEUE)
    seen = set()
    for _ in range(20):
        delivery = await take(last)
        seen.add(delivery.data)
        await delivery.ack()
    assert seen == {b"%d" % task for task in range(20)}


async def test_several_tasks_share_a_queue(bus: Bus) -> None:
    queue = await bus.queue(QUEUE)
    fetching = [asyncio.create_task(take(queue)) for _ in range(5)]
    await put(bus, *range(5))
    deliveries = await asyncio.gather(*fetching)
    assert sorted(delivery.data for delivery in deliveries) == [b"%d" % task for task in range(5)]
    assert {delivery.deliveries for delivery in deliveries} == {1}


async def test_a_closed_queue_or_bus_does_not_pretend_to_be_empty(bus: Bus, connect: Connect) -> None:
    queue = await bus.queue(QUEUE)
    await queue.close()
    await queue.close()
    with pytest.raises(NoConnection, match="the queue is closed"):
        await queue.fetch()
    other = await connect()
    waiting = asyncio.create_task((await other.queue(QUEUE)).fetch(600.0))
    await asyncio.sleep(0.05)
    await other.close()
    with pytest.raises(NoConnection, match="closed"):
        await waiting
    with pytest.raises(NoConnection, match="the bus is closed"):
        await other.queue(QUEUE)
