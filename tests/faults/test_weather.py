"""A round of bad weather with one server, and on demand one with three; `weather.py` plays as many as one likes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults import weather


@pytest.fixture(scope="module")
def digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    return weather.undisturbed(tmp_path_factory.mktemp("calm"))


@pytest.mark.parametrize(
    "cluster", [pytest.param(False, id="one server"), pytest.param(True, id="three servers", marks=pytest.mark.campaign)]
)
def test_a_run_in_bad_weather_ends_as_in_fine(tmp_path: Path, digest: str, cluster: bool) -> None:
    """Lines, processes, servers and the store fail at random: every task recorded once, the digest of an undisturbed run."""
    round_ = weather.through_weather(tmp_path, 1, digest, cluster=cluster)
    print("\n".join(round_.log))
