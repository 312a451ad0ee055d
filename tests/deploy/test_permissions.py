"""A server with the users of ``tilewright admin auth``: each role does its work, and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js.errors import APIError

from tilewright.protocol import subjects
from tilewright.protocol.bus import Bus, BusSettings
from tilewright.protocol.errors import InvalidInput, NoConnection
from tilewright.protocol.permissions import ROLES, inbox, permissions
from tilewright.protocol.subjects import SERVICES, STAGES
from tilewright.services.cli import server_check
from tilewright.services.cli.auth import auth
from tilewright.services.runtime.nats_server import binary

MAIN = [sys.executable, "-c", "from tilewright.services.cli import main; main()"]
TOY = Path(__file__).parents[1] / "data" / "toy"
WORKERS = tuple(SERVICES.values())


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("auth") / "made"
    auth(folder)
    return folder


@pytest.fixture(scope="module")
def url(seeds: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that includes auth.conf, its streams made by the admin."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "auth.conf").write_text((seeds / "auth.conf").read_text())
    store = json.dumps(str(folder / "store"))
    (folder / "server.conf").write_text(
        f'host: 127.0.0.1\nport: -1\nports_file_dir: "{folder}"\njetstream {{ store_dir: {store} }}\ninclude auth.conf\n'
    )
    with ExitStack() as house, (folder / "server.log").open("w") as log:
        server = house.enter_context(subprocess.Popen([binary(), "-c", str(folder / "server.conf")], stderr=log))
        house.callback(server.terminate)
        until = time.monotonic() + 20
        while not (ports := list(folder.glob("*.ports"))):
            assert server.poll() is None and time.monotonic() < until, (folder / "server.log").read_text()
            time.sleep(0.02)
        address = str(json.loads(ports[0].read_text())["nats"][0])
        assert "TW_JOB_MAP" in cli(environment(address, seeds, "admin"), "admin", "init")
        yield address


def environment(url: str, seeds: Path, role: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TILEWRIGHT_")}
    kept["PYTHONPATH"] = os.pathsep.join([str(TOY), *filter(None, [os.environ.get("PYTHONPATH")])])
    own = {"TILEWRIGHT_NATS_URL": url, "TILEWRIGHT_NATS_NKEY_SEED": str(seeds / f"{role}.nk"), "TILEWRIGHT_ACK_WAIT": "5"}
    return kept | own


def cli(variables: dict[str, str], *words: str, codes: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run([*MAIN, *words], env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode in codes, done.stdout + done.stderr
    return done.stdout


def test_every_role_can_do_its_work(url: str, seeds: Path, tmp_path: Path) -> None:
    """A whole run through all five services, watched, shown and listed by the client."""
    client = environment(url, seeds, "client")
    with ExitStack() as house:
        for role in ("pipeline", *WORKERS):
            log = house.enter_context((tmp_path / role).open("w"))
            process = subprocess.Popen([*MAIN, "serve", role], env=environment(url, seeds, role), stdout=log, stderr=log)
            house.enter_context(process)
            house.callback(process.terminate)
        words = ["toy-net", "--frontend", "toy", "--target", "toy", "--mapper", "toy", "--codesigner", "toy", "--json"]
        summary = json.loads(cli(client, "run", *words, codes=(0, 3)).splitlines()[-1])
        assert all(counts["done"] for counts in summary["stages"].values())
        assert {stage: counts["failed"] for stage, counts in summary["stages"].items()} == dict.fromkeys(STAGES, 0)
        assert summary["run"] in cli(client, "runs")
        assert all(role in cli(client, "services") for role in ("pipeline", *WORKERS))
        assert "had ended before" in cli(client, "cancel", summary["run"])
        assert "done" in cli(client, "logs", "-f", summary["run"])
        assert "TW_JOB_MAP" in cli(client, "queue")
        assert "answers" in cli(client, "cache", "ls")
        admin = environment(url, seeds, "admin")
        assert cli(admin, "dlq", "list") == "no dead letters\n"
        assert "removed 0 answers" in cli(admin, "cache", "gc", "--older-than", "30d", "--runs")
    said = "".join((tmp_path / role).read_text() for role in ("pipeline", *WORKERS))
    assert "ermissions" not in said
    assert "Traceback" not in said


class User:
    """A plain connection of a role, which collects what the server refuses."""

    def __init__(self) -> None:
        self.client: Any = None
        self._refused: set[tuple[str, str]] = set()
        self._news = asyncio.Event()

    async def failed(self, error: Exception) -> None:
        """What the server says: ``permissions violation for publish to "subject"``."""
        found = re.search(r'(publish|subscription) to "([^"]+)"', str(error), re.IGNORECASE)
        if found:
            self._refused.add((found[1].lower(), found[2]))
            self._news.set()

    async def says(self, chosen: list[str]) -> set[str]:
        """The subjects on which the server takes a message from this user."""
        for subject in [*chosen, LAST]:
            await self.client.publish(subject, b"")
        return await self._allowed("publish", chosen)

    async def hears(self, chosen: list[str]) -> set[str]:
        """The subjects to which the server lets this user subscribe."""
        for subject in [*chosen, LAST]:
            await self.client.subscribe(subject)
        return await self._allowed("subscription", chosen)

    async def _allowed(self, verb: str, chosen: list[str]) -> set[str]:
        async with asyncio.timeout(20):
            while (verb, LAST.lower()) not in self._refused:
                await self._news.wait()
                self._news.clear()
        return {subject for subject in chosen if (verb, subject.lower()) not in self._refused}


@pytest.fixture
async def connect(url: str, seeds: Path) -> AsyncIterator[Any]:
    opened = []

    async def as_role(role: str) -> User:
        user = User()
        user.client = await nats.connect(url, nkeys_seed=str(seeds / f"{role}.nk"), inbox_prefix=inbox(role), error_cb=user.failed)
        opened.append(user.client)
        return user

    yield as_role
    for client in opened:
        await client.close()


def kv(bucket: str, key: str) -> str:
    return f"$KV.{bucket}.{key}"


RESULTS, ATTEMPTS, RUNS, TASKS = (
    subjects.RESULTS_BUCKET,
    subjects.ATTEMPTS_BUCKET,
    subjects.RUNS_BUCKET,
    subjects.TASKS_BUCKET,
)
DONE = "tw.v1.done.r"
#: Nobody may say or hear anything there: once that is refused, everything before has been answered.
LAST = "nobody.at.all"
#: Subject -> the roles that may publish there; nobody else may.
PUBLISH: dict[str, set[str]] = {
    subjects.SUBMIT: {"client"},
    subjects.CANCEL: {"client"},
    "tw.v1.run.other": set(),
    subjects.cancel_subject("r"): {"pipeline"},
    **{subjects.job_subject(stage, "r", f"{stage}-0"): {"pipeline"} for stage in STAGES},
    **{subjects.done_subject("r", stage): {service} for stage, service in SERVICES.items()},
    DONE: set(),
    **{f"tw.v1.evt.r.{stage}.{stage}-0.log": {service, "pipeline"} for stage, service in SERVICES.items()},
    "tw.v1.evt.r.run.-.state": {"pipeline"},
    **{subjects.dead_subject(stage): {service} for stage, service in SERVICES.items()},
    subjects.dead_subject("pipeline"): {"pipeline"},
    subjects.blob_subject("0" * 64, 0): {*WORKERS, "pipeline", "client"},
    **{kv(RESULTS, f"{stage}.{'0' * 64}"): {service} for stage, service in SERVICES.items()},
    **{kv(RESULTS, f"{stage}.r.{stage}-0"): {service} for stage, service in SERVICES.items()},
    **{kv(ATTEMPTS, f"{stage}.r.{stage}-0.0"): {service} for stage, service in SERVICES.items()},
    **{kv(subjects.CHECKPOINTS_BUCKET, f"{stage}.{'0' * 64}"): {service} for stage, service in SERVICES.items()},
    kv(RUNS, "r"): {"pipeline"},
    kv(TASKS, "r.map-0"): {"pipeline"},
    **{f"$JS.ACK.TW_JOB_{stage.upper()}.tw_job_{stage}_workers.1.1.1.1.0": {SERVICES[stage]} for stage in STAGES},
    "$JS.ACK.TW_RUN.tw_run_workers.1.1.1.1.0": {"pipeline"},
    "$JS.ACK.TW_DONE.tw_done_workers.1.1.1.1.0": {"pipeline"},
    **{f"$JS.API.CONSUMER.MSG.NEXT.TW_JOB_{stage.upper()}.tw_job_{stage}_workers": {SERVICES[stage]} for stage in STAGES},
    "$JS.API.CONSUMER.MSG.NEXT.TW_RUN.tw_run_workers": {"pipeline"},
    "$JS.API.CONSUMER.MSG.NEXT.TW_DONE.tw_done_workers": {"pipeline"},
    **{f"$JS.API.STREAM.MSG.DELETE.TW_JOB_{stage.upper()}": {SERVICES[stage]} for stage in STAGES},
    **{
        f"$JS.API.STREAM.{verb}.{name}": set() for verb in ("DELETE", "PURGE", "UPDATE") for name in ("TW_JOB_MAP", "KV_tw_runs", "TW_BLOB")
    },
    "$JS.API.STREAM.MSG.DELETE.KV_tw_results": set(),
    "$JS.API.STREAM.MSG.DELETE.TW_EVT": set(),
    "$JS.API.STREAM.CREATE.MINE": set(),
    "$JS.API.STREAM.SNAPSHOT.KV_tw_runs": set(),
    "$JS.API.CONSUMER.CREATE.TW_JOB_MAP.mine": set(),
    "$JS.API.CONSUMER.DURABLE.CREATE.TW_RUN.mine": set(),
    "$JS.API.CONSUMER.DELETE.TW_JOB_MAP.tw_job_map_workers": set(),
    "$JS.API.CONSUMER.CREATE.TW_EVT.mine": {"client"},
    "$JS.API.STREAM.MSG.GET.KV_tw_tasks": {"pipeline", "client"},
    "$JS.API.STREAM.MSG.GET.KV_tw_attempts": set(WORKERS),
    "$JS.API.STREAM.MSG.GET.TW_JOB_MAP": set(),
    "$JS.API.DIRECT.GET.KV_tw_runs": set(),
    "_INBOX_client.x": set(),
    "_INBOX_pipeline.x": set(),
    "elsewhere": set(),
}
#: Subject -> the roles that may listen there; nobody else may.
SUBSCRIBE: dict[str, set[str]] = {
    **{f"{inbox(role)}.x.*": {role} for role in ROLES},
    "_INBOX.>": set(),
    ">": set(),
    "tw.>": set(),
    subjects.SUBMIT: set(),
    subjects.job_subject("map"): set(),
    "tw.v1.done.>": set(),
    "tw.v1.evt.>": set(),
    "$KV.>": set(),
    "$JS.>": set(),
    "$SYS.>": set(),
    subjects.cancel_subject("r"): set(WORKERS),
    "$SRV.STATS": {*WORKERS, "pipeline"},
    **{f"$SRV.INFO.{role}": {role} for role in ("pipeline", *WORKERS)},
    **{f"tw.{role}.status": {role} for role in ("pipeline", *WORKERS)},
}
#: What the administrator may not say, besides writing keys and settling jobs (it may say all else in the tables).
NOT_FOR_ADMIN = {"_INBOX_client.x", "_INBOX_pipeline.x", "elsewhere"}


@pytest.mark.parametrize("role", ROLES)
async def test_what_a_role_may_say(connect: Any, role: str) -> None:
    chosen = [subject for subject in PUBLISH if role != "admin" or not subject.startswith("$JS.API.STREAM")]
    expected = {subject for subject, roles in PUBLISH.items() if role in roles}
    if role == "admin":
        expected = {subject for subject in set(chosen) - NOT_FOR_ADMIN if not subject.startswith(("$KV.", "$JS.ACK."))}
    assert await (await connect(role)).says(chosen) == expected


@pytest.mark.parametrize("role", ROLES)
async def test_what_a_role_may_hear(connect: Any, role: str) -> None:
    heard = await (await connect(role)).hears(list(SUBSCRIBE))
    assert heard == {subject for subject, roles in SUBSCRIBE.items() if role in roles}


async def test_only_users_are_let_in(url: str, tmp_path: Path) -> None:
    with pytest.raises(NoConnection, match="the server refuses us without a token"):
        await Bus.connect(BusSettings(url))
    auth(tmp_path / "others")
    with pytest.raises(NoConnection, match="the server refuses the credentials"):
        await Bus.connect(BusSettings(url, nkey_seed=str(tmp_path / "others" / "mapper.nk"), inbox=inbox("mapper")))


@pytest.fixture
async def mapper(url: str, seeds: Path) -> AsyncIterator[Bus]:
    async with await Bus.connect(BusSettings(url, nkey_seed=str(seeds / "mapper.nk"), inbox=inbox("mapper"))) as bus:
        yield bus


async def test_doctor_is_content_with_a_client(url: str, seeds: Path) -> None:
    async with await Bus.connect(BusSettings(url, nkey_seed=str(seeds / "client.nk"), inbox=inbox("client"))) as bus:
        found = {each.name: each async for each in server_check.examine(bus)}
    assert found["permissions"].ok and found["streams"].ok and found["clock"].ok


async def test_a_service_writes_answers_of_its_own_stage_only(mapper: Bus) -> None:
    results = await mapper.bucket(RESULTS)
    await results.put("map.mine", b"answer")
    entry = await results.get("map.mine")
    assert entry is not None
    assert entry.value == b"answer"
    with pytest.raises((NoConnection, TimeoutError)):
        async with asyncio.timeout(1):
            await results.put("kernel.mine", b"answer")
    assert await results.get("kernel.mine") is None


async def test_no_message_removes_the_keys_of_others(mapper: Bus) -> None:
    """A roll-up would purge the whole bucket with one message on a key of its own."""
    results = await mapper.bucket(RESULTS)
    await results.put("map.kept", b"answer")
    with pytest.raises(APIError, match="roll"):
        await mapper.connection.js.publish("$KV.tw_results.map.other", b"", headers={"Nats-Rollup": "all"})
    assert await results.get("map.kept") is not None


def test_seeds_are_kept_and_readable_by_their_owner_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "auth"
    auth(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(before) == {"auth.conf", *(f"{role}.nk" for role in ROLES)}
    assert all((folder / f"{role}.nk").stat().st_mode & 0o777 == 0o600 for role in ROLES)
    assert not any(before[f"{role}.nk"] in before["auth.conf"] for role in ROLES)
    auth(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (folder / "mapper.nk").unlink()
    auth(folder)
    changed = {path.name for path in folder.iterdir() if path.read_bytes() != before[path.name]}
    assert changed == {"mapper.nk", "auth.conf"}
    said = capsys.readouterr().out
    assert not any(seed.decode() in said for name, seed in before.items() if name.endswith(".nk"))


def test_a_file_that_holds_no_seed_is_said(tmp_path: Path) -> None:
    (tmp_path / "mapper.nk").write_text("not a seed")
    with pytest.raises(InvalidInput, match=r"mapper\.nk: it holds no nkey seed"):
        auth(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match=r"FOLDER .*file/x: Not a directory"):
        auth(tmp_path / "file" / "x")


def test_unknown_roles() -> None:
    with pytest.raises(InvalidInput, match="role 'maper' is unknown; did you mean 'mapper'"):
        permissions("maper")
