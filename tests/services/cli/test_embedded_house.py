"""The commands in this process, the embedded house beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tilewright.services.cli.app import app
from tilewright.services.runtime.embedded import StateFolder, stop


def tilewright(*words: str) -> Result:
    return CliRunner().invoke(app, words)


@pytest.fixture
def state(tmp_path: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StateFolder]:
    folder = StateFolder(tmp_path / "state")
    monkeypatch.setenv("TILEWRIGHT_STATE", str(folder.path))
    monkeypatch.setenv("PYTHONPATH", str(toy))
    yield folder
    stop(folder)


def test_up_run_down(state: StateFolder) -> None:
    done = tilewright("up")
    assert done.exit_code == 0 and "`tilewright down` stops them" in done.stdout
    assert state.stay
    names = [json.loads(line)["name"] for line in tilewright("services", "--json").stdout.splitlines()]
    assert len(names) == 6
    assert "pipeline" in tilewright("services").stdout
    common = ("toy-net", "--frontend", "toy", "--target", "toy", "--mapper", "toy")
    mapped = tilewright("map", *common)
    assert mapped.exit_code == 0
    assert "layer0" in mapped.stdout and str(state.store) in mapped.stdout
    simulated = tilewright("simulate", *common, "--json")
    assert json.loads(simulated.stdout.splitlines()[-1])["status"] == "done"
    run = json.loads(tilewright("profile", *common[:5], "--detach", "--json").stdout)["run"]
    assert tilewright("attach", run).exit_code == 0
    assert tilewright("admin", "init").stdout == "everything is there already\n"
    assert tilewright("down").stdout == "down: everything has stopped\n"
    assert not state.supervised and not state.stay
    assert tilewright("down").stdout == "down: nothing was running\n"
    assert json.loads(tilewright("down", "--json").stdout) == {"stopped": False}


def test_up_says_which_service_does_not_answer(state: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from tilewright.services.cli import house

    monkeypatch.setattr(house, "PATIENCE", 3.0)
    monkeypatch.setattr(house, "NAMES", ("pipeline", "missing"))
    result = tilewright("up")
    assert result.exit_code == 5
    assert "no answer from missing" in result.stderr
