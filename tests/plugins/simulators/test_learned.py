"""The simulator `learned` against the FireSim measurements that it was not fitted to."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from tilewright import loopnest as ln
from tilewright.plugins.simulators.learned import Learned, dosa_network
from tilewright.plugins.simulators.learned.features import MECHANISMS
from tilewright.plugins.simulators.learned.model import Predictor, fit
from tilewright.plugins.simulators.learned.rows import POINTS, RANDOM, SIDE, parse, read
from tilewright.plugins.simulators.learned.train import described, figures, left_out, main
from tilewright.protocol import registry
from tilewright.protocol.architecture import Architecture
from tilewright.protocol.context import HostContext
from tilewright.protocol.errors import InvalidInput, InvalidMapping
from tilewright.protocol.plugin import Budget, Options, SimRequest
from tilewright.testing import SimulatorConformance, samples


def gemmini() -> Architecture:
    built: Architecture = registry.load("targets", "gemmini").architecture()
    return built


class TestLearned(SimulatorConformance):
    name = "learned"

    def architecture(self) -> Architecture:
        return gemmini()


class TestWithoutRoofline(TestLearned):
    options: ClassVar[Options] = {"predictor": "learned"}


def test_rows_are_those_that_could_run() -> None:
    """1,077 of the 1,567 random mappings and 96 points; a mapping is read as it is written."""
    assert (len(read(RANDOM)), len(read(POINTS))) == (1077, 96)
    mapping = parse("L3[WIO] K8 Q28 - L2[WI] N1 K4X - L1[O] K2 S7 R7 Q4 P7 C3X - L0[W] P16")
    assert [(loop.dim, loop.factor) for loop in mapping.levels[1].temporal] == [("P", 7), ("Q", 4), ("R", 7), ("S", 7), ("K", 2)]
    assert [(loop.dim, loop.factor) for level in mapping.levels for loop in level.spatial] == [("C", 3), ("K", 4)]
    assert mapping.levels[3].keep == ("Weights", "Inputs", "Outputs")


def test_roofline_is_the_published_one() -> None:
    """DOSA's analytical cycles stand in the data; a release of its traffic rules apart they are ours."""
    points = read(POINTS)
    ours, published = described(points).columns["roofline"], np.array([row.analytical for row in points])
    assert np.mean(np.abs(ours / published - 1) < 1e-3) > 0.85
    rank, error = figures(published, np.array([row.cycles for row in points]))
    assert (round(rank, 2), round(error)) == (0.80, 27)


def test_roofline_and_learning_beat_the_roofline_on_networks_left_out() -> None:
    random, points = read(RANDOM), read(POINTS)
    measured = np.array([row.cycles for row in points])
    found = {name: figures(predicted, measured) for name, predicted in left_out(random, points).items()}
    assert found["both"][0] > found["analytical"][0] + 0.04
    assert found["both"][1] < found["analytical"][1] - 3
    assert found["both"][0] > 0.80
    assert found["both"][1] < 27


def test_shipped_numbers_are_the_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(tmp_path / "weights.npz")
    assert "both       Spearman 0.8" in capsys.readouterr().out
    again, stored, about = Predictor.load(tmp_path / "weights.npz"), Predictor.load(), described(read(POINTS))
    for name in ("learned", "both"):
        assert getattr(again, name)(about) == pytest.approx(getattr(stored, name)(about), rel=0.02)


def test_shares_are_those_of_a_machine_that_is_known() -> None:
    """Cycles made of three of the mechanisms, one after the other, are learnt again."""
    random = read(RANDOM)
    about = described(random)
    shares = np.array([0.0, 1.0, 0.0, 0.5, 0.5, 0, 0, 0, 0, 0])
    predictor = fit(about, about.table(MECHANISMS) @ shares, SIDE)
    assert float(predictor.numbers["degree"]) == pytest.approx(1, abs=0.05)
    assert predictor.numbers["shares"] == pytest.approx(shares, abs=0.06)


def simulate(architecture: Architecture, **options: str) -> None:
    schedules = (samples.schedule(samples.OPERATORS["matmul"], architecture),)
    ctx = HostContext("simulators", "learned", Budget())
    registry.load("simulators", "learned").run(SimRequest(schedules, architecture, dict(options)), ctx)


def test_what_it_cannot_say_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"options.predictor: 'oracle', expected one of both, analytical, learned"):
        simulate(gemmini(), predictor="oracle")
    with pytest.raises(InvalidInput, match=r"learned: levels .*, expected those of gemmini"):
        simulate(samples.architecture())
    operator = samples.OPERATORS["matmul"]
    schedule = samples.schedule(operator, gemmini())
    small = registry.load("targets", "gemmini").architecture(pe=2)
    wide = parse("L3[WIO] N1 - L2[WI] K16X - L1[O] P4 C16X - L0[W] N1")
    request = SimRequest((type(schedule)(operator, wide, schedule.cost, schedule.claim, "edp", ""),), small)
    with pytest.raises(InvalidMapping, match="schedule 0: "):
        Learned().run(request, HostContext("simulators", "learned", Budget()))


def test_searches_ask_for_batches() -> None:
    operator = samples.OPERATORS["matmul"]
    problem = ln.Problem(operator, gemmini())
    batch = ln.Batch.from_mappings(problem, [samples.outermost(operator, gemmini())] * 3)
    cycles = registry.load("simulators", "learned").cycles(batch)
    assert cycles.shape == (3,)
    assert (cycles >= operator.macs / 256).all()


def test_published_network_sees_factors_orders_and_layer() -> None:
    """Seven dims of spatial and temporal factors and order positions at four levels, nine figures of the layer; it only adds cycles."""
    rows = read(RANDOM)[:24]
    table = dosa_network.inputs(rows)
    assert table.shape == (24, 4 * 3 * 7 + 9)
    cycles = np.array([row.cycles for row in rows])
    one, two = (dosa_network.trained(table, cycles, 0 * cycles, table[:5], epochs=2, seed=3) for _ in range(2))
    assert one.tolist() == two.tolist()
    assert (one > 0).all()
