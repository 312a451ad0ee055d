"""The records of ZigZag and AccelForge: met, and proven. The whole suite is for `tilewright validate peers`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tilewright.plugins.validations import peers
from tilewright.protocol.errors import InvalidInput

RECORDS = peers.load(None)


def test_single_layers_are_at_or_below_the_records_with_proof() -> None:
    report = peers.Peers().run(None, {"only": "energy"})
    assert (report.cases, report.exact, report.max_error) == (3, 3, 0.0)
    edp = peers.Peers().run(None, {"only": "edp"}).groups["edp"]
    assert (edp.cases, edp.exact) == (2, 2)


def test_accelforge_and_we_find_the_same_optimum() -> None:
    """Two searches, one answer: energy to the printed digit, cycles exactly."""
    for record in RECORDS["accelforge"].values():
        found = peers.best(peers.layer(record["layer"]), "edp", peers.ACCELFORGE).cost
        assert (round(found.energy_pj / 1e6, 4), found.cycles) == (record["energy_uj"], record["cycles"])


def test_a_network() -> None:
    """The BERT-base layer: 12 % below the record."""
    energy, cycles = peers.totals(RECORDS["networks"]["bert"])
    assert energy * cycles < 0.9 * RECORDS["networks"]["bert"]["edp"]


def test_a_record_that_is_missed_counts_as_missed(tmp_path: Path) -> None:
    """A file that claims half of the true optimum."""
    half = {**RECORDS, "single": {"Z4": {**RECORDS["single"]["Z4"], "energy_uj": RECORDS["single"]["Z4"]["energy_uj"] / 2}}}
    file = tmp_path / "half.json"
    file.write_text(json.dumps(half))
    report = peers.Peers().run(str(file), {"only": "energy"})
    assert (report.cases, report.exact) == (1, 0)
    assert report.max_error == pytest.approx(100, rel=0.01)


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "odd.json"
    file.write_text("[1]")
    with pytest.raises(InvalidInput, match="no accelforge, networks, single"):
        peers.Peers().run(str(file), {})
    file.write_text("{")
    with pytest.raises(InvalidInput, match="expected one JSON object"):
        peers.Peers().run(str(file), {})
    with pytest.raises(InvalidInput, match=r"options\.only: 'vgg', expected one of energy, edp"):
        peers.Peers().run(None, {"only": "vgg"})
