"""The suites ``timeloop`` and ``timeloop-gemmini``: what they find on the shipped data, and that they can fail."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tilewright import loopnest as ln
from tilewright.plugins.validations.timeloop.cases import DATA, architecture, mapping, operator, read
from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.validation import ValidationReport


def shipped(suite: str, name: str) -> list[str]:
    data = files(f"tilewright.plugins.validations.{suite}").joinpath(name).read_bytes()
    return gzip.decompress(data).decode().splitlines()


def validate(suite: str, path: Path | None = None) -> ValidationReport:
    report: ValidationReport = registry.load("validations", suite).run(str(path) if path else None, {})
    return report


def test_every_recorded_evaluation_is_reproduced() -> None:
    report = validate("timeloop")
    cases = [json.loads(line) for line in shipped("timeloop", "reference.jsonl.gz")]
    perfect = [case for case in cases if not case["imperfect"]]
    assert report.cases == report.exact == len(perfect) == 553
    assert report.max_error == 0
    linked = report.groups["peer transfers"]
    assert linked.cases == linked.exact == sum(case["result_with_link_transfers"] is not None for case in perfect) == 37
    assert report.skipped == len(cases) - len(perfect) == 21
    assert not any(name.startswith("differs") for name in report.groups)


def _wrong_reads(case: dict[str, Any]) -> None:
    next(iter(case["result"]["levels"].values()))["tensors"]["Weights"]["reads"] += 1


def _wrong_energy(case: dict[str, Any]) -> None:
    case["result"]["energy_pj_recomputed"] *= 1 + 1e-8


def _wrong_cycles(case: dict[str, Any]) -> None:
    case["result"]["cycles"] += 1


def _wrong_utilization(case: dict[str, Any]) -> None:
    case["result"]["utilization_percent"] += 0.01


@pytest.mark.parametrize(
    ("change", "figure"),
    [
        (_wrong_reads, "differs: RF Weights reads"),
        (_wrong_energy, "differs: energy"),
        (_wrong_cycles, "differs: cycles"),
        (_wrong_utilization, "differs: utilization"),
    ],
)
def test_one_wrong_figure_is_found(tmp_path: Path, change: Callable[[dict[str, Any]], None], figure: str) -> None:
    lines = shipped("timeloop", "reference.jsonl.gz")[:3]
    case = json.loads(lines[1])
    change(case)
    path = tmp_path / "cases.jsonl"
    path.write_text("\n".join([lines[0], json.dumps(case), lines[2]]))
    report = validate("timeloop", path)
    assert (report.cases, report.exact) == (3, 2)
    assert report.groups[figure].cases == 1
    assert report.max_error is not None
    assert report.max_error > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"arch": 1', "line 1: Input data was truncated, expected one JSON object per line"),
        ("", "has no cases"),
        ("[1]", "line 1: Expected `object`, got `array`"),
        ('\n{"id": "a", "arch": {"name": "b"}}', r"line 2 \(a\): Object missing required field `mac` - at `\$.arch`"),
    ],
)
def test_broken_case_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=message):
        validate("timeloop", path)


def _at(case: dict[str, Any], path: str, value: Any) -> None:
    *way, last = (int(step) if step.isdigit() else step for step in path.split("."))
    for step in way:
        case = case[step]  # type: ignore[index]
    case[last] = value  # type: ignore[index]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("problem.dims.P", 2.5, r"Expected `int`, got `float` - at `\$.problem.dims.P`"),
        ("problem.dims.Z", 2, "unknown field `Z`"),
        ("problem.dims.P", 10**19, r"Expected `int` <= 9223372036854775807 - at `\$.problem.dims.P`"),
        ("problem.shape", "fft", "Invalid enum value 'fft'"),
        ("arch.levels.0.read_bw", -1, "read_bandwidth: expected `float` > 0"),
        ("arch.levels.0.block_size_words", 0, "block_words: expected `int` >= 1"),
        ("mapping.levels.0.spatial", [["K", 2, "Z"]], "Invalid enum value 'Z'"),
        ("mapping.levels.0.temporal", [["K"]], "Expected `array` of length 2"),
        ("mapping.levels.0.temporal", [["Z", 2]], "dim 'Z' is unknown"),
        ("mapping.levels.0.temporal", [], "factors of .* below its bound"),
        ("result.cycles", 0, r"Expected `float` > 0.0 - at `\$.result.cycles`"),
        ("result.energy_pj_recomputed", float("nan"), "JSON is malformed"),
    ],
)
def test_broken_cases_are_named(tmp_path: Path, path: str, value: Any, message: str) -> None:
    case = json.loads(shipped("timeloop", "reference.jsonl.gz")[0])
    _at(case, path, value)
    file = tmp_path / "cases.jsonl"
    file.write_text(json.dumps(case))
    with pytest.raises(InvalidInput, match=f"cases.jsonl, line 1.*{message}"):
        validate("timeloop", file)


def test_a_level_that_we_do_not_have_is_a_difference(tmp_path: Path) -> None:
    case = json.loads(shipped("timeloop", "reference.jsonl.gz")[0])
    case["result"]["levels"]["L9"] = {"cycles": 3, "tensors": {}}
    (tmp_path / "cases.jsonl").write_text(json.dumps(case))
    assert validate("timeloop", tmp_path / "cases.jsonl").groups["differs: L9 cycles"].cases == 1


def test_peer_transfers_change_nothing_where_the_tool_says_so() -> None:
    """The tool's default mode has transfers on; its figures are recorded apart only where they differ."""
    compared = 0
    for _, case in read(DATA):
        if case is None or case.result_with_link_transfers is not None:
            continue
        problem = ln.Problem(operator(case.problem), architecture(case.arch), conventions=ln.Conventions(peer_transfers=True))
        cost = ln.cost(problem, mapping(case.mapping))
        assert cost.cycles == case.result.cycles
        assert cost.energy_pj == pytest.approx(case.result.energy_pj_recomputed, rel=1e-9)
        compared += 1
    assert compared == 516


