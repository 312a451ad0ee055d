"""Commands on a real server that holds one finished run: what they print, and what they end with."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import trustme
from typer.testing import CliRunner, Result

from tilewright.protocol import registry
from tilewright.protocol.architecture import Constraints
from tilewright.protocol.bootstrap import bootstrap
from tilewright.protocol.bus import Bus, BusSettings
from tilewright.protocol.codec import encode
from tilewright.protocol.messages import Answer
from tilewright.protocol.plugin import Document
from tilewright.protocol.run import RunState, TaskRecord
from tilewright.protocol.subjects import SUBMIT
from tilewright.protocol.workload import matmul
from tilewright.services.cli.app import app
from tilewright.services.runtime.nats_server import binary
from tilewright.services.runtime.results import ResultStore
from tilewright.services.runtime.runs import Runs

T = TypeVar("T")
Do = Callable[[Callable[[Bus], Awaitable[T]]], T]


def tilewright(*words: str) -> Result:
    return CliRunner().invoke(app, words, env={"COLUMNS": "200"})


@pytest.fixture
def server(nats_server: BusSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Do[Any]:
    """The environment names a bootstrapped server; what is called with a bus gets one."""
    token = tmp_path / "token"
    token.write_text(nats_server.token)
    monkeypatch.setenv("TILEWRIGHT_NATS_URL", nats_server.url)
    monkeypatch.setenv("TILEWRIGHT_NATS_TOKEN_FILE", str(token))

    def do(work: Callable[[Bus], Awaitable[T]]) -> T:
        async def connected() -> T:
            async with await Bus.connect(nats_server) as bus:
                return await work(bus)

        return asyncio.run(connected())

    do(bootstrap)
    return do


@pytest.fixture
def run(server: Do[Any], state: RunState, answers: dict[str, Answer]) -> RunState:
    """The toy run is stored."""

    async def store(bus: Bus) -> None:
        runs = await Runs.open(bus)
        if await runs.read(state.run) is None:
            await runs.write(state, 0)
        for task, answer in answers.items():
            data = encode(answer)
            await ResultStore(bus).put(f"toy.{task}", data)
            answered = hashlib.sha256(data).hexdigest()
            await runs.record(state.run, TaskRecord(task, task, "done", f"toy.{task}", answered, cached=task == "map-0"))

    server(store)
    return state


def last_line(result: Result) -> Any:
    return json.loads(result.stdout.splitlines()[-1])


def test_runs(run: RunState) -> None:
    result = tilewright("runs")
    assert result.exit_code == 0
    row = next(line for line in result.stdout.splitlines() if run.run in line)
    assert row.split()[1:4] == ["partial", "toy-net", "toy"] and "2.50 s" in row
    said = last_line(tilewright("runs", "--json"))
    assert (said["run"], said["status"], said["stages"][0]) == (run.run, "partial", "profile")


def test_show_prints_the_tables_and_ends_with_the_exit_code_of_showing(run: RunState) -> None:
    result = tilewright("show", run.run)
    assert result.exit_code == 0
    for words in ("layer0", "Co-design", f"{run.run} partial after 2.50 s; 1 of 9 tasks ANSWERED FROM THE CACHE", "tilewright show"):
        assert words in result.stdout
    assert not any(line != line.rstrip() for line in result.stdout.splitlines())


@pytest.mark.parametrize("word", ["last", "4e5f6g7"])
def test_runs_may_be_named_in_short(run: RunState, word: str) -> None:
    assert last_line(tilewright("show", word, "--json"))["run"] == run.run


def test_the_digest_is_over_all_recorded_answers(run: RunState, answers: dict[str, Answer]) -> None:
    lines = sorted(f"{task} {hashlib.sha256(encode(answer)).hexdigest()}\n" for task, answer in answers.items())
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert tilewright("show", run.run, "--digest").stdout == f"{expected}\n"
    assert last_line(tilewright("show", run.run, "--digest", "--json")) == {"run": run.run, "digest": expected}
    assert last_line(tilewright("show", run.run, "--json"))["digest"] == expected


def test_kernels_can_be_written_to_a_folder(run: RunState, answers: dict[str, Answer], tmp_path: Path) -> None:
    result = tilewright("show", run.run, "--kernels", str(tmp_path / "kernels"))
    assert result.exit_code == 0 and "gemm for avx2, not verified" in result.stdout
    written = sorted(str(path.relative_to(tmp_path / "kernels")) for path in (tmp_path / "kernels").rglob("*.*"))
    assert written == [f"kernel-{index}/gemm{end}" for index in (0, 1) for end in (".c", ".h", "_test.c")]
    (tmp_path / "file").touch()
    refused = tilewright("show", run.run, "--kernels", str(tmp_path / "file"))
    assert refused.exit_code == 2 and "Not a directory" in refused.stderr


def test_explain(run: RunState) -> None:
    assert "What binds each layer" in tilewright("explain", run.run).stdout
    assert "parallel-for" not in tilewright("explain", run.run, "--layer", "layer0").stdout
    assert "for K in 16" in tilewright("explain", run.run, "--layer", "map-1").stdout
    said = [json.loads(line) for line in tilewright("explain", run.run, "--json").stdout.splitlines()]
    assert [each["name"] for each in said] == ["layer0", "layer1", "layer3"]
    assert sum(each["share_of_cycles"] for each in said[:2]) == pytest.approx(1.0)
    assert sum(said[0]["energy_pj_of"].values()) == pytest.approx(said[0]["energy_pj"])
    assert max(said[0]["cycles_of"].values()) == said[0]["cycles"] and "cycles" not in said[2]
    assert last_line(tilewright("explain", run.run, "--layer", "layer1", "--json"))["name"] == "layer1"
    wrong = tilewright("explain", run.run, "--layer", "layer9")
    assert wrong.exit_code == 2 and "--layer 'layer9' does not exist; did you mean 'layer" in wrong.stderr
    assert "ambiguous: layer0, layer1, layer3" in tilewright("explain", run.run, "--layer", "layer").stderr


def test_a_figure_is_traced_to_its_coefficients(run: RunState) -> None:
    traced = tilewright("explain", run.run, "--layer", "layer0", "--trace", "cycles")
    assert traced.exit_code == 0 and traced.stdout.startswith("cycles = 1,024")
    said = last_line(tilewright("explain", run.run, "--layer", "layer0", "--trace", "energy", "--json"))
    assert said["name"] == "energy"
    assert said["value"] == pytest.approx(sum(term["value"] for term in said["terms"]))
    for words, text in (
        (("--layer", "layer0", "--trace", "enrgy"), "did you mean 'energy'?"),
        (("--layer", "layer3", "--trace", "energy"), "layer3 has no mapping: none of 7 tried is valid"),
        (("--trace", "energy"), "expected --layer beside it"),
        (("--export", "folder"), "expected --layer beside it"),
        (("--layer", "layer3", "--export", "folder"), "layer3 has no mapping"),
        (("--layer", "layer0", "--export", "folder", "--export-format", "timelop"), "did you mean 'timeloop'?"),
    ):
        refused = tilewright("explain", run.run, *words)
        assert refused.exit_code == 2 and text in refused.stderr


def test_a_layer_is_written_for_another_tool(run: RunState, tmp_path: Path) -> None:
    """What is written comes back in with the layer's own cost."""
    result = tilewright("explain", run.run, "--layer", "layer0", "--export", str(tmp_path / "out"), "--json")
    assert result.exit_code == 0 and "mapping.map.txt" in result.stderr
    paths = {name: str(tmp_path / "out" / name) for name in ("mapping.yaml", "architecture.yaml", "problem.yaml", "tables.yaml")}
    flags = zip(("--mapping", "--arch", "--problem", "--tables"), paths.values(), strict=True)
    again = last_line(tilewright("simulate", *(word for pair in flags for word in pair), "--json"))
    assert (again["cycles"], again["energy_pj"]) == (last_line(result)["cycles"], pytest.approx(last_line(result)["energy_pj"]))
    (tmp_path / "file").touch()
    refused = tilewright("explain", run.run, "--layer", "layer0", "--export", str(tmp_path / "file"))
    assert refused.exit_code == 2 and "File exists" in refused.stderr


