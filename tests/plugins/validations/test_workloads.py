"""The suite ``workloads``: on the shipped reference, and on files in which something is wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tilewright.plugins.validations.workloads import counter
from tilewright.plugins.validations.workloads.ours import _calls, _describe
from tilewright.plugins.validations.workloads.reference import DATA, Key, Model, Row, request
from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Options, Validation
from tilewright.protocol.validation import ValidationReport


@pytest.fixture(scope="module")
def suite() -> Validation:
    loaded: Validation = registry.load("validations", "workloads")
    return loaded


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(gzip.decompress(DATA.read_bytes()))["models"]
    return data


@pytest.fixture(scope="module")
def report(suite: Validation) -> ValidationReport:
    return suite.run(None, {})


def test_every_model_is_exact(report: ValidationReport, reference: dict[str, Any]) -> None:
    recorded = {name: group for name, group in report.groups.items() if not name.startswith("closed form")}
    assert {name: group.max_error for name, group in recorded.items()} == dict.fromkeys(reference, 0.0)
    assert report.exact == report.cases > 400
    assert report.skipped == 0


def test_closed_forms_are_exact(report: ValidationReport, reference: dict[str, Any], tmp_path: Path, suite: Validation) -> None:
    closed = {name.removeprefix("closed form: "): group for name, group in report.groups.items() if name.startswith("closed form: ")}
    assert {name: (group.cases, group.exact) for name, group in closed.items()} == {
        "bert-base": (4, 4), "bert-large": (4, 4), "gpt2": (6, 6), "llama-3-8b": (4, 4), "mixtral-8x7b": (2, 2), "llama-3-70b": (2, 2),
        "vgg16": (1, 1), "resnet50": (1, 1), "resnet50-v1": (1, 1),
    }  # fmt: skip
    file = tmp_path / "own.json"
    file.write_text(json.dumps({"models": {"vgg16-224": reference["vgg16-224"]}}))
    assert set(suite.run(str(file), {}).groups) == {"vgg16-224"}


@pytest.mark.parametrize(
    ("file", "options", "said"),
    [
        (None, {"against": "flops"}, "against: 'flops', expected file or torch"),
        (None, {"against": "torch", "frontend": "zoo"}, "expected no file, and no frontend but huggingface"),
        ("own.json", {"against": "torch"}, "expected no file, and no frontend but huggingface"),
        (None, {"frontend": 3}, "frontend: 3, expected a name"),
    ],
)
def test_bad_options(suite: Validation, file: str | None, options: Options, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        suite.run(file, options)


def test_where_torchs_counter_is_right_we_agree(suite: Validation, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where it is not, what it misses is all that is missing; should anything else be missing, it is seen."""
    pytest.importorskip("transformers", reason="needs transformers")
    few: tuple[tuple[str, Options], ...] = (("bert-base", {"seq": 64, "layers": 2}), ("mixtral-8x7b", {"seq": 32, "layers": 1}))
    monkeypatch.setattr(counter, "PASSES", few)
    report = suite.run(None, {"against": "torch"})
    assert (report.cases, report.exact, report.skipped) == (2, 2, 4)
    wrong = [name for name, group in report.groups.items() if group.skipped]
    assert any(name.startswith("bert-base seq=64 layers=2, CPU: the counter has 1.81") for name in wrong)
    assert sum(name.endswith("it misses _grouped_mm") for name in wrong) == 2
    monkeypatch.setattr(counter, "MISSED", {**counter.MISSED, "_grouped_mm": lambda workload: 1})
    report = suite.run(None, {"against": "torch"})
    assert (report.cases, report.exact, report.skipped) == (5, 2, 1)


def test_cases_are_the_files_rows(report: ValidationReport, reference: dict[str, Any]) -> None:
    """Every row is a case, but rows that differ only in a function we do not tell apart share one; two totals are added."""
    merged = {"llama3-8b-prefill2048": 1, "llama3-8b-decode-ctx2048": 1, "llama3-70b-prefill2048": 1, "mixtral-8x7b-decode-ctx2048": 7}
    for name, model in reference.items():
        assert report.groups[name].cases == len(model["workloads"]) + 2 - merged.get(name, 0), name


