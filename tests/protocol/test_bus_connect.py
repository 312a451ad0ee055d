"""The first connection: it works, or it says why not."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import nats.errors
import pytest
import trustme

from tilewright.protocol import _dial, _publish
from tilewright.protocol.bus import Bus, BusSettings
from tilewright.protocol.errors import InvalidInput, NoConnection
from tilewright.protocol.subjects import RUNS_BUCKET
from tilewright.services.runtime.nats_server import NatsServer, binary

RawServer = Callable[[dict[str, Any]], Any]


@pytest.fixture
def raw_server(tmp_path: Path) -> Iterator[RawServer]:
    """Starts servers with any configuration; gives their port."""
    running: list[subprocess.Popen[bytes]] = []

    async def start(configuration: dict[str, Any]) -> int:
        folder = tmp_path / f"raw{len(running)}"
        folder.mkdir()
        config = {"host": "127.0.0.1", "port": -1, "ports_file_dir": str(folder), **configuration}
        (folder / "server.conf").write_text(json.dumps(config))
        process = subprocess.Popen([binary(), "-c", str(folder / "server.conf")], stderr=subprocess.DEVNULL)  # noqa: ASYNC220
        running.append(process)
        async with asyncio.timeout(20):
            while True:
                for file in folder.glob("*.ports"):
                    try:
                        return int(json.loads(file.read_text())["nats"][0].rpartition(":")[2])
                    except ValueError:
                        continue
                await asyncio.sleep(0.01)

    yield start
    for process in running:
        process.terminate()
        process.wait()


@pytest.fixture
async def deaf_port() -> AsyncIterator[int]:
    """A port that accepts connections and never says anything."""
    held = []

    async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    for writer in held:
        writer.close()
    server.close()
    await server.wait_closed()


@pytest.fixture
def closed_port() -> int:
    """A port where nobody listens."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def refusal(settings: BusSettings) -> str:
    async with asyncio.timeout(20):
        with pytest.raises(NoConnection) as caught:
            await Bus.connect(settings)
    assert caught.value.exit_code == 5
    return str(caught.value)


async def test_nobody_listens(closed_port: int) -> None:
    settings = BusSettings(url=f"nats://127.0.0.1:{closed_port}", connect_timeout=0.5)
    assert await refusal(settings) == f"NATS at nats://127.0.0.1:{closed_port}: nobody listens there (connection refused)"


async def test_a_server_that_comes_up_meanwhile_is_joined(tmp_path: Path, closed_port: int) -> None:
    server = NatsServer(tmp_path / "nats", port=closed_port)
    connecting = asyncio.create_task(Bus.connect(msgspec.structs.replace(server.settings, connect_timeout=20.0)))
    await asyncio.sleep(0.05)
    await server.start()
    async with await connecting as bus:
        assert bus.connected
    await server.stop()


async def test_one_of_several_addresses_suffices(nats_server: BusSettings, closed_port: int) -> None:
    url = f"nats://127.0.0.1:{closed_port}, {nats_server.url}"
    async with await Bus.connect(msgspec.structs.replace(nats_server, url=url, connect_timeout=20.0)) as bus:
        assert bus.connected


async def test_no_answer(deaf_port: int) -> None:
    settings = BusSettings(url=f"nats://127.0.0.1:{deaf_port}", connect_timeout=0.3)
    assert await refusal(settings) == f"NATS at nats://127.0.0.1:{deaf_port}: no answer within 0.3 s"


async def test_not_a_nats_server(tmp_path: Path) -> None:
    async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert "when expecting INFO message" in await refusal(BusSettings(url=f"nats://127.0.0.1:{port}", connect_timeout=0.4))


async def test_no_such_host() -> None:
    text = await refusal(BusSettings(url="nats://nowhere.invalid:4222", connect_timeout=2.0))
    assert "the host name cannot be resolved" in text


async def test_wrong_token(nats_server: BusSettings) -> None:
    text = await refusal(msgspec.structs.replace(nats_server, token="not-the-token", connect_timeout=600.0))
    assert "the server refuses the token (authorization violation)" in text
    assert "not-the-token" not in text


async def test_missing_token(nats_server: BusSettings) -> None:
    text = await refusal(msgspec.structs.replace(nats_server, token="", connect_timeout=600.0))
    assert "the server refuses us without a token (authorization violation)" in text


