"""``map``'s races and mapspaces, budgets as words, loop nests with a column per operand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console, RenderableType
from typer.testing import CliRunner, Result

from tilewright import loopnest as ln
from tilewright.protocol import registry
from tilewright.protocol.context import HostContext
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.plugin import Budget, BudgetExhausted, MapRequest
from tilewright.protocol.workload import matmul
from tilewright.services.cli import calibrate, mapping, options, parse, race, race_tables
from tilewright.services.cli.app import app
from tilewright.services.cli.mapspace import Spread
from tilewright.services.cli.nest import loop_nest

TOY = ("map", "toy-net", "--frontend", "toy", "--target", "toy")


def tilewright(*words: str) -> Result:
    return CliRunner().invoke(app, words, env={"COLUMNS": "300"})


def text(table: RenderableType) -> list[str]:
    console = Console(width=300, highlight=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get().splitlines()


@pytest.mark.parametrize(("said", "seconds"), [("", None), ("30", 30.0), ("30s", 30.0), ("500ms", 0.5), ("2 min", 120.0), (".5h", 1800.0)])
def test_times(said: str, seconds: float | None) -> None:
    assert parse.seconds("--time", said) == seconds


@pytest.mark.parametrize(("said", "share"), [("", None), ("0.01", 0.01), ("1%", 0.01), ("2.5 %", 0.025), ("0", 0.0)])
def test_shares(said: str, share: float | None) -> None:
    assert parse.share("--until-gap", said) == (None if share is None else pytest.approx(share))


@pytest.mark.parametrize("said", ["0", "-1s", "soon", "3 days", "1e400h"])
def test_what_is_no_time(said: str) -> None:
    with pytest.raises(InvalidInput, match=r"--time .*expected a time above 0"):
        parse.seconds("--time", said)


@pytest.mark.parametrize("said", ["-1%", "much", "nan", "inf", "true"])
def test_what_is_no_share(said: str) -> None:
    with pytest.raises(InvalidInput, match=r"--until-gap .*expected a share"):
        parse.share("--until-gap", said)


def test_a_loop_nest_names_the_memory_of_each_operand() -> None:
    found = Mapping(
        (
            LevelMapping("Register", (), (Loop("P", 2),), ("Weights",)),
            LevelMapping("Buffer", (Loop("K", 4, "Y"),), (Loop("C", 3), Loop("P", 1)), ("Inputs", "Outputs")),
            LevelMapping("DRAM", (), (Loop("K", 5), Loop("P", 7)), ("Weights", "Inputs", "Outputs")),
        )
    )
    rows = [line.split() for line in text(loop_nest(matmul(p=14, c=3, k=20), found))[2:]]
    assert rows == [
        ["for", "P", "in", "7", "DRAM", "(DRAM)", "DRAM", "DRAM"],
        ["for", "K", "in", "5", "DRAM", "DRAM", "(DRAM)", "DRAM"],
        ["for", "C", "in", "3", "Buffer", "DRAM", "Buffer", "(Buffer)"],
        ["parallel-for", "K", "in", "4", "(Y)", "Buffer", "DRAM", "(Buffer)", "Buffer"],
        ["for", "P", "in", "2", "Register", "(Register)", "Buffer", "Buffer"],
    ]


class Scores:
    """An evaluation of energies at one cycle each; negative ones are invalid."""

    def __init__(self, *energies: float) -> None:
        self.energy_pj = np.abs(np.array(energies))
        self.cycles = np.ones(len(energies), dtype=np.int64)
        self.valid = np.array(energies) > 0


def test_a_record_keeps_improvements_at_their_place_in_a_batch() -> None:
    recorder = race.Recorder("edp", race.Limits(10, 1.0))
    recorder.used = lambda: 4
    recorder(Scores(-1, 9, 9, 7))
    recorder.used = lambda: 10  # three were charged without being scored
    recorder(Scores(8, 6, -5))
    assert [(step.evaluations, step.value) for step in recorder.steps] == [(2, 9), (4, 7), (9, 6)]
    recorder(Scores())
    assert len(recorder.steps) == 3


def searched(mapper: str, layer: str, seed: int, *steps: tuple[int, float, float]) -> race.Search:
    return race.Search(mapper, layer, seed, tuple(race.Step(*step) for step in steps), steps[-1][0], steps[-1][1])


RACE = race_tables.Race(
    (
        searched("one", "a", 0, (1, 0.1, 4.0), (500, 2.0, 2.0)),
        searched("one", "a", 1, (1, 0.1, 6.0)),
        searched("one", "b", 0, (150, 0.1, 10.0)),
        searched("other", "a", 0, (90, 0.5, 3.0)),
        searched("other", "a", 1, (90, 0.5, 2.0)),
        searched("other", "b", 0, (5, 0.5, 20.0)),
    ),
    race.Limits(1000, 1.0),
)


def test_a_race_is_judged_by_the_best_of_all() -> None:
    assert RACE.best == {"a": 2.0, "b": 10.0}
    assert sorted(RACE.ratios("one", evaluations=100)) == [2.0, 3.0, math.inf]
    made = RACE.as_json(["one", "other"])
    assert made["one"]["100 evals"] == {"median": 3.0, "worst": None}
    assert made["one"]["1,000 evals"] == {"median": 1.0, "worst": 3.0}
    assert made["one"]["1 s"] == {"median": 2.0, "worst": 3.0}
    assert made["other"]["1 s"] == {"median": 1.5, "worst": 2.0}
    lines = text(RACE.table(["one", "other"], "toy"))
    assert lines[1].split() == ["mapper", "100", "evals", "1,000", "evals", "1", "s", "evals", "CPU"]
    assert lines[2].split()[:4] == ["one", "3.000", "/", "none"]


def test_a_race_of_real_mappers(tmp_path: Path) -> None:
    plot = tmp_path / "race.svg"
    words = ("--race", "random,cosa", "--seeds", "2", "--evals", "300", "--time", "0.01s", "--json", "--plot", str(plot))
    lines = [json.loads(line) for line in tilewright(*TOY, *words).stdout.splitlines()]
    *searches, last = lines
    assert [(each["mapper"], each["seed"]) for each in searches[:4]] == [("random", 0), ("random", 1), ("cosa", 0), ("cosa", 1)]
    for each in searches:
        values = [value for _, _, value in each["steps"]]
        assert values == sorted(values, reverse=True) and len(set(values)) == len(values)
    assert set(last["race"]) == {"random", "cosa"}
    assert plot.read_text().lstrip().startswith("<?xml")
    # The record is what a budget of as many evaluations leaves.
    layer, machine = loaded()
    ctx = HostContext("mappers", "random", Budget(evaluations=100), seed=1)
    problem = ln.Problem(layer.operator, machine.architecture, machine.constraints)
    found = []
    with pytest.raises(BudgetExhausted):
        for candidate in registry.load("mappers", "random").search(
            MapRequest(layer.operator, machine.architecture, machine.constraints), ctx
        ):
            found.append(ln.cost(problem, candidate.mapping).edp)
    recorded = next(each for each in searches if each["layer"] == layer.name and each["mapper"] == "random" and each["seed"] == 1)
    assert min(value for used, _, value in recorded["steps"] if used <= 100) == pytest.approx(min(found), rel=1e-12)


def loaded() -> tuple[mapping.Layer, mapping.Machine]:
    layers, machine = mapping.load(options.RunOptions(model="toy-net", target="toy", frontend="toy"), ())
    return layers[0], machine


def test_layers_are_named_in_full_or_in_part() -> None:
    said = options.RunOptions(model="resnet50", target="simba")
    assert [layer.name for layer in mapping.load(said, ("conv1",))[0]] == ["conv1"]
    assert [layer.name for layer in mapping.load(said, ("fc", "layer2.0.conv", "layer2.0.conv1"))[0]] == [
        "fc", "layer2.0.conv1", "layer2.0.conv2", "layer2.0.conv3",
    ]  # fmt: skip
    assert len(mapping.load(said, ())[0]) == 24


def test_a_race_as_a_table() -> None:
    result = tilewright(*TOY, "--race", "cosa", "--seeds", "1", "--evals", "1", "--time", "1ms", "--layer", "layer0")
    assert result.exit_code == 0
    assert "cosa" in result.stdout and "1.000 / 1.000" in result.stdout


def test_a_mapspace_is_drawn_and_summed_up(tmp_path: Path) -> None:
    plot = tmp_path / "spread.pdf"
    result = tilewright(*TOY, "--mapspace", "2500", "--plot", str(plot), "--layer", "layer0")
    assert result.exit_code == 0 and "2,500" in result.stdout and "layer0" in result.stdout
    assert plot.read_bytes().startswith(b"%PDF")
    lines = [json.loads(line) for line in tilewright(*TOY, "--mapspace", "400", "--json", "--objective", "latency").stdout.splitlines()]
    assert all(line["drawn"] == line["valid"] == 400 for line in lines)
    assert all(1 <= line["p10_over_best"] <= line["median_over_best"] <= line["worst_over_best"] for line in lines)
    layer, machine = loaded()
    bound = layer.operator.macs / machine.architecture.peak_macs_per_cycle
    assert lines[0]["best"] >= bound


def test_a_spread() -> None:
    spread = Spread("a", np.array([2.0, 4.0, 5.9, 6.1, 20.0]), 7, 0.1)
    assert spread.near == 0.6
    assert (spread.quantile(0.5), spread.quantile(1.0)) == (pytest.approx(2.95), 10.0)
    assert spread.as_json()["share_within_3x"] == 0.6
    assert "best" not in Spread("a", np.empty(0), 3, 0.1).as_json()


def test_weights_are_fitted_to_half_of_the_layers() -> None:
    said = options.RunOptions(model="resnet50", target="simba")
    layers, machine = mapping.load(said, ("layer2.0.conv1", "layer4.0.conv3", "layer2.0.conv3"))
    fit = calibrate.Calibration(said, machine).fit(layers)
    assert fit.fitted < 1, "on this machine the released weights are not the best"
    assert fit.unseen is not None and fit.solved >= 9
    found = []
    for layer in layers[::2]:
        for weights in ("0.1,10,1", fit.option.removeprefix("weights=")):
            ctx = HostContext("mappers", "cosa", Budget())
            request = MapRequest(layer.operator, machine.architecture, machine.constraints, options={"weights": weights})
            (candidate,) = registry.load("mappers", "cosa").search(request, ctx)
            found.append(ln.cost(ln.Problem(layer.operator, machine.architecture, machine.constraints), candidate.mapping).edp)
    assert fit.fitted == pytest.approx(math.sqrt(found[1] / found[0] * found[3] / found[2]), rel=1e-4)


def test_a_fit_is_printed() -> None:
    result = tilewright(*TOY[:-2], "--target", "gemmini", "--calibrate", "--layer", "layer0")
    assert result.exit_code == 0 and "--mapper cosa --mapper-option weights=" in result.stdout
    assert json.loads(tilewright(*TOY[:-2], "--target", "gemmini", "--calibrate", "--layer", "layer0", "--json").stdout)["unseen"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--race", "cosa", "--mapspace", "5"), "--race, --mapspace and --calibrate: expected one of them"),
        (("--race", "cosy"), "--race: mapper 'cosy' is not installed; did you mean 'cosa'?"),
        (("--race", "cosa,cosa"), "expected mappers, each once"),
        (("--race", "cosa", "--layer", "layr0"), "--layer 'layr0' does not exist"),
        (("--layer", "layer0"), "--layer layer0: expected --race, --mapspace or --calibrate beside it"),
        (("--plot", "x.svg"), "--plot x.svg: expected --race, --mapspace or --calibrate beside it"),
        (("--race", "cosa", "--plot", "x.doc"), "--plot x.doc: expected a name that ends in one of"),
        (("--mapspace", "9", "--plot", "no/where/x.svg"), "the folder no/where does not exist"),
        (("--calibrate", "--mapper", "cosa", "--mapper-option", "weights=1,2,3"), "expected no --mapper-option weights"),
        (("--time", "soon"), "--time 'soon': expected a time above 0"),
        (("--until-gap", "some"), "--until-gap 'some': expected a share"),
    ],
)
def test_what_cannot_be_is_said(words: tuple[str, ...], said: str) -> None:
    result = tilewright(*TOY, "--mapper", "toy", *words)
    assert result.exit_code == 2
    assert said in result.stderr