def test_a_run_that_is_over_is_not_cancelled(run: RunState) -> None:
    result = tilewright("cancel", run.run)
    assert result.exit_code == 0 and f"run {run.run} had ended before: partial" in result.stdout
    assert last_line(tilewright("cancel", run.run, "--json")) == {"run": run.run, "status": "partial"}


def test_attaching_to_a_run_that_is_over_shows_it_and_ends_as_it_did(run: RunState) -> None:
    result = tilewright("attach", run.run)
    assert result.exit_code == 3
    assert "Bottleneck" in result.stdout
    assert last_line(tilewright("attach", run.run, "--json"))["exit_code"] == 3


@pytest.mark.parametrize("command", ["show", "attach", "cancel", "explain"])
def test_a_run_that_does_not_exist_is_bad_input(run: RunState, command: str) -> None:
    result = tilewright(command, "01kb9a2c3d4e5f6g7h9j")
    assert result.exit_code == 2
    assert result.stderr == f"tilewright: run '01kb9a2c3d4e5f6g7h9j' does not exist; did you mean '{run.run}'?\n"


def test_an_empty_server_says_so(server: Do[Any]) -> None:
    async def forget(bus: Bus) -> None:
        bucket = await bus.bucket("tw_runs")
        for key in await bucket.keys():
            await bucket.delete(key)

    server(forget)
    assert tilewright("runs").stdout == "nothing has been run yet\n"
    assert "nothing has been run yet" in tilewright("show", "last").stderr
    assert tilewright("services").stdout.startswith("no service answers")
    assert tilewright("services", "--json").stdout == ""


