"""A design: hardware together with how everything runs on it."""

from __future__ import annotations

import math

import msgspec

from .architecture import Architecture
from .cost import Claim, Objective, Schedule, objective_value


class Core(msgspec.Struct, frozen=True, omit_defaults=True):
    """One accelerator core of a design."""

    name: str
    architecture: Architecture
    #: Values of the target's design-space parameters.
    parameters: dict[str, int] = {}


class ScheduledTask(msgspec.Struct, frozen=True):
    """A schedule and how often the workload runs it."""

    schedule: Schedule
    count: int
    #: Name of the task's first occurrence, for people.
    name: str


class Design(msgspec.Struct, frozen=True, omit_defaults=True):
    """Cores and the schedules that run on them. Totals are sums over the schedules (operators run one after another)."""

    cores: tuple[Core, ...]
    tasks: tuple[ScheduledTask, ...]
    objective: Objective
    claim: Claim = Claim()

    @property
    def energy_pj(self) -> float:
        """pJ of the whole workload."""
        return math.fsum(task.count * task.schedule.cost.energy_pj for task in self.tasks)

    @property
    def cycles(self) -> int:
        """Cycles of the whole workload."""
        return sum(task.count * task.schedule.cost.cycles for task in self.tasks)

    @property
    def edp(self) -> float:
        """Energy-delay product in pJ x cycles."""
        return self.energy_pj * self.cycles

    def value(self) -> float:
        """The objective's value."""
        return objective_value(self.objective, self.energy_pj, float(self.cycles))


class FrontPoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """A design that no other one found dominates, by its hardware and its totals."""

    #: Values of the target's design-space parameters.
    parameters: dict[str, int]
    energy_pj: float
    cycles: int
    #: None where the target states no area.
    area_mm2: float | None = None

    @property
    def edp(self) -> float:
        """Energy-delay product in pJ x cycles."""
        return self.energy_pj * self.cycles
