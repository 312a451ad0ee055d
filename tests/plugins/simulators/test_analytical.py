"""The analytical simulator recomputes every schedule, and says so when one lies."""

from __future__ import annotations

import msgspec
import pytest

from tilewright import loopnest as ln
from tilewright.protocol import registry
from tilewright.protocol.context import HostContext
from tilewright.protocol.cost import Schedule
from tilewright.protocol.errors import InvalidInput, InvalidMapping
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.plugin import Budget, Options, SimRequest, SimResult
from tilewright.testing import samples
from tilewright.testing.simulators import SimulatorConformance

ARCHITECTURE = samples.architecture()


class TestConformance(SimulatorConformance):
    name = "analytical"
    operators = tuple(samples.OPERATORS)


def simulate(*schedules: Schedule, options: Options | None = None) -> SimResult:
    plugin = registry.load("simulators", "analytical")
    result: SimResult = plugin.run(SimRequest(schedules, ARCHITECTURE, options or {}), HostContext("simulators", "analytical", Budget()))
    return result


def schedule(name: str = "matmul") -> Schedule:
    return samples.schedule(samples.OPERATORS[name], ARCHITECTURE)


def test_costs_are_recomputed_and_equal() -> None:
    made = [schedule(name) for name in samples.OPERATORS]
    result = simulate(*made)
    assert [cost.energy_pj for cost in result.costs] == [each.cost.energy_pj for each in made]
    assert result.model == made[0].cost.model == f"timeloop/{ln.VERSION}"
    assert all(max(shares.values()) == 1 for shares in result.attribution)


def test_a_cost_that_its_mapping_does_not_have_is_refused() -> None:
    honest = schedule()
    for figure, change in (
        ("cycles", {"cycles": honest.cost.cycles + 1}),
        ("energy_pj", {"energy": honest.cost.energy[:-1]}),
    ):
        liar = msgspec.structs.replace(honest, cost=msgspec.structs.replace(honest.cost, **change))
        with pytest.raises(InvalidInput, match=f"schedule 1: its cost says {figure} = .*, but its mapping has .* under timeloop"):
            simulate(honest, liar)


def test_costs_of_other_models_are_not_compared() -> None:
    other = msgspec.structs.replace(schedule(), cost=msgspec.structs.replace(schedule().cost, model="measured/1", cycles=1))
    assert simulate(other).costs[0].cycles > 1


def test_an_invalid_mapping_names_schedule_level_and_excess() -> None:
    broken = msgspec.structs.replace(
        schedule(),
        mapping=Mapping(
            (
                LevelMapping("Registers", (), (Loop("C", 32),), samples.TENSORS),
                LevelMapping("Buffer", (), (), samples.TENSORS),
                LevelMapping("DRAM", (), (Loop("P", 24), Loop("K", 20)), samples.TENSORS),
            )
        ),
    )
    with pytest.raises(InvalidMapping, match=r"^capacity of Registers \(32 words\): words exceeded by 33"):
        simulate(broken)
    with pytest.raises(InvalidMapping, match=r"^schedule 1: capacity of Registers \(32 words\): words exceeded by 33"):
        simulate(schedule(), broken)


def test_rules_are_options() -> None:
    made = schedule("conv")
    default = simulate(made).costs[0]
    counted = simulate(made, options={"outputs": "zigzag"}).costs[0]
    assert counted.conventions == ("outputs=zigzag",)
    assert counted.energy_pj > default.energy_pj
    assert simulate(made, options={"release": 2022, "peer_transfers": True}).costs[0].conventions == ("release=2022", "peer_transfers=True")
    walked = simulate(made, options={"semantics": "walk"})
    assert walked.model == f"walk/{ln.VERSION}"
    # A schedule made under a rule is simulated, and compared, under it.
    again = msgspec.structs.replace(made, cost=counted)
    assert simulate(again).costs[0] == counted
    with pytest.raises(InvalidInput, match="semantics: 'ruby', expected timeloop or walk"):
        simulate(made, options={"semantics": "ruby"})
    with pytest.raises(InvalidInput, match="conventions: 'output' is unknown; did you mean 'outputs'"):
        simulate(made, options={"output": "zigzag"})
    with pytest.raises(InvalidInput, match=r"conventions: Invalid enum value 'stonne'.*outputs"):
        simulate(made, options={"outputs": "stonne"})


def test_ragged_mappings_are_walked() -> None:
    mapping = Mapping(
        (
            LevelMapping("Registers"),
            LevelMapping("Buffer", (Loop("P", 4, "X", ragged=True),), (Loop("P", 2, ragged=True), Loop("C", 17)), samples.TENSORS),
            LevelMapping("DRAM", (), (Loop("P", 2, ragged=True), Loop("K", 7)), samples.TENSORS),
        )
    )
    unknown = msgspec.structs.replace(schedule().cost, model="")
    ragged = msgspec.structs.replace(schedule("prime"), mapping=mapping, cost=unknown)
    cost = simulate(ragged).costs[0]
    assert cost.model == f"walk/{ln.VERSION}"
    assert cost.energy[0].count == samples.OPERATORS["prime"].macs


def test_hosts_reach_the_model_through_the_plugin() -> None:
    plugin = registry.load("simulators", "analytical")
    made = schedule()
    problem = ln.Problem(made.operator, ARCHITECTURE)
    evaluation = plugin.evaluate(ln.Batch.from_mappings(problem, [made.mapping]))
    assert evaluation.energy_pj[0] == pytest.approx(made.cost.energy_pj, rel=1e-12)
    assert plugin.cost(made.operator, ARCHITECTURE, made.mapping) == made.cost
    assert plugin.violations(evaluation) == ()
    assert plugin.check(made.operator, ARCHITECTURE, [made.mapping]) == ("",)
    assert plugin.explain(made, ARCHITECTURE, "cycles").value == made.cost.cycles
