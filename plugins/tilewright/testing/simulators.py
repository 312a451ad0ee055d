"""What every simulator must do."""

from __future__ import annotations

from typing import ClassVar

from tilewright.protocol import registry
from tilewright.protocol.architecture import Architecture
from tilewright.protocol.context import HostContext
from tilewright.protocol.plugin import Budget, Options, SimRequest, SimResult

from . import samples


class SimulatorConformance:
    """Subclass it and set `name`; override `architecture` where your simulator needs another."""

    #: Entry-point name of the simulator.
    name: ClassVar[str]
    options: ClassVar[Options] = {}
    #: Names in `samples.OPERATORS` that it can run.
    operators: ClassVar[tuple[str, ...]] = ("matmul", "conv")

    def architecture(self) -> Architecture:
        """The architecture simulated."""
        return samples.architecture()

    def simulate(self) -> SimResult:
        """Cost one schedule per operator."""
        architecture = self.architecture()
        schedules = tuple(samples.schedule(samples.OPERATORS[name], architecture) for name in self.operators)
        ctx = HostContext("simulators", self.name, Budget())
        result: SimResult = registry.load("simulators", self.name).run(SimRequest(schedules, architecture, self.options), ctx)
        return result

    def test_one_cost_per_schedule(self) -> None:
        """As many costs as schedules, all by a named model."""
        result = self.simulate()
        assert len(result.costs) == len(self.operators)
        assert result.model
        assert {cost.model for cost in result.costs} == {result.model}

    def test_same_question_same_answer(self) -> None:
        """Simulating twice gives the same."""
        assert self.simulate() == self.simulate()

    def test_never_faster_than_the_array(self) -> None:
        """Cycles are at least MACs / units, and utilization says the same."""
        units = self.architecture().peak_macs_per_cycle
        for name, cost in zip(self.operators, self.simulate().costs, strict=True):
            macs = samples.OPERATORS[name].macs
            assert cost.cycles >= macs / units
            assert abs(cost.utilization - macs / (units * cost.cycles)) < 1e-6

    def test_energy_is_itemized(self) -> None:
        """Rows, each at a price that is not negative, add up to more than nothing."""
        for cost in self.simulate().costs:
            assert cost.energy_pj > 0
            assert all(row.count >= 0 and row.each_pj >= 0 for row in cost.energy)