async def test_passwords_in_the_address_are_not_repeated(nats_server: BusSettings) -> None:
    url = nats_server.url.replace("nats://", "nats://somebody:secret@")
    text = await refusal(BusSettings(url=url, connect_timeout=600.0))
    assert "secret" not in text
    assert "somebody" not in text


def test_settings_do_not_show_their_token() -> None:
    assert "secret" not in repr(BusSettings(url="nats://localhost:4222", token="secret"))


@pytest.mark.parametrize(
    "url", ["", "http://localhost:80", "nats://", "nats://host:port", "nats://host:0", "nats://host:99999", "nats://a,ftp://b"]
)
async def test_not_an_address(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"url: .* is not a NATS address, expected nats://host:port or tls://host:port"):
        await Bus.connect(BusSettings(url=url))


@pytest.mark.parametrize("field", ["ca", "credentials", "nkey_seed"])
async def test_a_file_that_does_not_exist(field: str) -> None:
    with pytest.raises(InvalidInput, match=f"{field}: file '/nowhere/x' does not exist"):
        await Bus.connect(msgspec.structs.replace(BusSettings(url="nats://localhost:4222"), **{field: "/nowhere/x"}))


async def test_a_ca_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("no certificate")
    with pytest.raises(InvalidInput, match=r"ca: .*ca\.pem' is not a PEM certificate bundle"):
        await Bus.connect(BusSettings(url="tls://localhost:4222", ca=str(path)))


