"""Three servers, three copies of everything: what the cluster overlay runs on."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from tilewright.protocol.bootstrap import bootstrap, streams
from tilewright.protocol.bus import Bus, BusSettings
from tilewright.protocol.subjects import Limits, event_subject, events_of, job_stream, job_subject
from tilewright.services.runtime.nats_server import binary

QUEUE = job_stream("map")
SMALL = Limits(result_bytes=1 << 26, blob_bytes=1 << 26, event_bytes=1 << 26, queue_bytes=1 << 24)


class Cluster:
    """Three processes; routes need their ports beforehand, so they are picked, and picked again when somebody was faster."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        with (
            socket.socket() as a,
            socket.socket() as b,
            socket.socket() as c,
            socket.socket() as d,
            socket.socket() as e,
            socket.socket() as f,
        ):
            sockets = (a, b, c, d, e, f)
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            ports = [each.getsockname()[1] for each in sockets]
        self.clients, self._routes = ports[:3], ports[3:]
        self.settings = BusSettings(url=",".join(f"nats://127.0.0.1:{port}" for port in self.clients), connect_timeout=30.0)

    def start(self, index: int) -> None:
        folder = self._folder / f"n{index}"
        folder.mkdir(exist_ok=True)
        config = {
            "server_name": f"n{index}",
            "host": "127.0.0.1",
            "port": self.clients[index],
            "jetstream": {"store_dir": str(folder), "max_file_store": 4 << 30, "sync_interval": "always"},
            "cluster": {
                "name": "c",
                "host": "127.0.0.1",
                "port": self._routes[index],
                "routes": [f"nats://127.0.0.1:{port}" for port in self._routes],
            },
        }
        (folder / "server.conf").write_text(json.dumps(config))
        with (folder / "log").open("wb") as log:
            self._processes[index] = subprocess.Popen([binary(), "-c", str(folder / "server.conf")], stderr=log)

    def kill(self, index: int) -> None:
        self._processes[index].send_signal(signal.SIGKILL)
        self._processes[index].wait()

    def stop(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(tmp_path)
    for index in range(3):
        cluster.start(index)
    yield cluster
    cluster.stop()


async def made(bus: Bus) -> None:
    """Bootstrap with three copies, once the servers have found each other."""
    async with asyncio.timeout(60):
        while True:
            try:
                await bootstrap(bus, SMALL, replicas=3)
            except Exception as error:
                if "peers" not in str(error):
                    raise
                await asyncio.sleep(0.2)
            else:
                return


async def test_nothing_accepted_is_lost_when_a_leader_dies(cluster: Cluster, eventually: Any) -> None:
    async with await Bus.connect(cluster.settings) as bus:
        await made(bus)
        for config in streams(SMALL, 3):
            found = (await bus.connection.api(f"STREAM.INFO.{config['name']}"))["config"]
            assert found["num_replicas"] == 3
        bucket = await bus.bucket("tw_runs")
        revision = await bucket.create("run1", b"0")
        seen: list[int] = []
        following = asyncio.create_task(follow(bus, seen))
        for number in range(30):
            if number == 5:
                leader = (await bus.connection.api(f"STREAM.INFO.{QUEUE}"))["cluster"]["leader"]
                cluster.kill(int(leader[1:]))
                down = int(leader[1:])
            if number == 20:
                cluster.start(down)
            await bus.publish(job_subject("map", "run1", f"map-{number}"), b"%d" % number, f"{number}")
            await bus.publish(event_subject("run1", "map", "t", "log"), b"%d" % number, f"{number}")
            revision = await bucket.update("run1", b"%d" % (number + 1), revision)
        async with asyncio.timeout(60):
            await following
        assert seen == list(range(30))
        entry = await bucket.get("run1")
        assert entry is not None
        assert entry.value == b"30"
        queue = await bus.queue(QUEUE)
        jobs: set[int] = set()
        async with asyncio.timeout(60):
            while len(jobs) < 30:
                delivery = await queue.fetch()
                if delivery is not None:
                    jobs.add(int(delivery.data))
                    await delivery.ack()
        await eventually(lambda: nothing_left(bus))


async def nothing_left(bus: Bus) -> bool:
    """A cluster confirms an ack before every copy has let go of the job."""
    return not await bus.subjects(QUEUE, ">")


async def follow(bus: Bus, seen: list[int]) -> None:
    events: Any = bus.events(events_of("run1"))
    async with aclosing(events):
        async for event in events:
            seen.append(int(event.data))
            if len(seen) == 30:
                return
