"""``codesign``: limits are checked before anything starts, fronts are drawn from what came out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
import typer
from rich.console import Console, Group

from tilewright import loopnest as ln
from tilewright.protocol import registry
from tilewright.protocol.cost import Claim
from tilewright.protocol.design import Core, Design, FrontPoint, ScheduledTask
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.messages import Codesigned
from tilewright.services.cli import codesigning, connect, options, running, tables
from tilewright.testing import samples

TASK = samples.workload().tasks[0]
DESIGN = Design(
    (Core("core", samples.architecture(), {"pe": 16}),),
    (ScheduledTask(samples.schedule(TASK.operator, samples.architecture()), 1, TASK.name),),
    "edp",
    Claim(),
)
FRONT = (FrontPoint({"pe": 8}, 1e6, 4000, 0.5), FrontPoint({"pe": 16}, 2e6, 1000, 1.5))
FOUND = Codesigned(DESIGN, DESIGN, 10, True, FRONT)
SAID = options.RunOptions(model="bert-base", target="gemmini")


@pytest.mark.parametrize(
    ("typed", "target", "meant"),
    [
        ({"area": 3.0}, "gemmini", {"area_mm2": 3.0}),
        ({"latency": 1e6, "pe": 32}, "gemmini", {"cycles": 1e6, "pe": 32}),
        ({"anything": 1.0}, "", {"anything": 1.0}),
    ],
)
def test_limits_have_names_that_services_know(typed: dict[str, float], target: str, meant: dict[str, float]) -> None:
    assert codesigning.limits(typed, target) == meant


@pytest.mark.parametrize(
    ("typed", "target", "text"),
    [
        ({"area": 3.0}, "simba", "--limit area_mm2=3: the target simba states no area, expected a target whose components do"),
        ({"pee": 3.0}, "gemmini", "--limit pee=3: unknown to the target gemmini; did you mean 'pe'?"),
    ],
)
def test_limits_that_cannot_hold_are_refused(typed: dict[str, float], target: str, text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        codesigning.limits(typed, target)
    assert str(caught.value) == text


def test_fronts_are_drawn(tmp_path: Path) -> None:
    codesigning.draw(FOUND, tmp_path / "front.svg")
    codesigning.draw(msgspec.structs.replace(FOUND, front=(FrontPoint({"pe": 8}, 1e6, 4000),)), tmp_path / "one.svg")
    two, one = ((tmp_path / name).read_text() for name in ("front.svg", "one.svg"))
    assert "EDP (uJ x cycles)" in two
    assert "EDP (uJ x cycles)" not in one
    assert all(ElementTree.fromstring(each).tag.endswith("svg") for each in (two, one))


def test_fronts_are_a_table() -> None:
    console = Console(width=120)
    with console.capture() as shown:
        console.print(Group(*tables.front(FOUND)))
    text = shown.get()
    assert "Pareto fronts" in text
    assert "0.50 mm2" in text
    assert tables.front(msgspec.structs.replace(FOUND, front=FRONT[:1])) == ()


def test_a_plot_is_drawn_when_the_run_has_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def start(said: options.RunOptions, stages: object, *, named: object = None) -> None:
        if named is not None:
            named("a-run")  # type: ignore[operator]
        raise typer.Exit(0)

    monkeypatch.setattr(running, "start", start)
    monkeypatch.setattr(connect, "talk", lambda work: FOUND)
    with pytest.raises(typer.Exit):
        codesigning.start(SAID, tmp_path / "front.svg")
    assert (tmp_path / "front.svg").exists()
    with pytest.raises(typer.Exit):
        codesigning.start(SAID, None)


def test_plots_are_checked_before_anything_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(running, "start", lambda *arguments, **more: pytest.fail("it started"))
    with pytest.raises(InvalidInput, match=r"the folder .* does not exist"):
        codesigning.start(SAID, tmp_path / "nowhere" / "front.svg")
    detached = options.RunOptions(model="bert-base", target="gemmini", detach=True)
    with pytest.raises(InvalidInput, match=r"--plot .* and --detach: expected one of them"):
        codesigning.start(detached, tmp_path / "front.svg")


def test_the_winner_is_written_as_files_that_say_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What Timeloop's files say costs what the design says."""

    def start(said: options.RunOptions, stages: object, *, named: Callable[[str], None]) -> None:
        named("a-run")
        raise typer.Exit(0)

    monkeypatch.setattr(running, "start", start)
    monkeypatch.setattr(connect, "talk", lambda work: FOUND)
    with pytest.raises(typer.Exit):
        codesigning.start(SAID, None, tmp_path / "winner")
    (folder,) = (tmp_path / "winner").iterdir()
    assert folder.name == TASK.name
    document = registry.load("formats", "timeloop").read(sorted(str(path) for path in folder.glob("*.yaml")))
    again = ln.cost(ln.Problem(document.operator, document.architecture), document.mapping)
    assert again.cycles == DESIGN.cycles
    assert again.energy_pj == pytest.approx(DESIGN.energy_pj, rel=1e-6)
    detached = options.RunOptions(model="bert-base", target="gemmini", detach=True)
    with pytest.raises(InvalidInput, match=r"--export .* and --detach: expected one of them"):
        codesigning.start(detached, None, tmp_path / "winner")
