"""Rows of a cost: they add up, networks and non-linear operators included; and explanations lead to the same numbers."""

from __future__ import annotations

import math

import msgspec
import nests
import pytest

from tilewright import loopnest as ln
from tilewright.protocol.architecture import Architecture, Compute, Estimator, Level, Network, SpecialFunctionUnit
from tilewright.protocol.errors import InvalidInput, InvalidMapping
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.workload import conv2d, elementwise, matmul

OP = matmul(p=8, c=6, k=4)
PRICES = {"read_energy_pj": 2.0, "fill_energy_pj": 3.0, "update_energy_pj": 5.0}
NEST = Mapping(
    (
        LevelMapping("Register", (), (Loop("C", 3),), nests.TENSORS),
        LevelMapping("Buffer", (Loop("K", 4, "X"), Loop("C", 2, "Y")), (Loop("P", 2),), nests.TENSORS),
        LevelMapping("DRAM", (), (Loop("P", 4),), nests.TENSORS),
    )
)


def machine(network: Network | None = None) -> Architecture:
    return Architecture(
        "net",
        Compute("MAC", 8, 4, 2, energy_pj=0.25, area_mm2=0.5),
        (
            Level(
                "Register",
                8 * 16,
                instances=8,
                mesh_x=4,
                mesh_y=2,
                keeps=nests.TENSORS,
                leakage_pj_per_cycle=0.125,
                area_mm2=0.25,
                **PRICES,
            ),
            Level("Buffer", 8 * 256, keeps=nests.TENSORS, network=network, shared_bandwidth=8.0, area_mm2=3.0, **PRICES),
            Level("DRAM", keeps=nests.TENSORS, block_words=4, read_energy_pj=Estimator("timeloop-dram"), update_energy_pj=90.0),
        ),
    )


def test_rows_add_up() -> None:
    problem = ln.Problem(OP, machine())
    cost = ln.cost(problem, NEST)
    evaluation = ln.evaluate(ln.Batch.from_mappings(problem, [NEST]))
    assert cost.energy_pj == pytest.approx(float(evaluation.energy_pj[0]), rel=1e-12)
    assert cost.cycles == int(evaluation.cycles[0]) == max(row.cycles for row in cost.latency)
    assert cost.area_mm2 == 8 * 0.5 + 8 * 0.25 + 3.0
    assert cost.model == f"timeloop/{ln.VERSION}"
    leakage = next(row for row in cost.energy if row.action == "leakage")
    assert leakage.energy_pj == 8 * cost.cycles * 0.125


def test_network_words_hops_and_cycles() -> None:
    """Worked by hand: 4 columns x 2 rows, K across, C down; every word of P goes through the buffer's network once."""
    cost = ln.cost(ln.Problem(OP, machine(Network(bandwidth=2.0, hop_energy_pj=0.5))), NEST)
    hops = {row.tensor: row.count for row in cost.energy if row.action == "hop"}
    # Weights: 8 children that differ x 3 words, each to 1 child: (4 + 2) / 2 hops.
    assert hops["Weights"] == 24 * 3
    # Inputs: 2 rows differ x 3 words x 8 positions of P, shared by 4 columns: 3 + 3 further hops.
    assert hops["Inputs"] == 48 * (3 + 3)
    # Outputs: 4 columns differ x 8 positions of P, 2 rows reduced: 3 + 1; nothing comes back, the registers finish their part.
    assert hops["Outputs"] == 32 * (3 + 1)
    network = next(row for row in cost.latency if row.resource == "Buffer network")
    assert network.cycles == math.ceil((24 + 48 + 32) / 2)
    without = {row for row in ln.cost(ln.Problem(OP, machine()), NEST).energy if row.action != "leakage"}
    added = {row for row in cost.energy if row.action != "leakage"} - without
    assert sum(row.energy_pj for row in added) == 0.5 * sum(hops.values())


def test_networks_without_multicast_or_reduction() -> None:
    def traffic(network: Network) -> dict[str, tuple[int, int]]:
        cost = ln.cost(ln.Problem(OP, machine(network)), NEST)
        return {row.tensor: (row.reads, row.updates) for row in cost.traffic if row.level == "Buffer"}

    shared = traffic(Network())
    assert shared["Inputs"] == (48, 0)
    assert shared["Outputs"] == (0, 32)
    assert traffic(Network(multicast=False))["Inputs"] == (4 * 48, 0)
    assert traffic(Network(reduction=False))["Outputs"] == (32, 64)