def test_missing_files_are_named(tmp_path: Path) -> None:
    for suite in ("timeloop", "timeloop-gemmini"):
        with pytest.raises(InvalidInput, match=r"nowhere.gz: cannot be read"):
            validate(suite, tmp_path / "nowhere.gz")


@pytest.fixture
def sample(tmp_path: Path) -> Callable[[Callable[[list[dict[str, str]]], None]], Path]:
    """Every 80th row of DOSA's data, changed by a function, as a compressed CSV file."""

    def write(change: Callable[[list[dict[str, str]]], None] = lambda rows: None) -> Path:
        rows = list(csv.DictReader(shipped("timeloop_gemmini", "sample.csv.gz")))[::80]
        change(rows)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        path = tmp_path / "rows.csv.gz"
        path.write_bytes(gzip.compress(text.getvalue().encode()))
        return path

    return write


def test_gemmini_rows_are_reproduced(sample: Callable[..., Path]) -> None:
    report = validate("timeloop-gemmini", sample())
    assert report.cases == report.exact == 118
    assert report.mape is not None
    assert report.mape < 0.05
    assert report.groups["cycles"].max_error == 0
    table = report.groups["energy, Timeloop's built-in table"]
    assert table.exact == 118
    explained = [group for name, group in report.groups.items() if name.startswith("explained")]
    assert sum(group.cases for group in explained) == 118
    assert report.spearman is not None
    assert report.spearman > 0.99999


def test_gemmini_rows_that_differ_are_counted(sample: Callable[..., Path]) -> None:
    def change(rows: list[dict[str, str]]) -> None:
        rows[0]["target.cycle"] = str(int(float(rows[0]["target.cycle"])) * 2)
        rows[1]["target.energy"] = str(float(rows[1]["target.energy"]) * 1.02)

    report = validate("timeloop-gemmini", sample(change))
    assert report.exact == 117
    assert report.within_1pct == 116
    assert report.groups["unexplained: cycles differ"].cases == 1
    beyond = next(group for name, group in report.groups.items() if "beyond the printed digits" in name)
    assert beyond.cases == 1
    assert report.max_error is not None
    assert report.max_error == pytest.approx(50, abs=1)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("mapping.mapping", "L3[WIO] C8 - L2[WI] N1 - L1[O] Z* - L0[W] N1", r"row 4: .*loop 'Z\*', expected e.g. 'P7' or 'C8X'"),
        ("mapping.mapping", "L3[WIO] Z8 - L2[WI] N1 - L1[O] N1 - L0[W] N1", "row 4: .*loop 'Z8', expected"),
        ("mapping.mapping", "L3[WIO] C4 - L2[WI] N1 - L1[O] C3 C2 - L0[W] N1", "row 4: .*two loops of one dim in one block"),
        ("mapping.mapping", "L3[WIO] C4 - L3[WI] N1 - L1[O] N1 - L0[W] N1", "row 4: .*has L3 twice"),
        ("mapping.mapping", "L3[WIO] C4 - L2[WI] N1 - L1[O] N1", r"row 4: .*has levels \[1, 2, 3\], expected L3 to L0"),
        ("mapping.mapping", "", "row 4: mapping '': '', expected"),
        ("prob.K", "7919", "row 4: factors of K below its bound 7919"),
        ("prob.K", "", "row 4: prob.K: '', expected a number above 0"),
        ("prob.K", "1.5", "row 4: prob.K: '1.5', expected a whole number"),
        ("arch.meshX", "7", "row 4: Accumulator: mesh 7 x 1 does not divide"),
        ("arch.mem1_entries", "0", "row 4: arch.mem1_entries: '0', expected a number above 0"),
        ("arch.mem1_entries", "1", r"row 4: capacity of Accumulator \(1 words\): words exceeded by"),
        ("target.cycle", "0", "row 4: target.cycle: '0', expected a number above 0"),
        ("target.energy", "nan", "row 4: target.energy: 'nan', expected a number above 0"),
    ],
)
def test_gemmini_errors_name_the_row(sample: Callable[..., Path], column: str, value: str, message: str) -> None:
    def change(rows: list[dict[str, str]]) -> None:
        rows[3][column] = value

    with pytest.raises(InvalidInput, match=message):
        validate("timeloop-gemmini", sample(change))


def test_gemmini_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InvalidInput, match=r"has no column target.cycle"):
        validate("timeloop-gemmini", path)
    header = shipped("timeloop_gemmini", "sample.csv.gz")[0]
    path.write_text(header)
    with pytest.raises(InvalidInput, match="has no rows"):
        validate("timeloop-gemmini", path)
    path.write_text(f"{header}\n1,2,3\n")
    with pytest.raises(InvalidInput, match=r"row 1: arch.meshX: None"):
        validate("timeloop-gemmini", path)


def test_gemmini_counts_may_be_written_as_floats(sample: Callable[..., Path]) -> None:
    def change(rows: list[dict[str, str]]) -> None:
        for row in rows:
            row["arch.pe"] += ".0"
            row["prob.K"] += ".0"

    assert validate("timeloop-gemmini", sample(change)).exact == 118
