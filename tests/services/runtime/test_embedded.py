"""The embedded supervisor on a real server: joined, left, killed, started again on the same store."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from tilewright.protocol.bus import Bus, BusSettings
from tilewright.protocol.errors import NoConnection
from tilewright.protocol.subjects import RUNS_BUCKET
from tilewright.services.runtime import embedded
from tilewright.services.runtime.embedded import Membership, Record, StateFolder, join, stop

PATIENCE = 30.0


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.02)


def processes(folder: StateFolder) -> list[psutil.Process]:
    """Everything that runs for a state folder: the supervisor, its server, its services."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            environment = process.environ()
        except (psutil.Error, OSError):
            continue
        supervised = environment.get("TILEWRIGHT_NATS_TOKEN_FILE", "").startswith(f"{folder.path}/")
        if process.pid != os.getpid() and (supervised or any(str(folder.path) in word for word in words)):
            found.append(process)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[StateFolder]:
    folder = StateFolder(tmp_path / "state")
    yield folder
    stop(folder)
    until(lambda: not processes(folder), "no process is left")


def record(folder: StateFolder) -> Record:
    found = folder.record
    assert found is not None
    return found


async def put(settings: BusSettings, key: str) -> None:
    async with await Bus.connect(settings) as bus:
        await (await bus.bucket("tw_attempts")).put(key, b"kept")


async def get(settings: BusSettings, key: str) -> bytes | None:
    async with await Bus.connect(settings) as bus:
        entry = await (await bus.bucket("tw_attempts")).get(key)
        return entry.value if entry else None


def test_join_starts_one_supervisor_and_the_last_to_leave_ends_it(folder: StateFolder) -> None:
    with join(folder) as first, join(folder) as second:
        assert first.settings.url == second.settings.url
        assert first.settings.url.startswith("nats://127.0.0.1:")
        asyncio.run(put(first.settings, "x"))
        assert asyncio.run(get(second.settings, "x")) == b"kept"
    until(lambda: not folder.supervised, "the supervisor leaves")
    assert folder.record is None


def test_secrets_are_readable_by_their_owner_only(folder: StateFolder) -> None:
    with join(folder) as member:
        for path in (folder.token, folder.path / "embedded.json"):
            assert path.stat().st_mode & 0o777 == 0o600
        assert folder.token.read_text() == member.settings.token
        assert folder.path.stat().st_mode & 0o777 == 0o700
        with pytest.raises(NoConnection, match="authorization"):
            asyncio.run(get(BusSettings(url=member.settings.url, token="wrong"), "x"))


def test_clients_that_come_at_once_share_a_supervisor(folder: StateFolder) -> None:
    members: list[Membership] = []
    threads = [threading.Thread(target=lambda: members.append(join(folder))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len({member.settings.url for member in members}) == 1 and len(members) == 4
    assert len([each for each in processes(folder) if "supervisor" in " ".join(each.cmdline())]) == 1
    for member in members:
        member.close()


def test_what_was_asked_to_stay_stays_until_it_is_stopped(folder: StateFolder) -> None:
    folder.stay = True
    with join(folder):
        pid = record(folder).pid
    assert folder.supervised and record(folder).pid == pid
    assert stop(folder)
    assert not folder.supervised and not folder.stay
    assert not stop(folder)


def test_a_killed_supervisor_takes_everything_along_and_the_next_goes_on(folder: StateFolder) -> None:
    with join(folder) as member:
        asyncio.run(put(member.settings, "survivor"))
        os.kill(record(folder).pid, signal.SIGKILL)
        until(lambda: not folder.supervised, "the lock is free")
        with join(folder) as again:
            assert asyncio.run(get(again.settings, "survivor")) == b"kept"
            assert again.settings.token != member.settings.token
    os.kill(record(folder).pid, signal.SIGKILL)
    until(lambda: not processes(folder), "nothing outlives the supervisor")


def test_a_killed_client_lets_go(folder: StateFolder) -> None:
    code = (
        "import sys, pathlib, signal\n"
        "from tilewright.services.runtime.embedded import StateFolder, join\n"
        "member = join(StateFolder(pathlib.Path(sys.argv[1])))\n"
        "print('in', flush=True)\n"
        "signal.pause()\n"
    )
    client = subprocess.Popen([sys.executable, "-c", code, str(folder.path)], stdout=subprocess.PIPE)
    assert client.stdout is not None
    with client, client.stdout:
        assert client.stdout.readline() == b"in\n"
        assert folder.supervised
        client.kill()
    until(lambda: not processes(folder), "the supervisor leaves when its only client was killed")


async def test_a_killed_server_comes_back_where_it_was(folder: StateFolder) -> None:
    loop = asyncio.get_running_loop()
    member = await loop.run_in_executor(None, join, folder)
    with member:
        async with asyncio.timeout(PATIENCE), await Bus.connect(member.settings) as bus:
            bucket = await bus.bucket(RUNS_BUCKET)
            await bucket.put("x", b"before")
            server = next(each for each in processes(folder) if "nats-server" in each.name())
            server.kill()
            entry = await bucket.get("x")
            assert entry is not None and entry.value == b"before"
            assert bus.reconnects == 1


def test_a_server_that_cannot_start_is_a_reason_not_a_hang(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_NATS_SERVER_BIN", "/bin/false")
    with pytest.raises(NoConnection, match="did not start: nats-server ended with code 1"):
        join(folder)
    until(lambda: not folder.supervised, "the supervisor gives up")


def test_a_state_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NoConnection, match="TILEWRIGHT_STATE"):
        StateFolder(tmp_path / "file" / "state")


def test_a_half_written_or_foreign_record_is_none(folder: StateFolder) -> None:
    for text in ("", "{", '{"pid": "x"}'):
        (folder.path / "embedded.json").write_text(text)
        assert folder.record is None


def test_another_installation_gets_its_own_services_unless_these_are_in_use(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    with join(folder) as member:
        pid = record(folder).pid
        monkeypatch.setattr(embedded, "installation", lambda: "tilewright 9 elsewhere")
        with pytest.raises(NoConnection, match=r"are those of tilewright .*, and in use; stop them with `tilewright down`"):
            join(folder)
    folder.stay = True
    with pytest.raises(NoConnection, match="in use"):
        join(folder)
    folder.stay = False
    # Now the supervisor that is there is the other one's.
    monkeypatch.undo()
    changed = msgspec.structs.replace(record(folder), installation="tilewright 9 elsewhere")
    folder.announce(changed)
    with join(folder) as again:
        assert record(folder).pid != pid
        assert again.settings.token != member.settings.token