@pytest.mark.parametrize("semantics", ["timeloop", "walk"])
def test_non_linear_operators_stream_through_the_special_function_unit(semantics: ln.Semantics) -> None:
    op = elementwise("softmax", {"P": 16, "K": 32}, reduced=("K",))
    architecture = msgspec.structs.replace(machine(), special_function_unit=SpecialFunctionUnit(lanes=4, energy_pj=0.5))
    keep = ("Inputs", "Outputs")

    def nest(buffered: int) -> Mapping:
        return Mapping(
            (
                LevelMapping("Register"),
                LevelMapping("Buffer", (), (Loop("K", buffered),), keep),
                LevelMapping("DRAM", (), (Loop("K", 32 // buffered), Loop("P", 16)), keep),
            )
        )

    problem = ln.Problem(op, architecture, semantics=semantics)
    whole, part = ln.cost(problem, nest(32)), ln.cost(problem, nest(8))
    assert whole.energy[0].count == op.flops == 5 * 512
    assert whole.latency[0].cycles == 3 * 512 // 4
    rows = {(name, row.level, row.tensor): row for name, cost in (("whole", whole), ("part", part)) for row in cost.traffic}
    # Three passes over the operand: from the buffer when it holds whole rows, from DRAM when it does not.
    assert rows["whole", "Buffer", "Inputs"].reads == 3 * 512
    if semantics == "timeloop":
        assert rows["whole", "DRAM", "Inputs"].reads == 512
        assert rows["part", "DRAM", "Inputs"].reads == 3 * 512
    assert rows["whole", "DRAM", "Outputs"].updates == 512
    spatial = msgspec.structs.replace(nest(32).levels[1], spatial=(Loop("P", 4, "X"),))
    with pytest.raises(InvalidMapping, match="special-function unit: spatial loops"):
        ln.cost(problem, Mapping((nest(32).levels[0], spatial, LevelMapping("DRAM", (), (Loop("P", 4),), keep))))


def test_further_operands_live_where_inputs_do() -> None:
    op = elementwise("add", {"P": 4, "K": 8}, operands=2)
    architecture = msgspec.structs.replace(machine(), special_function_unit=SpecialFunctionUnit(lanes=4))
    problem = ln.Problem(op, architecture)
    assert problem.tensors == ("Inputs", "Inputs2", "Outputs")
    assert ln.default_keep(problem).all()


@pytest.mark.parametrize(
    "conventions", [ln.TIMELOOP, ln.Conventions(latency="first-load"), ln.Conventions(latency="roofline", outputs="zigzag")]
)
def test_explanations_lead_to_the_same_numbers(conventions: ln.Conventions) -> None:
    problem = ln.Problem(OP, machine(Network(bandwidth=2.0, hop_energy_pj=0.5)), conventions=conventions)
    cost = ln.cost(problem, NEST)
    assert ln.explain(problem, NEST, "energy").value == pytest.approx(cost.energy_pj)
    assert ln.explain(problem, NEST, "cycles").value == cost.cycles
    assert ln.explain(problem, NEST, "edp").value == pytest.approx(cost.edp)
    assert ln.explain(problem, NEST, "area").value == cost.area_mm2
    assert ln.explain(problem, NEST, "utilization").value == pytest.approx(cost.utilization)
    for row in cost.traffic:
        for figure in ("tile_words", "reads", "fills", "updates"):
            assert ln.explain(problem, NEST, f"{row.level}.{row.tensor}.{figure}").value == getattr(row, figure)
    whole = ln.explain(problem, NEST, "energy")
    assert sum(term.value for term in whole.terms) == pytest.approx(cost.energy_pj)


def test_an_explanation_reaches_formula_and_coefficients() -> None:
    op = conv2d(r=3, s=1, p=8, q=1, c=2, k=2)
    nest = Mapping(
        (
            LevelMapping("Register"),
            LevelMapping("Buffer", (), (Loop("R", 3), Loop("P", 2)), nests.TENSORS),
            LevelMapping("DRAM", (), (Loop("P", 4), Loop("C", 2), Loop("K", 2)), nests.TENSORS),
        )
    )
    text = str(ln.explain(ln.Problem(op, machine()), nest, "DRAM.Inputs.energy"))
    assert "estimator timeloop-dram: DRAM access, pJ, of Timeloop's built-in table: 200 pJ per 16 bits." in text
    assert "word_bits = 8" in text
    assert "extent along P+R = 4    [1 + 1 x (2 - 1) + 1 x (3 - 1)]" in text
    assert "DRAM P = 4    [repeats the tiles]" in text
    assert "less what sliding windows have in common" in text


def test_unknown_figures_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"figure 'DRAM.Input.reads' is unknown; did you mean 'DRAM.Inputs.reads'"):
        ln.explain(ln.Problem(OP, machine()), NEST, "DRAM.Input.reads")
