"""``validate mapspace``: random mappings against a mapspace that can be listed, and against the survey's figures in kind."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.plugins.validations.mapspace import CASES, Case, MapspaceSpread, spread
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.workload import matmul


def test_distributions_are_like_the_surveys() -> None:
    """Within a factor of two of what is printed, from 4,000 mappings each: the minimum of fewer is higher."""
    report = MapspaceSpread().run(None, {"samples": 4000})
    assert set(report.groups) == set(CASES)
    assert report.cases == 0 and report.mape is None
    for name, group in report.groups.items():
        figures = group.figures
        assert 1 <= figures["10 % within [x best]"] <= figures["half within [x best]"] <= figures["worst [x best]"], name
        assert figures["worst [x best]"] > 1e3
        if "survey: 10 % within [x best]" in figures:
            assert 0.4 < figures["10 % within [x best]"] / figures["survey: 10 % within [x best]"] < 2.5, name


def test_all_mappings_of_an_operator_without_loops_are_equal() -> None:
    figures = spread(Case(matmul(p=1, c=1, k=1)), 10, np.random.default_rng(0))
    assert figures == {"10 % within [x best]": 1.0, "half within [x best]": 1.0, "worst [x best]": 1.0, "within 3x [%]": 100.0}


def test_what_cannot_be() -> None:
    with pytest.raises(InvalidInput, match="expected no file"):
        MapspaceSpread().run("x.csv", {})
    with pytest.raises(InvalidInput, match=r"options\.samples: 3, expected at least 10"):
        MapspaceSpread().run(None, {"samples": 3})
