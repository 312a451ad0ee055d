"""The suite `dosa`: networks as published, rows that run, figures that are what they say."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tilewright.plugins.validations.dosa.anchors import ANCHORS, SEEDS, anchor, geomean
from tilewright.plugins.validations.dosa.methods import Methods
from tilewright.plugins.validations.dosa.networks import DATA, networks
from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Option
from tilewright.protocol.validation import ValidationReport

#: Unique layers, layers, and multiply-accumulates of DOSA's networks.
PUBLISHED = {"unet": (23, 23), "resnet50": (24, 54), "bert": (5, 6), "retinanet": (22, 27)}
RETINANET_MACS = 3.323622e9


def run(path: Path | None = None, **options: Option) -> ValidationReport:
    report: ValidationReport = registry.load("validations", "dosa").run(None if path is None else str(path), options)
    return report


def figures(report: ValidationReport) -> dict[str, float]:
    assert isinstance(report.figures, dict)
    return report.figures


def test_networks_are_the_published_ones() -> None:
    found = {network.name: network for network in networks(DATA, ())}
    assert {name: (len(each.tasks), sum(task.count for task in each.tasks)) for name, each in found.items()} == PUBLISHED
    assert found["retinanet"].macs == pytest.approx(RETINANET_MACS, rel=1e-6)
    assert [task.operator.bounds["C"] for task in found["bert"].tasks] == [768, 64, 128, 768, 3072]


def test_anchors_are_of_the_published_seeds() -> None:
    """The geometric means that the table's source states for all seeds."""
    assert anchor("dosa", "bert", SEEDS) == pytest.approx(2.367e9, rel=1e-3)
    assert anchor("dosa", "unet", SEEDS) == pytest.approx(4.595e13, rel=1e-3)
    assert anchor("no-gradient", "resnet50", SEEDS) == pytest.approx(1.194e11, rel=1e-3)
    assert anchor("random", "retinanet", SEEDS) == pytest.approx(6.295e10, rel=1e-3)
    assert anchor("bayesian", "bert", SEEDS) == pytest.approx(8.528e9, rel=1e-3)
    assert anchor("dosa", "bert", (100,)) == pytest.approx(3.613e9)
    assert anchor("bayesian", "resnet50", (100,)) is None
    assert anchor("gradient", "bert", SEEDS) is None
    # How many times worse than dosa the others are, over the four networks.
    ratios = [geomean(list(ANCHORS["random"][name])) / geomean(list(ANCHORS["dosa"][name])) for name in PUBLISHED]
    assert geomean(ratios) == pytest.approx(1.50, abs=0.01)


def test_a_few_rows_on_a_small_network(tmp_path: Path) -> None:
    layer = {"R": 1, "S": 1, "P": 64, "Q": 1, "C": 96, "K": 64, "N": 1, "Wstride": 1, "Hstride": 1}
    file = tmp_path / "networks.json.gz"
    file.write_bytes(
        gzip.compress(json.dumps({"small": [{"name": "a", "count": 2, **layer}, {"name": "b", "count": 1, **layer, "K": 32}]}).encode())
    )
    report = run(file, networks="all", budget=120, seeds="0", rows="dosa;no-gradient;dosa, energy;pareto", mappers="cosa", mapper_budget=50)
    assert list(report.groups) == ["dosa", "no-gradient", "dosa, energy", "pareto", "mapper cosa"]
    assert report.cases == 0
    small = {row: figures(group.groups["small"]) for row, group in report.groups.items()}
    assert figures(report.groups["dosa"])["over dosa"] == pytest.approx(1)
    assert small["no-gradient"]["EDP, geomean"] >= small["dosa"]["EDP, geomean"] * 0.999
    assert small["no-gradient"]["samples/layer"] < small["dosa"]["samples/layer"] <= 120
    assert small["pareto"]["over dosa"] == pytest.approx(small["pareto"]["EDP, geomean"] / small["dosa"]["EDP, geomean"])
    assert small["dosa"]["best"] == small["dosa"]["worst"] == pytest.approx(small["dosa"]["EDP, geomean"])
    assert small["mapper cosa"]["over dosa"] > 0.5
    assert figures(report.groups["mapper cosa"])["published"] == 3.21


def test_errors_against_anchors() -> None:
    """CoSA's mappings alone, which need no budget to speak of: as the anchors say."""
    report = run(rows="no-gradient", seeds="0,1111", budget=200)
    group = report.groups["no-gradient"].groups["bert"]
    found = figures(group)
    assert found["anchor"] == pytest.approx(math.sqrt(1.858e9 * 1.797e9))
    assert group.mape == pytest.approx(100 * abs(found["EDP, geomean"] / found["anchor"] - 1))
    assert report.cases == 1
    assert report.mape is not None
    assert report.mape < 1


def test_remembered_mappings_are_charged_again() -> None:
    methods = Methods()
    network = networks(DATA, ("bert",))[0]
    from tilewright.plugins.validations.dosa.methods import ROWS

    first, second = (methods.run(ROWS["no-gradient"], network, 0, 100) for _ in range(2))
    assert first.design == second.design
    assert first.samples == second.samples


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"networks": "bret"}, "option networks: 'bret' is not in .*; did you mean 'bert'"),
        ({"rows": "dosa;pareta"}, "option rows: 'pareta' is not a row; did you mean 'pareto'"),
        ({"seeds": "0,x"}, "option seeds: '0,x', expected whole numbers separated by commas, or all"),
        ({"budget": 0}, "option budget: 0, expected a whole number above 0"),
        ({"budget": 1, "rows": "dosa"}, "option budget: dosa finds no design of bert with 1 evaluations per layer"),
    ],
)
def test_wrong_options(options: dict[str, Option], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        run(**options)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not JSON"), ("[]", "expected an object"), ('{"a": [{"name": "x", "count": 1}]}', "a: KeyError: 'R'")],
)
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "networks.json"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=message):
        run(file, networks="all")