def wrong(reference: dict[str, Any], **change: Any) -> dict[str, Any]:
    model = json.loads(json.dumps(reference["bert-base-seq128"]))
    row = next(row for row in model["workloads"] if row["kind"] == "matmul")
    row.update(change)
    return {"models": {"bert-base-seq128": model}}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"count": 24}, 100.0),
        ({"macs_each": 75497472 * 2}, 50.0),
        ({"read_bytes_each": 2755584 - 768 * 4}, 100 * 3072 / (2755584 - 3072)),
        ({"write_bytes_each": 0}, 100.0),
    ],
)
def test_a_wrong_figure_is_seen(suite: Validation, reference: dict[str, Any], tmp_path: Path, change: dict[str, int], error: float) -> None:
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps(wrong(reference, **change)))
    report = suite.run(str(file), {})
    assert (report.cases, report.exact) == (15, 14)
    assert report.max_error == pytest.approx(error)
    assert "bert-base-seq128: matmul 128x768x768x1, 32 bit" in report.groups


def test_a_missing_operator_is_seen_on_both_sides(suite: Validation, reference: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "dims.json.gz"
    row = {"dims": {"M": 128, "N": 768, "K": 769, "batch": 1}}
    file.write_bytes(gzip.compress(json.dumps(wrong(reference, **row)).encode()))
    report = suite.run(str(file), {})
    assert (report.cases, report.exact, report.max_error) == (16, 14, 100.0)


def test_models_that_the_zoo_lacks_are_skipped_with_the_reason(suite: Validation, reference: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text(json.dumps({"models": {"alexnet-224": reference["vgg16-224"]}}))
    report = suite.run(str(file), {})
    assert (report.cases, report.skipped) == (0, len(reference["vgg16-224"]["workloads"]))
    assert list(report.groups) == ["alexnet-224: not in the zoo"]
    assert report.max_error is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON of the form"),
        ("[]", "expected JSON of the form"),
        ('{"model": {}}', "has no 'models'"),
        ('{"models": {"gpt2-prefill8": {"params": 1}}}', "total_macs"),
        (
            '{"models": {"gpt2-prefill8": {"params": 1, "total_macs": 1, "workloads": []}}}',
            "model 'gpt2-prefill8': has no operator with weights",
        ),
        ("[" * 100_000, "expected JSON of the form"),
    ],
)
def test_a_bad_file_is_refused(suite: Validation, tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.json"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=message) as caught:
        suite.run(str(file), {})
    assert str(file) in str(caught.value)


def test_a_model_beyond_its_limit_names_file_and_model(suite: Validation, reference: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "long.json"
    file.write_text(json.dumps({"models": {"bert-base-seq1024": reference["bert-base-seq128"]}}))
    with pytest.raises(InvalidInput, match="model 'bert-base-seq1024': seq: 1024, expected an integer from 1 to 512"):
        suite.run(str(file), {})


def test_no_such_file(suite: Validation, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        suite.run(str(tmp_path / "none.json"), {})


def test_modules_are_the_reference_implementations(reference: dict[str, Any]) -> None:
    """The first modules that each row of the file names are the first of ours with that operator, in execution order."""
    zoo = registry.load("frontends", "zoo")
    for name, model in reference.items():
        source, options = request(name)
        workload = zoo.load(source, {**options, "bits": 16 if "llama" in name or "mixtral" in name else 32})
        edges = {edge.name: edge for edge in workload.edges}
        ours: dict[Key, list[str]] = {}
        for nodes in _calls(workload):
            ours.setdefault(_describe(workload, edges, nodes)[0], []).append(nodes[0].module)
        theirs: dict[Key, list[Row]] = {}
        for row in msgspec.convert(model, Model).workloads:
            theirs.setdefault(row.key, []).append(row)
        for key, rows in theirs.items():
            first = list(dict.fromkeys(ours[key]))
            if len(rows) == 1:
                assert tuple(first[: len(rows[0].modules)]) == rows[0].modules, (name, key)
            else:  # functions that we do not tell apart
                assert {module for row in rows for module in row.modules} <= set(first), (name, key)
