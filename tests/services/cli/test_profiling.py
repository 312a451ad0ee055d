"""``profile``: ranges and sizes, described processors, tables, plots, and workloads that the client loads itself."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.messages import Profile, ProfileJob, RunRequest
from tilewright.protocol.plugin import Options
from tilewright.protocol.profile import Analysis, Machine, Measured, Measurement, Memory, Peak, Point, Prediction, Row
from tilewright.protocol.run import RunState, StageState
from tilewright.protocol.workload import Workload, matmul
from tilewright.services import profiler
from tilewright.services.cli import drawing, loading, machines, measuring, options, profile_tables, profiling, report, tables
from tilewright.services.cli.app import app
from tilewright.services.runtime.host import Host

MACHINE = Machine("chip", (Peak(8, 1e12),), (Memory("DRAM", 1e9),))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("128", (128,)),
        ("128..4096", (128, 256, 512, 1024, 2048, 4096)),
        ("100..500", (100, 200, 400)),
        ("128..512:128", (128, 256, 384, 512)),
        ("1, 2,8..16", (1, 2, 8, 16)),
        ("7..7", (7,)),
    ],
)
def test_ranges(text: str, found: tuple[int, ...]) -> None:
    assert profiling.values("--seq", text) == found


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "1..", "5..2", "1..9:0", "0..4", "2,2", "1..1000:1", "1..9223372036854775807:1"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(InvalidInput, match="--seq"):
        profiling.values("--seq", text)


@pytest.mark.parametrize(("text", "found"), [("256KiB", 262144), ("2MB", 2_000_000), ("1g", 10**9), ("77", 77), ("4 Mi", 4 << 20)])
def test_sizes(text: str, found: int) -> None:
    assert profiling.size("--capacity", text) == found


@pytest.mark.parametrize("text", ["", "0", "KiB", "2TB", "-3", "1.5MB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InvalidInput, match="expected a size such as 256KiB"):
        profiling.size("--capacity", text)


def test_values_are_options_and_several_are_a_sweep() -> None:
    said, sweep = profiling.settle(
        options.RunOptions(model="m", target="t"), profiling.ProfileOptions(seq="64", batch="1,2", decode=True, ctx="8..16")
    )
    assert list(said.option) == ["seq=64", "batch=1", "ctx=8", "decode=true"]
    assert sweep == {"batch": (1, 2), "ctx": (8, 16)}


def test_machines_that_come_with_us() -> None:
    for name in ("a100", "h100", "v100", "xeon-6242"):
        machine = machines.find(name)
        assert machine.name == name and machine.source
        # A matrix unit does tens to hundreds of operations in the time of one byte.
        speeds = [memory.bytes_per_second for memory in machine.memories]
        assert speeds == sorted(speeds, reverse=True)  # the inner the faster
        assert all(memory.capacity_bytes for memory in machine.memories[:-1])
        assert 5 < machine.peaks[-1].ops_per_second / machine.memories[-1].bytes_per_second < 300
    with pytest.raises(InvalidInput, match=r"machines.yaml has no such machine; did you mean 'a100'"):
        machines.find("a10")


def test_machines_in_files(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("one: {peaks: [{bits: 8, ops_per_second: 1e9}], memories: [{name: L2, bytes_per_second: 1e9, capacity_bytes: 512}]}\n")
    assert machines.find(str(file)).memories == (Memory("L2", 1e9, 512),)
    file.write_text(file.read_text() + file.read_text().replace("one", "two"))
    assert machines.find(f"{file}:two").name == "two"
    with pytest.raises(InvalidInput, match="describes one, two, expected one"):
        machines.find(str(file))
    for text, said in [
        ("- 1", "expected machines by name"),
        ("one: 3", "expected the form"),
        ("one: {peaks: [], memories: []}", "expected at least one of peaks"),
        ("one: {peaks: [{bits: 8, ops_per_second: -1}], memories: []}", "ops_per_second"),
        ("{", "expected the form"),
    ]:
        file.write_text(text)
        with pytest.raises(InvalidInput, match=re.escape(said)):
            machines.find(str(file))
    with pytest.raises(InvalidInput, match="cannot be read"):
        machines.find("nowhere.yaml")


@pytest.fixture
def done() -> tuple[RunState, Profile]:
    host = Host(lambda frame: None)
    analysis = Analysis(sweep={"seq": (32, 64)}, machines=(MACHINE,), capacity_bytes=1 << 14)
    profile = profiler.perform(ProfileJob("bert-base", "zoo", "gemmini", options={"layers": 1}, analysis=analysis), host)
    return RunState("r", RunRequest("bert-base", "gemmini", analysis=analysis), stages=(StageState("profile", 1),)), profile


def text_of(shown: object) -> str:
    console = Console(width=250, record=True, file=io.StringIO())
    console.print(shown)
    return console.export_text()


def test_tables(done: tuple[RunState, Profile]) -> None:
    state, profile = done
    gathered = report.gather(state, {"profile-0": profile}, {})
    text = text_of(tables.report(gathered, 250))
    assert "seq=32" in text and "seq=64" in text and "attention products" in text and "chip at least" in text and "tiled bytes" in text
    one = text_of(profile_tables.points(profile.points[:1], "standard"))
    assert "Layers, seq=32" in one and "encoder.layer.0" in one
    assert "encoder.layer.0.attention.self.query" in one and "P32 C768 K768" in one
    totals = profile_tables.by_kind(profile.points[0])
    assert totals["total"].flops == sum(each.count * each.flops for each in profile.operators)
    assert sum(each.seconds["chip"] for kind, each in totals.items() if kind != "total") == pytest.approx(totals["total"].seconds["chip"])


def test_json(done: tuple[RunState, Profile]) -> None:
    state, profile = done
    summary = report.summary(report.gather(state, {"profile-0": profile}, {}))
    plain = json.loads(msgspec.json.encode(summary))["profile"]
    assert [point["setting"] for point in plain["points"]] == [{"seq": 32}, {"seq": 64}]
    assert plain["points"][0]["classes"]["total"]["flops"] == sum(row["count"] * row["flops"] for row in plain["points"][0]["rows"])
    assert plain["macs"] == profile.workload.macs
    layers = plain["points"][0]["layers"]
    assert sum(each["count"] * each["flops"] for each in layers) == plain["points"][0]["classes"]["total"]["flops"]


def test_plots_and_page(done: tuple[RunState, Profile]) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    _, profile = done
    pictures = drawing.draw(profile, (MACHINE,), {})
    assert set(pictures) == {"breakdown", "roofline", "sweep"}
    assert pictures == drawing.draw(profile, (MACHINE,), {})
    page = drawing.as_page("<b>", profile.points, "standard", pictures)
    assert page.count("<svg") == 3 and "&lt;b&gt;" in page and "<b>" not in page
    assert "src=" not in page and "http-equiv" not in page
    assert set(drawing.draw(msgspec.structs.replace(profile, points=profile.points[:1]), (), {"all": (2.0, 1.0)})) == {
        "breakdown",
        "measured",
    }


def test_measurements() -> None:
    found = Measurement("net", 0.5, 0.02, 3, 1.5, (Measured("aten::mm 2x3, 3x4", 7, 0.25, 1e9), Measured("aten::relu 2x4", 1, 0.125, 0.0)))
    text = text_of(measuring.table(found, (MACHINE,)))
    assert "4.00 Gop/s" in text and "0.4 %" in text and "50.0" in text
    assert "500 ms of processor time (median; spread 2.0 % over 3 runs, load 1.5)" in text


def test_measured_times_stand_beside_those_at_the_roofline(capsys: pytest.CaptureFixture[str]) -> None:
    """Products with the softmax that torch's attention contains, everything else, and both: shares of what the roofline allows."""
    found = Measurement("net", 1.0, 0.0, 3, 1.0, (Measured("aten::addmm 2x3", 2, 0.5, 1.0), Measured("aten::gelu 2x4", 1, 0.25, 0.0)))
    this = Machine("this-cpu", (Peak(32, 1e9),), (Memory("memory", 1e9),))

    def row(function: str, count: int, seconds: float) -> Row:
        return Row("", "", function, "", count, 0, 0, 0, predictions=(Prediction("gemmini", 9.0, ""), Prediction("this-cpu", seconds, "")))

    point = Point({}, (row("contraction", 3, 0.1), row("softmax", 1, 0.05), row("gelu", 2, 0.05)))
    sums = measuring.against(found, "this-cpu", point)
    assert {name: tuple(round(each, 9) for each in pair) for name, pair in sums.items()} == {
        "products, convolutions, attention": (0.5, 0.35), "everything else": (0.5, 0.1), "total": (1.0, 0.45)
    }  # fmt: skip
    assert "70.0 %" in text_of(measuring.comparison(sums, this)) and "45.0 %" in text_of(measuring.comparison(sums, this))
    measuring.show(found, this, (), json=True)
    measuring.compare(sums, this, json=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["measured"]["seconds"] == 1.0 and lines[0]["machine"]["name"] == "this-cpu"
    assert lines[1]["against_roofline"]["everything else"]["measured_s"] == 0.5


def test_what_is_made_of_a_run_that_is_done(done: tuple[RunState, Profile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison with what was measured, plots and a page, once the run has ended well, and only then."""
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    state, profile = done
    asked: list[Analysis | None] = []
    code = 0

    def start(said: object, stages: object, *, adjust: Callable[[RunRequest], RunRequest], named: Callable[[str], None]) -> None:
        asked.append(adjust(state.request).analysis)
        named("run1")
        raise typer.Exit(code)

    chip = Measurement("net", 1.0, 0.0, 2, 1.0, ())
    monkeypatch.setattr("tilewright.services.cli.running.start", start)
    monkeypatch.setattr(drawing, "fetch", lambda run: (state, profile))
    monkeypatch.setattr(measuring, "take", lambda said, repeats: (chip, MACHINE))
    words = ["profile", "bert-base", "--measure", "2", "--plots", str(tmp_path / "plots"), "--html", str(tmp_path / "page.html")]
    ended = CliRunner().invoke(app, words)
    assert ended.exit_code == 0, ended.output
    assert asked[0] is not None and asked[0].machines == (MACHINE,)
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"breakdown.svg", "roofline.svg", "sweep.svg", "measured.svg"}
    assert (tmp_path / "page.html").read_text().count("<svg") == 4
    assert "Measured against the roofline of chip" in ended.output
    code = 3
    (tmp_path / "page.html").unlink()
    assert CliRunner().invoke(app, words).exit_code == 3 and not (tmp_path / "page.html").exists()
    code = 0
    (tmp_path / "file").write_text("")
    refused = CliRunner().invoke(app, ["profile", "bert-base", "--html", str(tmp_path / "file" / "page.html")])
    assert refused.exit_code == 2 and "Not a directory" in refused.stderr


def test_sweeps_over_what_the_client_loads(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("workload: {operators: [{matmul: {p: 2, c: 8, k: 8}}]}\n")
    request = RunRequest(str(file), "gemmini", frontend="yaml", workload=Workload.build("own", [("a", matmul(p=2, c=8, k=8))]))
    said = options.RunOptions(model=str(file), target="gemmini")
    plain = loading.with_analysis(request, said, Analysis(convention="survey"))
    assert plain.analysis == Analysis(convention="survey") and plain.workload == request.workload
    with pytest.raises(InvalidInput, match="frontend yaml has no options"):
        loading.with_analysis(request, said, Analysis(sweep={"seq": (1, 2)}))
    with pytest.raises(InvalidInput, match="--generate 4: the frontend yaml has no decoding, expected zoo or huggingface"):
        loading.with_analysis(request, said, Analysis(generate=4))


def test_generations_of_what_the_client_loads() -> None:
    """The passes that are sent are those that the service asks for, under every setting of a sweep."""
    zoo = registry.load("frontends", "zoo")
    asked: Options = {"layers": 1, "seq": 9, "batch": 1}
    request = RunRequest("gpt2", "gemmini", frontend="zoo", frontend_options=asked, workload=zoo.load("gpt2", asked))
    analysis = Analysis(generate=30, sweep={"batch": (1, 2)})
    sent = loading.with_analysis(request, options.RunOptions(model="gpt2", target="gemmini"), analysis)
    assert sent.analysis is not None and [each.setting for each in sent.analysis.given] == [
        {"batch": batch, name: value} for batch in (1, 2) for name, value in (("ctx", 10), ("ctx", 24), ("ctx", 38), ("seq", 9))
    ]
    host = Host(lambda frame: None)
    job = ProfileJob("gpt2", "zoo", "gemmini", options=asked)
    there = profiler.perform(msgspec.structs.replace(job, analysis=analysis), host)
    here = profiler.perform(msgspec.structs.replace(job, analysis=sent.analysis, workload=sent.workload), host)
    assert here.points == there.points and len(here.points) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bert-base", "--seq", "1..x"], "--seq '1..x'"),
        (["bert-base", "--measure", "2"], "the frontend zoo has nothing that runs"),
        (["bert-base", "--machine", "a10"], "did you mean 'a100'?"),
        (["gpt2", "--generate", "4", "--decode"], "--generate 4: expected no --decode or --ctx with it"),
        (["gpt2", "--generate", "4", "--measure", "2"], "--measure 2: expected no --generate with it"),
        (["bert-base", "--table", "--html", "x.html", "--detach"], "expected none with --detach"),
    ],
)
def test_bad_words_end_with_two(words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["profile", *words])
    assert done.exit_code == 2 and said in done.stderr
