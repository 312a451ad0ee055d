"""``validate cosa`` on the shipped records, and on files that are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tilewright.plugins.validations import cosa
from tilewright.protocol.errors import InvalidInput


def test_shipped_records() -> None:
    report = cosa.Cosa().run(None, {})
    assert (report.cases, report.exact) == (62, 62)
    cycles, energy = report.groups["recorded mapping, cycles"], report.groups["recorded mapping, energy"]
    assert (cycles.cases, cycles.exact, cycles.skipped) == (61, 61, 1)
    assert (energy.cases, energy.exact, energy.skipped) == (61, 61, 1)


def test_a_wrong_objective_is_seen(tmp_path: Path) -> None:
    record = cosa.load(None)[0]
    record["objective"] += 0.5
    file = tmp_path / "records.jsonl"
    file.write_text(json.dumps(record))
    assert cosa.Cosa().run(str(file), {}).exact == 0


@pytest.mark.parametrize("text", ["", "{", '{"kind": "other"}', '{"kind": "polish_edp"}'])
def test_files_without_records(tmp_path: Path, text: str) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=r"records\.jsonl"):
        cosa.Cosa().run(str(file), {})
