"""Answers brought together: figures against sums made by hand, tables against what a user must find in them."""

from __future__ import annotations

import io
import math

import msgspec
import pytest
from rich.console import Console, RenderableType

from tilewright.protocol.cost import Claim
from tilewright.protocol.messages import Answer, Failure, Mapped, Profile, Simulated
from tilewright.protocol.run import RunState, RunStatus, TaskRecord
from tilewright.protocol.workload import Workload
from tilewright.services.cli import explain, tables
from tilewright.services.cli.report import Report, gather, summary

#: One unit does one MAC per cycle and everything lies in the buffer: layer 0 (twice) is 8 x 16 x 8, layer 1 8 x 16 x 16.
CYCLES = (8 * 16 * 8, 8 * 16 * 16)


def text(renderable: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=170, markup=False, highlight=False).print(renderable)
    return out.getvalue()


@pytest.fixture
def report(state: RunState, answers: dict[str, Answer]) -> Report:
    return gather(state, answers, {})


def by_hand(answers: dict[str, Answer], *counts: int) -> float:
    """pJ: rows of both layers, each as often as it occurs."""
    total = 0.0
    for index, count in enumerate(counts):
        mapped = answers[f"map-{index}"]
        assert isinstance(mapped, Mapped) and mapped.schedule is not None
        total += count * sum(row.count * row.each_pj for row in mapped.schedule.cost.energy)
    return total


def test_totals_count_occurrences(report: Report, answers: dict[str, Answer]) -> None:
    assert [(layer.name, layer.count) for layer in report.layers] == [("layer0", 2), ("layer1", 1), ("layer3", 1)]
    assert report.cycles == 2 * CYCLES[0] + CYCLES[1]
    assert math.isclose(report.energy_pj, by_hand(answers, 2, 1))
    assert math.isclose(report.edp, report.energy_pj * report.cycles)
    assert report.utilization == 0.25
    assert report.seconds == pytest.approx(report.cycles / 1e9)
    assert list(report.binding.values()) == [pytest.approx(1.0)]


def test_the_summary_is_in_base_units_with_units_in_its_keys(report: Report, answers: dict[str, Answer]) -> None:
    said = msgspec.json.decode(msgspec.json.encode(summary(report, "d" * 64)))
    assert said["run"] == "01kb9a2c3d4e5f6g7h8j"
    assert (said["status"], said["exit_code"], said["digest"]) == ("partial", 3, "d" * 64)
    assert said["totals"]["cycles"] == 2 * CYCLES[0] + CYCLES[1]
    assert said["totals"]["energy_pj"] == pytest.approx(by_hand(answers, 2, 1))
    assert (said["totals"]["layers"], said["totals"]["mapped"]) == (3, 2)
    first, _, last = said["layers"]
    assert first["cycles"] == CYCLES[0]
    assert first["edp_pj_cycles"] == pytest.approx(first["energy_pj"] * first["cycles"])
    assert first["claim"] == {"kind": "best found", "mapspace": "one", "lower_bound": None, "gap": 0.25}
    assert first["simulated"]["same_model"] is True
    assert first["kernel"]["status"] == "verified"
    assert "energy_pj" not in last and "capacity of Buffer" in last["reason"]
    assert said["design"]["cores"] == [{"name": "toy", "parameters": {"buffer_kib": 4}}]
    assert said["design"]["edp_ratio"] == pytest.approx(said["design"]["baseline"]["edp_pj_cycles"] / said["design"]["edp_pj_cycles"])
    assert said["stages"]["map"] == {"total": 3, "cached": 2, "done": 3, "empty": 1, "failed": 0, "skipped": 0, "outstanding": 0}


def test_tables_show_what_a_user_looks_for(report: Report) -> None:
    shown = text(tables.report(report, 160))
    for words in (
        "Layers (figures of one occurrence)",
        "layer0  2",
        "EDP [J·cycles]",
        "best found, gap <= 25.0 %",
        "same model",
        "no mapping for layer3: none of 7 tried is valid: 7 break capacity of Buffer (by 3 or more). Smallest change",
        "latency 4.10 kcycles = 4.10 µs at 1 GHz",
        "utilization 25.0 %",
        "(of the 2 of 3 layers that have a mapping)",
        "binds 100.0 % of the cycles",
        "buffer_kib [KiB]",
        "4 evaluations",
        "simulated: same model",
        "2 generated, 1 verified (12 cases with cc 12, worst error 0.12 of the bound)",
        "not verified: no C compiler",
        "target 'toy' has no emitter: host kernels",
    ):
        assert words in shown


@pytest.mark.parametrize(
    ("status", "why"),
    [("done", "incomplete: a time limit cut the search"), ("cancelled", "incomplete: the run was cancelled")],
)
def test_an_incomplete_search_says_what_cut_it(report: Report, status: RunStatus, why: str) -> None:
    assert report.codesigned is not None
    assert "incomplete" not in text(tables.report(report, 160))
    cut = msgspec.structs.replace(
        report,
        state=msgspec.structs.replace(report.state, status=status),
        codesigned=msgspec.structs.replace(report.codesigned, complete=False),
    )
    assert why in text(tables.report(cut, 160))


