"""Timeloop's own mapper: nothing that it finds is better. The whole suite is for `tilewright validate timeloop-mapper`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tilewright.plugins.validations import timeloop_mapper
from tilewright.protocol.errors import InvalidInput

DATA = timeloop_mapper.load(None)
SUITE = timeloop_mapper.TimeloopMapper()


def part(tmp_path: Path, layers: tuple[str, ...], **changes: Any) -> str:
    """A file with the records of some layers only."""
    records = [{**record, **changes} for record in DATA["records"] if record["layer"] in layers]
    file = tmp_path / "part.json"
    file.write_text(json.dumps({**DATA, "records": records}))
    return str(file)


def test_all_records_are_there() -> None:
    assert len(DATA["records"]) == 35
    assert {record["architecture"] for record in DATA["records"]} == set(DATA["architectures"])


def test_never_worse(tmp_path: Path) -> None:
    """A product, a batched one and a fully connected layer on three machines."""
    report = SUITE.run(part(tmp_path, ("bert_ffn1_s128", "bert_scores_s128_h12", "resnet50_fc")), {})
    assert report.cases == 9 + 9 + 6
    assert report.max_error == 0.0


def test_depthwise_layers_have_their_channels_in_g() -> None:
    operator = timeloop_mapper.layer(DATA["layers"]["dw_mbv2_3x3_s1"])
    assert operator.macs == 3 * 3 * 56 * 56 * 144
    assert operator.bounds["G"] == 144


def test_a_better_record_counts(tmp_path: Path) -> None:
    report = SUITE.run(part(tmp_path, ("resnet50_fc",), edp=1e12), {"only": "gemmini_dosa"})
    assert report.exact == 0


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "odd.json"
    file.write_text("[1]")
    with pytest.raises(InvalidInput, match="no architectures, layers, records"):
        SUITE.run(str(file), {})
    file.write_text("{")
    with pytest.raises(InvalidInput, match="expected one JSON object"):
        SUITE.run(str(file), {})
    with pytest.raises(InvalidInput, match=r"options\.only: 'tpu', expected one of simba_ert"):
        SUITE.run(None, {"only": "tpu"})
