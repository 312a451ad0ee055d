"""``simulate MODEL --trace FILE``: who may draw, what is written, and how it leaves."""

import json
from types import SimpleNamespace

import pytest
import typer

from tilewright.protocol.errors import InvalidInput
from tilewright.services.cli import timeline
from tilewright.services.cli.options import RunOptions
from tilewright.services.cli.report import gather


class Draws:
    def timeline(self, schedules, architecture, options):
        return {"traceEvents": [[name, schedule.operator.macs] for name, schedule in schedules], "options": options}


@pytest.fixture
def house(monkeypatch, state, answers):
    """A run that ends at once, of a simulator that draws."""
    report = gather(state, answers, {})

    def start(said, stages, named):
        named("the-run")
        raise typer.Exit(3)

    monkeypatch.setattr(timeline, "running", SimpleNamespace(start=start))
    monkeypatch.setattr(timeline, "connect", SimpleNamespace(talk=lambda work: report))
    monkeypatch.setattr(timeline, "registry", SimpleNamespace(load=lambda kind, name: Draws()))
    return report


def options(**said):
    return RunOptions(model="toy-net", target="toy", simulator="draws", **said)


def test_the_layers_that_have_a_mapping_are_drawn(house, tmp_path, capsys):
    with pytest.raises(typer.Exit) as left:
        timeline.simulate(options(simulator_option=["latency=7"]), tmp_path / "t.json")
    assert left.value.exit_code == 3
    written = json.loads((tmp_path / "t.json").read_text())
    assert [name for name, _ in written["traceEvents"]] == [layer.name for layer in house.mapped]
    assert written["options"] == {"latency": 7}
    assert "t.json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "name", "text"), [({"detach": True}, "t.json", "no --detach"), ({}, "nowhere/t.json", "nowhere does not exist")]
)
def test_what_cannot_be_written_is_said_before_anything_runs(house, tmp_path, said, name, text):
    with pytest.raises(InvalidInput, match=text):
        timeline.simulate(options(**said), tmp_path / name)


def test_a_simulator_without_timeline_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(timeline, "registry", SimpleNamespace(load=lambda kind, name: object()))
    with pytest.raises(InvalidInput, match="the simulator draws draws no timeline"):
        timeline.simulate(options(), tmp_path / "t.json")
