"""Folders for temporary files: gone with their owners, however those ended."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tilewright.services.runtime import scratch
from tilewright.services.runtime.scratch import Scratch


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def abandon(place: Path) -> Path:
    """What a killed owner leaves behind."""
    code = "import os; from tilewright.services.runtime.scratch import Scratch; print(Scratch().path, flush=True); os._exit(0)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(place)}, capture_output=True, text=True, check=True
    )
    return Path(done.stdout.strip())


def test_it_goes_with_all_that_is_in_it(place: Path) -> None:
    mine = Scratch()
    (mine.path / "inside").mkdir()
    (mine.path / "inside" / "file").write_text("text")
    mine.remove()
    assert list(place.iterdir()) == []


def test_what_a_killed_owner_left_is_removed_by_the_next(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = abandon(place)
    young = Scratch()
    assert folder.exists(), "it may be one that is just being made"
    monkeypatch.setattr(scratch, "SETTLED", -1.0)
    other = Scratch()
    assert not folder.exists()
    assert young.path.exists(), "its owner lives"
    young.remove()
    other.remove()


def test_what_is_not_ours_is_left_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "SETTLED", -1.0)
    target = place / "elsewhere"
    target.mkdir()
    (place / f"{scratch.PREFIX}link").symlink_to(target)
    (place / f"{scratch.PREFIX}file").write_text("a file")
    (place / "tilewright-report").mkdir()
    Scratch().remove()
    assert {path.name for path in place.iterdir()} == {
        "elsewhere",
        f"{scratch.PREFIX}link",
        f"{scratch.PREFIX}file",
        "tilewright-report",
    }
