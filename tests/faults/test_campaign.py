"""Three rounds of the kill -9 campaign; `campaign.py` plays as many as one likes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults import campaign


@pytest.fixture(scope="module")
def digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    found: str = campaign.undisturbed(tmp_path_factory.mktemp("calm"))
    return found


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_run_under_fire_ends_as_if_nothing_had_happened(tmp_path: Path, digest: str, seed: int) -> None:
    """Twenty kills, eight of them inside a running task: every task recorded once, the digest of an undisturbed run."""
    round_ = campaign.under_fire(tmp_path, seed, digest)
    print("\n".join(round_.log))