def test_services(server: Do[Any]) -> None:
    async def listed(bus: Bus) -> Result:
        await bus.serve_info("mapper", {"slots": "2"}, lambda: {"busy": 1})
        return await asyncio.get_running_loop().run_in_executor(None, tilewright, "services", "--json")

    said = last_line(server(listed))
    assert said["name"].endswith("mapper") and said["metadata"]["slots"] == "2"


def test_admin_init_is_idempotent(server: Do[Any]) -> None:
    assert tilewright("admin", "init").stdout == "everything is there already\n"

    async def remove(bus: Bus) -> None:
        await bus.connection.api("STREAM.DELETE.TW_DEAD")

    server(remove)
    assert tilewright("admin", "init").stdout == "created or changed: TW_DEAD\n"


@pytest.mark.parametrize("verb", ["up", "down"])
def test_up_and_down_are_about_the_embedded_services(server: Do[Any], verb: str) -> None:
    result = tilewright(verb)
    assert result.exit_code == 2
    assert "TILEWRIGHT_NATS_URL is set" in result.stderr


def test_detached_runs_are_submitted_and_named(server: Do[Any]) -> None:
    words = ("run", "toy-net", "--frontend", "toy", "--target", "toy", "--detach")
    run = tilewright(*words).stdout.strip()
    assert len(run) == 20
    assert len(last_line(tilewright(*words, "--json"))["run"]) == 20

    async def waiting(bus: Bus) -> int:
        info = await bus.connection.api("STREAM.INFO.TW_RUN", {"subjects_filter": SUBMIT})
        return int(info["state"]["messages"])

    assert server(waiting) == 2


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("run", "toy-net", "--target", "toy", "--frontend", "toy", "--stages", "mapp"), "'mapp' is not a stage; did you mean 'map'?"),
        (("run", "toy-net", "--target", "toy", "--frontend", "toy", "-o", "layers"), "--option 'layers': expected NAME=VALUE"),
        (("run", "toy-net", "--target", "toy", "--frontend", "toy", "-p", "x=y"), "--parameter x=y: expected an integer"),
        (("simulate",), "model: missing, expected a model"),
        (("simulate", "toy-net"), "target: missing, expected --target"),
        (("serve", "mappr"), "service 'mappr' is unknown; did you mean 'mapper'?"),
        (("plugins", "maper"), "kind 'maper' is unknown; did you mean 'mappers'?"),
        (("validate", "toi"), "validation 'toi' is not installed; did you mean 'toy'?"),
        (("validate", "toy", "nowhere.json"), "file 'nowhere.json' does not exist"),
        (("validate", "toy", "-o", "case=3"), "option 'case' is unknown to the suite toy; did you mean 'cases'?"),
    ],
)
def test_bad_input_is_one_paragraph_and_exit_code_2(server: Do[Any], words: tuple[str, ...], text: str) -> None:
    result = tilewright(*words)
    assert result.exit_code == 2
    assert result.stderr.startswith("tilewright: ") and text in result.stderr
    assert result.stderr.count("\n") == 1 and result.stdout == ""


