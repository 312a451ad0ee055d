"""What ``doctor`` says of a server: right on a good one, and of each thing that is wrong."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tilewright.protocol.bus import Bus
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.subjects import BLOB_STREAM
from tilewright.services.cli import server_check
from tilewright.services.cli.server_check import Finding, fsync
from tilewright.services.runtime.nats_server import binary


async def look(bus: Bus) -> dict[str, Finding]:
    return {each.name: each async for each in server_check.examine(bus)}


async def test_a_good_server(bus: Bus) -> None:
    await bus.serve_info("mapper", {}, dict)
    found = await look(bus)
    assert list(found) == ["server version", "permissions", "streams", "clock", "services"]
    assert all(each.ok for each in found.values()), found
    assert found["streams"].detail == "layout 2, copies of each: 1"
    assert found["services"].detail == "mapper"
    assert found["clock"].detail.startswith(("+0.0", "-0.0"))


async def test_everything_that_may_be_wrong(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    await bus.connection.api(f"STREAM.DELETE.{BLOB_STREAM}")
    config = (await bus.connection.api("STREAM.INFO.TW_EVT"))["config"]
    await bus.connection.api("STREAM.UPDATE.TW_EVT", {**config, "metadata": {"tilewright.schema": "1"}})
    monkeypatch.setattr(server_check, "OLDEST", (99, 0))
    now = time.time
    monkeypatch.setattr(server_check, "time", SimpleNamespace(time=lambda: now() + 60))
    monkeypatch.setattr(server_check.importlib.metadata, "version", lambda name: "99.0.0")
    await bus.serve_info("pipeline", {}, dict)
    monkeypatch.setattr(server_check.importlib.metadata, "version", lambda name: "98.0.0")
    found = await look(bus)
    assert {name for name, each in found.items() if not each.ok} == {"server version", "streams", "clock", "services"}
    assert found["streams"].detail == "missing: TW_BLOB; of another layout: TW_EVT"
    assert "admin init" in found["streams"].without
    assert found["clock"].detail.startswith(("-60.", "-59."))
    assert found["services"].detail == "pipeline; of another version than ours (98.0.0): pipeline 99.0.0"


async def test_a_user_without_the_rights_of_a_client(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server says nothing to what it does not allow."""
    monkeypatch.setattr(server_check, "PATIENCE", 0.05)
    monkeypatch.setattr(server_check, "streams", lambda limits: [{"name": "KV_tw_runs"}, {"name": "TW_EVT"}])
    request = bus.connection.client.request

    async def refused(subject: str, data: bytes = b"", timeout: float = 0.5) -> object:
        return await request("nobody.there" if subject.endswith("KV_tw_runs") else subject, data, timeout=timeout)

    monkeypatch.setattr(bus.connection.client, "request", refused)
    found = await look(bus)
    assert (found["permissions"].ok, found["permissions"].detail) == (False, "no answer about KV_tw_runs")
    assert not found["clock"].ok


@pytest.fixture
def monitored(tmp_path: Path) -> Iterator[list[str]]:
    """Monitoring addresses of a server that syncs always, and of one that does not."""
    running, found = [], []
    for sync in ("always", '"2m"'):
        folder = tmp_path / sync.strip('"')
        folder.mkdir()
        store = json.dumps(str(folder / "store"))
        (folder / "server.conf").write_text(
            f'listen: "127.0.0.1:-1"\nhttp: "127.0.0.1:-1"\nports_file_dir: "{folder}"\n'
            f"jetstream {{ store_dir: {store}, sync_interval: {sync} }}\n"
        )
        running.append(subprocess.Popen([binary(), "-c", str(folder / "server.conf")], stderr=subprocess.DEVNULL))
        until = time.monotonic() + 20
        while not (ports := list(folder.glob("*.ports"))) or not ports[0].read_text():
            assert time.monotonic() < until
            time.sleep(0.02)
        found.append(json.loads(ports[0].read_text())["monitoring"][0])
    yield found
    for process in running:
        process.terminate()
        process.wait()


async def test_how_a_server_writes_to_disk(monitored: list[str]) -> None:
    always, later = [await fsync(address) for address in monitored]
    assert (always.ok, always.detail) == (True, "at every write")
    assert (later.ok, later.detail) == (False, "every 120 s")
    assert "sync_interval" in later.without
    gone = await fsync("http://127.0.0.1:1")
    assert not gone.ok and "does not say" in gone.detail
    with pytest.raises(InvalidInput, match="expected the server's monitoring address"):
        await asyncio.create_task(fsync("file:///etc/passwd"))
