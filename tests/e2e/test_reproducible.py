"""Same request, same answers bit for bit: again, with two mapper workers, from a shell of another run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

MAIN = [sys.executable, "-c", "from tilewright.services.cli import main; main()"]
RUN = ("map", "gpt2", "--option", "decode=true", "--target", "gemmini", "--mapper", "random", "--evaluations", "500", "--no-cache")
#: Seconds; generous, because the machine may be busy.
PATIENCE = 180.0


class House:
    """An embedded house of its own folder."""

    def __init__(self, folder: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TILEWRIGHT_")}
        self.environment = kept | {"TILEWRIGHT_STATE": str(folder), "TILEWRIGHT_SLOTS": "1"}

    def __call__(self, *words: str) -> str:
        done = subprocess.run([*MAIN, *words], env=self.environment, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def digest(self, seed: int) -> str:
        """Run, and say what was recorded."""
        run = json.loads(self(*RUN, "--seed", str(seed), "--json").splitlines()[-1])["run"]
        return self("show", run, "--digest").strip()


@pytest.fixture
def houses(tmp_path: Path) -> Iterator[list[House]]:
    two = [House(tmp_path / "one"), House(tmp_path / "two")]
    yield two
    for house in two:
        house("down")


def test_digests(houses: list[House]) -> None:
    alone, together = houses
    first = alone.digest(5)
    assert len(first) == 64
    assert alone.digest(5) == first
    assert alone.digest(6) != first
    together("up")
    with subprocess.Popen(
        [*MAIN, "serve", "mapper"], env=together.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as second:
        try:
            assert together.digest(5) == first
            assert together("services").count("mapper") >= 2
        finally:
            second.terminate()