def test_a_wrong_setting_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_NATS_ULR", "x")
    result = tilewright("runs")
    assert result.exit_code == 2 and "did you mean 'TILEWRIGHT_NATS_URL'" in result.stderr


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_NATS_URL", "nats://127.0.0.1:1")
    result = tilewright("runs")
    assert result.exit_code == 5
    assert result.stderr == "tilewright: NATS at nats://127.0.0.1:1: nobody listens there (connection refused)\n"


def test_wrong_token(server: Do[Any], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("wrong")
    result = tilewright("runs")
    assert result.exit_code == 5
    assert "the server refuses the token (authorization violation)" in result.stderr


def test_an_untrusted_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = trustme.CA().issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    tls = {"cert_file": str(tmp_path / "cert.pem"), "key_file": str(tmp_path / "key.pem")}
    (tmp_path / "server.conf").write_text(json.dumps({"host": "127.0.0.1", "port": -1, "ports_file_dir": str(tmp_path), "tls": tls}))
    with subprocess.Popen([binary(), "--config", str(tmp_path / "server.conf")], stderr=subprocess.DEVNULL) as server:
        ports = tmp_path / f"nats-server_{server.pid}.ports"
        deadline = time.monotonic() + 20
        while not (ports.exists() and ports.read_text().endswith("}")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        port = json.loads(ports.read_text())["nats"][0].rpartition(":")[2]
        monkeypatch.setenv("TILEWRIGHT_NATS_URL", f"tls://127.0.0.1:{port}")
        result = tilewright("runs")
        server.terminate()
    assert result.exit_code == 5
    assert "certificate is not trusted" in result.stderr and "TILEWRIGHT_NATS_CA" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_server_without_streams_names_the_command(server: Do[Any]) -> None:
    async def remove(bus: Bus) -> None:
        await bus.connection.api("STREAM.DELETE.KV_tw_runs")

    server(remove)
    result = tilewright("runs")
    assert result.exit_code == 5
    assert "tilewright admin init" in result.stderr


def test_plugins_are_listed_without_loading_and_checked_on_demand() -> None:
    listed = tilewright("plugins", "mapper")
    assert listed.exit_code == 0
    assert "toy-broken" in listed.stdout and "BROKEN" not in listed.stdout
    checked = tilewright("plugins", "mappers", "--check")
    assert checked.exit_code == 1
    assert "BROKEN" in checked.stdout and "No module named" in checked.stdout
    said = [json.loads(line) for line in tilewright("plugins", "mappers", "--check", "--json").stdout.splitlines()]
    broken = {each["name"]: each["broken"] for each in said}
    assert broken["toy"] is None and "tilewright_toy_missing" in broken["toy-broken"]


def test_validate() -> None:
    table = tilewright("validate", "toy", "--option", "cases=4")
    assert table.exit_code == 0
    assert "0.125 %" in table.stdout and "gemm" in table.stdout
    said = last_line(tilewright("validate", "toy", "--json"))
    assert list(said) == ["suite", "file", "cases", "exact", "within_1pct", "mape", "max_error", "spearman", "skipped", "groups", "figures"]
    assert (said["mape"], said["spearman"], said["groups"]["gemm"]["within_1pct"]) == (0.125, None, None)


def test_simulate_files(tmp_path: Path) -> None:
    path = tmp_path / "gemm.json"
    path.write_text('{"p": 4, "c": 8, "k": 16}')
    files = ("--mapping", str(path), "--arch", str(path), "--problem", str(path))
    shown = tilewright("simulate", *files, "--format", "toy")
    assert shown.exit_code == 0
    assert "512 MACs" in shown.stdout and "latency 512 cycles" in shown.stdout
    said = last_line(tilewright("simulate", *files, "--format", "toy", "--json"))
    assert said["cycles"] == 512 and said["energy_pj"] == pytest.approx(sum(row[3] * row[4] for row in said["cost"]["energy"]))
    assert "expected all of" in tilewright("simulate", *files[:4], "--format", "toy").stderr
    assert "not both" in tilewright("simulate", "toy-net", *files, "--format", "toy").stderr
    path.write_text("{}")
    assert "no operator and no mapping described in the format toy" in tilewright("simulate", *files, "--format", "toy").stderr


def test_simulate_what_a_format_wrote(tmp_path: Path) -> None:
    """A mapping goes out as Timeloop's files and comes back in: the cost is that of the mapping itself."""
    from tilewright_toy import Target, whole

    operator, architecture = matmul(p=4, c=8, k=16), Target().architecture()
    expected = registry.load("simulators", "analytical").cost(operator, architecture, whole(operator, architecture))
    document = Document(operator, architecture, Constraints(), whole(operator, architecture))
    for name, written in registry.load("formats", "timeloop").write(document).items():
        (tmp_path / name).write_text(written)
    names = {"--mapping": "mapping.yaml", "--arch": "architecture.yaml", "--problem": "problem.yaml"}
    files = [word for flag, name in names.items() for word in (flag, str(tmp_path / name))]
    said = last_line(tilewright("simulate", *files, "--tables", str(tmp_path / "tables.yaml"), "--json"))
    assert (said["cycles"], said["energy_pj"]) == (expected.cycles, pytest.approx(expected.energy_pj))
    tables = ("--tables", str(tmp_path / "tables.yaml"))
    traced = tilewright("simulate", *files, *tables, "--trace", "DRAM.Inputs.energy")
    assert traced.exit_code == 0 and re.search(r"pJ each = .*stated by the architecture", traced.stdout)
    rules = ("--simulator-option", "outputs=zigzag")
    assert "as the convention 'zigzag' counts" in tilewright("simulate", *files, *tables, "--trace", "energy", *rules).stdout
    wrong = tilewright("simulate", *files, *tables, "--trace", "DRAM.Input.energy")
    assert wrong.exit_code == 2 and "did you mean 'DRAM.Inputs.energy'" in wrong.stderr
    native = ("--export", str(tmp_path / "native"), "--export-format", "native")
    assert tilewright("simulate", *files, *tables, *native).exit_code == 0
    parts = [str(tmp_path / "native" / f"{part}.yaml") for part in ("mapping", "architecture", "operator")]
    flags = [word for pair in zip(names, parts, strict=True) for word in pair]
    assert last_line(tilewright("simulate", *flags, "--format", "native", "--json"))["cycles"] == expected.cycles
    alone = tilewright("simulate", "--trace", "energy")
    assert alone.exit_code == 2 and "--trace energy: expected --mapping, --arch, --problem beside it" in alone.stderr
    (tmp_path / "architecture.yaml").write_text("architecture: [\n")
    broken = tilewright("simulate", *files)
    assert broken.exit_code == 2
    assert re.search(r"architecture\.yaml, line \d+, column \d+: ", broken.stderr) and broken.stderr.count("\n") == 1


def test_doctor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TILEWRIGHT_STATE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    findings = {each["name"]: each for each in map(json.loads, tilewright("doctor", "--json").stdout.splitlines())}
    assert findings["Python"]["ok"] and findings["NATS"]["ok"] and findings["solver HiGHS"]["ok"]
    assert not findings["C compiler"]["ok"] and "not verified" in findings["C compiler"]["without"]
    assert not findings["Docker"]["ok"]
    assert not findings["plugins"]["ok"] and "toy-broken" in findings["plugins"]["detail"]
    assert list(tmp_path.iterdir()) == []


def test_doctor_fails_when_something_required_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_NATS_URL", "nats://127.0.0.1:1")
    result = tilewright("doctor")
    assert result.exit_code == 1
    assert "MISSING" in result.stdout and "nobody listens there" in result.stdout


def test_a_reader_that_leaves_early_is_no_error(run: RunState) -> None:
    code = "from tilewright.services.cli import main; main()"
    with subprocess.Popen([sys.executable, "-c", code, "show", "last"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def test_the_json_of_a_request_can_be_read_back(run: RunState) -> None:
    said = last_line(tilewright("show", run.run, "--json"))
    assert msgspec.convert(said["request"], type(run.request)) == run.request