def test_a_run_that_was_only_profiled(state: RunState, answers: dict[str, Answer]) -> None:
    shown = text(tables.report(gather(state, {"profile-0": answers["profile-0"]}, {}), 160))
    assert "Operators (figures of one occurrence)" in shown and "compute" in shown
    # Each layer: 256 cycles at the roofline, four occurrences.
    assert "at least 1.02 kcycles at the roofline" in shown


def test_a_run_without_answers_shows_nothing(state: RunState) -> None:
    empty = gather(state, {}, {})
    assert text(tables.report(empty, 160)).strip() == ""
    assert empty.utilization == empty.seconds == empty.cycles == 0
    assert summary(empty)["totals"] is None


def test_failed_tasks_say_why(state: RunState, answers: dict[str, Answer]) -> None:
    del answers["map-1"], answers["kernel-0"]
    failure = Failure("crash", "killed by signal 9")
    records = {task: TaskRecord(task, "x", "failed", failure=failure) for task in ("map-1", "kernel-0")}
    shown = text(tables.report(gather(state, answers, records), 160))
    assert "no mapping for layer1: crash: killed by signal 9" in shown
    assert "no kernel for layer0: crash: killed by signal 9" in shown


def test_an_independent_simulation_is_compared(state: RunState, answers: dict[str, Answer]) -> None:
    base = answers["simulate-0"]
    assert isinstance(base, Simulated)
    slower = tuple(msgspec.structs.replace(cost, cycles=cost.cycles * 11 // 10) for cost in base.costs)
    answers["simulate-0"] = Simulated(slower, "gemmini/1", same_model=False)
    shown = text(tables.report(gather(state, answers, {}), 160))
    assert "cycles +10.0 %, energy +0.0 %" in shown


def test_a_simulator_says_why_it_differs(state: RunState, answers: dict[str, Answer]) -> None:
    base = answers["simulate-0"]
    assert isinstance(base, Simulated)
    costs = tuple(msgspec.structs.replace(cost, cycles=2 * cost.cycles) for cost in base.costs)
    shares = tuple({"array: drain": 0.5} for _ in costs)
    answers["simulate-0"] = Simulated(costs, "gemmini/1", False, shares, tuple(f"reason {index}" for index in range(len(costs))))
    report = gather(state, answers, {})
    shown = text(tables.report(report, 160))
    assert "Cycles, predicted and simulated" in shown
    assert "+100.0 %" in shown and "reason 0" in shown
    layer = summary(report)["layers"][0]
    assert layer["simulated"]["reason"] == "reason 0"
    assert layer["simulated"]["attribution"] == {"array: drain": 0.5}


def test_simulated_costs_go_to_the_layers_that_have_a_mapping(state: RunState, answers: dict[str, Answer]) -> None:
    answers["map-0"], answers["map-2"] = answers["map-2"], answers["map-0"]
    layers = gather(state, answers, {}).layers
    base = answers["simulate-0"]
    assert isinstance(base, Simulated)
    assert [layer.simulated for layer in layers] == [None, *base.costs]


def test_claims_in_words() -> None:
    assert tables.claim(Claim("optimal", "uneven")) == "optimal (uneven)"
    assert tables.claim(Claim("proxy optimum", "cosa")) == "proxy optimum"
    assert tables.claim(Claim("best found", gap=0.013)) == "best found, gap <= 1.3 %"


def test_explain(report: Report, answers: dict[str, Answer]) -> None:
    shown = text(explain.overview(report))
    assert "What binds each layer" in shown and "none of 7 tried is valid" in shown
    full = text(explain.in_full(report.layers[0]))
    for words in (
        "P=8 C=16 K=8",
        "for K in 8",
        "Cycles that each resource needs",
        "tile [words]",
        "Claim: best found, gap <= 25.0 % in one",
        "same model",
    ):
        assert words in full
    assert "Claim: best found, gap <= 25.0 % in one" in full
    assert "none of 7 tried is valid" in text(explain.in_full(report.layers[2]))


def test_many_layers_are_cut(state: RunState, answers: dict[str, Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_LAYERS", 1)
    assert isinstance(answers["profile-0"], Profile)
    assert "... and 2 more (see --json)" in text(tables.report(gather(state, answers, {}), 160))


def test_narrow_terminals_get_fewer_columns(report: Report) -> None:
    shown = [text(tables.layers(report, width)) for width in (80, 95, 105, 120, 160)]
    assert ["util." in each for each in shown] == [False, True, True, True, True]
    assert ["EDP" in each for each in shown] == [False, False, True, True, True]
    assert ["same model" in each for each in shown] == [False, False, False, True, True]
    assert ["% energy" in each for each in shown] == [False, False, False, False, True]
    assert all("layer3" in each and "no mapping" in each for each in shown)


def test_operators_of_one_module_are_told_apart(state: RunState, answers: dict[str, Answer]) -> None:
    profile = answers["profile-0"]
    assert isinstance(profile, Profile)
    items = [("attention", task.operator) for task in profile.workload.tasks]
    answers["profile-0"] = msgspec.structs.replace(profile, workload=Workload.build("m", items))
    names = [layer.name for layer in gather(state, answers, {}).layers]
    assert names == ["attention P8 C16 K8", "attention P8 C16 K16", "attention P8 C16 K32"]
