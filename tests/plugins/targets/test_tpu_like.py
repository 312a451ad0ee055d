"""`tpu_like` against the published runs of ZigZag and AccelForge, which agree on these figures to the last digit.

Conv 64 -> 64, 3 x 3, 56 x 56 (ResNet-50), mapped as ZigZag's best: outer to inner K2 OX56 OY56 FX3 FY3 C2, C32 x K32 spatial.
"""

from __future__ import annotations

import pytest

from tilewright import loopnest as ln
from tilewright.protocol import registry
from tilewright.protocol.cost import Cost
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS, Operator, conv2d, matmul


def priced(operator: Operator, mapping: Mapping) -> Cost:
    target = registry.load("targets", "tpu_like")
    return ln.cost(ln.Problem(operator, target.architecture(), target.constraints()), mapping)


@pytest.fixture(scope="module")
def cost() -> Cost:
    # The weights of two input-channel tiles and nine taps rest in the register file; one output accumulates at a time.
    mapping = Mapping(
        (
            LevelMapping("OutputRegister", temporal=(Loop("C", 2), Loop("S", 3), Loop("R", 3)), keep=(OUTPUTS,)),
            LevelMapping("WeightRegister", keep=(WEIGHTS,)),
            LevelMapping(
                "SRAM",
                spatial=(Loop("K", 32, "X"), Loop("C", 32, "Y")),
                temporal=(Loop("Q", 56), Loop("P", 56), Loop("K", 2)),
                keep=(INPUTS, OUTPUTS),
            ),
            LevelMapping("DRAM", keep=(WEIGHTS, INPUTS, OUTPUTS)),
        )
    )
    return priced(conv2d(r=3, s=3, p=56, q=56, c=64, k=64), mapping)


def energy(cost: Cost, component: str, tensor: str | None = None, action: str | None = None) -> float:
    rows = [row for row in cost.energy if row.component == component]
    return sum(row.energy_pj for row in rows if tensor in (None, row.tensor) and action in (None, row.action))


def test_compute(cost: Cost) -> None:
    assert energy(cost, "MAC") == pytest.approx(4_624_220, abs=0.5)


def test_weight_register(cost: Cost) -> None:
    """One read per MAC and one fill per weight."""
    assert energy(cost, "WeightRegister") == pytest.approx(10_986_025, abs=0.5)


def test_sram(cost: Cost) -> None:
    """Inputs leave once per MAC and column; outputs are written once (ZigZag also charges reading them on their way out)."""
    assert energy(cost, "SRAM", INPUTS) == pytest.approx(6_191_084, abs=1)
    drained = 200_704 / 256 * 416.16
    assert energy(cost, "SRAM", OUTPUTS) + drained == pytest.approx(622_935, abs=1)


def test_dram_is_the_compulsory_minimum(cost: Cost) -> None:
    assert energy(cost, "DRAM", INPUTS) == pytest.approx(18_838_400)
    assert energy(cost, "DRAM", WEIGHTS) == pytest.approx(3_225_600)
    assert energy(cost, "DRAM", OUTPUTS) == pytest.approx(18_816_000)


def test_cycles_are_the_compute_bound(cost: Cost) -> None:
    """AccelForge's latency, the maximum over components: one MAC per PE and cycle."""
    assert cost.cycles == 112_896
    assert cost.utilization == 1


def test_weights_rest_while_rows_pass() -> None:
    """A tile of columns wider than the array rests in the register files, and every weight leaves DRAM and enters one once."""
    rows, side = 8, 32
    mapping = Mapping(
        (
            LevelMapping("OutputRegister", temporal=(Loop("C", 2),), keep=(OUTPUTS,)),
            LevelMapping("WeightRegister", temporal=(Loop("K", 4), Loop("P", rows)), keep=(WEIGHTS,)),
            LevelMapping("SRAM", spatial=(Loop("K", side, "X"), Loop("C", side, "Y")), keep=(INPUTS, OUTPUTS)),
            LevelMapping("DRAM", keep=(WEIGHTS, INPUTS, OUTPUTS)),
        )
    )
    cost = priced(matmul(p=rows, c=2 * side, k=4 * side), mapping)
    weights = 2 * side * 4 * side
    assert energy(cost, "DRAM", WEIGHTS) == weights / 8 * 700
    assert energy(cost, "WeightRegister", WEIGHTS, "fill") == pytest.approx(weights * 0.095)