@pytest.mark.parametrize("field", ["credentials", "nkey_seed"])
async def test_keys_without_their_package(tmp_path: Path, field: str, closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nkeys", None)
    path = tmp_path / "seed"
    path.write_text("SU...")
    text = await refusal(msgspec.structs.replace(BusSettings(url=f"nats://127.0.0.1:{closed_port}"), **{field: str(path)}))
    assert "pip install 'nats-py[nkeys]'" in text


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


class TestTls:
    @pytest.fixture
    async def port(self, authority: trustme.CA, tmp_path: Path, raw_server: RawServer) -> int:
        server = authority.issue_cert("127.0.0.1")
        server.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
        server.private_key_pem.write_to_path(tmp_path / "key.pem")
        port: int = await raw_server({"tls": {"cert_file": str(tmp_path / "cert.pem"), "key_file": str(tmp_path / "key.pem")}})
        return port

    async def test_a_trusted_certificate(self, authority: trustme.CA, port: int, tmp_path: Path) -> None:
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        async with await Bus.connect(BusSettings(url=f"tls://127.0.0.1:{port}", ca=str(tmp_path / "ca.pem"))) as bus:
            assert bus.connected

    @pytest.mark.parametrize("scheme", ["tls", "nats"])
    async def test_an_untrusted_certificate(self, port: int, scheme: str) -> None:
        text = await refusal(BusSettings(url=f"{scheme}://127.0.0.1:{port}", connect_timeout=600.0))
        assert "the server's certificate is not trusted" in text
        assert "TILEWRIGHT_NATS_CA" in text

    async def test_another_authority(self, port: int, tmp_path: Path) -> None:
        trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
        text = await refusal(BusSettings(url=f"tls://127.0.0.1:{port}", ca=str(tmp_path / "other.pem"), connect_timeout=600.0))
        assert "the server's certificate is not trusted" in text

    async def test_tls_to_a_server_without(self, raw_server: RawServer) -> None:
        """nats-py would go on in clear, token included."""
        port = await raw_server({})
        text = await refusal(BusSettings(url=f"tls://127.0.0.1:{port}", token="secret", connect_timeout=600.0))
        assert "the address asks for TLS, which the server does not offer" in text


async def test_a_server_without_jetstream(raw_server: RawServer) -> None:
    port = await raw_server({})
    async with await Bus.connect(BusSettings(url=f"nats://127.0.0.1:{port}")) as bus:
        with pytest.raises(NoConnection, match="JetStream does not answer; is it enabled there"):
            await bus.bucket(RUNS_BUCKET)


async def test_what_is_not_permitted_is_named(raw_server: RawServer, tmp_path: Path) -> None:
    user = {"user": "reader", "password": "x", "permissions": {"publish": "$SRV.>", "subscribe": ">"}}
    port = await raw_server({"jetstream": {"store_dir": str(tmp_path / "js")}, "authorization": {"users": [user]}})
    async with await Bus.connect(BusSettings(url=f"nats://reader:x@127.0.0.1:{port}")) as bus:
        with pytest.raises(NoConnection, match=r"did not answer for 0\.3 s.*[Pp]ermissions [Vv]iolation.*tw\.v1\.job"):
            await _publish.publish(bus.connection, "tw.v1.job.map.r.t", b"", "id", patience=0.3)


async def test_nothing_is_logged_above_debug_for_what_an_error_says(closed_port: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        await refusal(BusSettings(url=f"nats://127.0.0.1:{closed_port}", connect_timeout=0.3))
    assert caplog.records == []


async def test_cancelling_the_connection_attempt(deaf_port: int) -> None:
    connecting = asyncio.create_task(Bus.connect(BusSettings(url=f"nats://127.0.0.1:{deaf_port}", connect_timeout=600.0)))
    await asyncio.sleep(0.05)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting


def test_waits_double_up_to_a_limit_and_are_spread() -> None:
    def server(failures: int) -> Any:
        return type("Server", (), {"reconnects": failures})()

    first, seventh = server(0), server(7)
    waits = [_dial.next_server([seventh, first], {}) for _ in range(50)]
    assert all(chosen is first and 0.025 <= wait <= 0.075 for chosen, wait in waits)
    assert len({wait for _, wait in waits}) > 40
    assert all(1.0 <= _dial.next_server([server(n)], {})[1] <= 3.0 for n in (6, 20, 10**6))


async def test_a_peer_that_went_silent_is_given_up(bus: Bus, through_proxy: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody closes the line; only pings tell. (Every 10 s, and twice unanswered, where nobody is in a hurry.)"""
    options = _dial.options
    assert {
        key: options(BusSettings(url="nats://a:1"))[key] for key in ("ping_interval", "max_outstanding_pings", "max_reconnect_attempts")
    } == {
        "ping_interval": 10,
        "max_outstanding_pings": 2,
        "max_reconnect_attempts": -1,
    }
    monkeypatch.setattr(_dial, "options", lambda settings: {**options(settings), "ping_interval": 0.1})
    other, proxy = await through_proxy()
    queue = await other.queue("TW_JOB_MAP")
    fetching = asyncio.create_task(queue.fetch(600.0))
    await asyncio.sleep(0.05)
    proxy.hold_answers()
    await eventually(lambda: not other.connected)
    proxy.cut()
    await eventually(lambda: other.reconnects)
    await bus.publish("tw.v1.job.map.r.t", b"after", "id")
    delivery = await fetching
    assert delivery is not None
    assert delivery.data == b"after"


async def test_a_server_that_refuses_us_for_good_ends_every_wait(own_server: NatsServer, own_bus: Bus) -> None:
    queue = await own_bus.queue("TW_JOB_MAP")
    fetching = asyncio.create_task(queue.fetch(600.0))
    following = asyncio.create_task(anext(own_bus.events("tw.v1.evt.>")))
    listening = asyncio.create_task(anext(own_bus.listen("tw.v1.ctl.cancel.run1"), b"ended"))
    await asyncio.sleep(0.1)
    await own_bus.connection.client._process_err("'Authentication Expired'")
    for waiting in (fetching, following):
        with pytest.raises(NoConnection, match="Authentication Expired"):
            await waiting
    assert await listening == b"ended"
    with pytest.raises(NoConnection, match="Authentication Expired"):
        await own_bus.publish("tw.v1.done.run1", b"", "id")
    assert not own_bus.connected


async def test_errors_that_waiting_cannot_cure() -> None:
    assert _dial.is_final(nats.errors.Error("nats: 'Authorization Violation'"))
    assert _dial.is_final(nats.errors.AuthorizationError())
    assert not _dial.is_final(ConnectionRefusedError())
    settings = BusSettings(url="nats://a:1")
    assert str(_dial.explain(settings, RuntimeError("x"))) == "NATS at nats://a:1: RuntimeError: x"
    assert str(_dial.explain(settings, ssl.SSLError(1, "wrong version"))).endswith("the TLS handshake failed (wrong version)")
