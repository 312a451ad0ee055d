"""What it costs: rows that add up, never a bare total."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeVar

import msgspec

from .mapping import Mapping
from .workload import Operator

Fidelity = Literal["analytical", "cycle", "measured"]
#: What is minimized: energy x delay, one of them, energy x delay squared or energy squared x delay (more weight on one),
#: or one first and the other among equals (energy to whole pJ).
Objective = Literal["edp", "energy", "latency", "ed2p", "e2dp", "latency-then-energy", "energy-then-latency"]
Number = TypeVar("Number")


def objective_value(name: Objective, energy_pj: Number, cycles: Number) -> Number:
    """The value to minimize, from energy and cycles: numbers, or arrays of float64.

    The second of two objectives is squeezed into [0, 1), so that it decides where the first is equal.
    """
    energy: Any = energy_pj
    delay: Any = cycles
    value: Any = {
        "edp": lambda: energy * delay,
        "energy": lambda: energy,
        "latency": lambda: delay,
        "ed2p": lambda: energy * delay * delay,
        "e2dp": lambda: energy * energy * delay,
        "latency-then-energy": lambda: delay + _squeezed(energy),
        "energy-then-latency": lambda: energy // 1 + _squeezed(delay),
    }[name]()
    return value  # type: ignore[no-any-return]


def _squeezed(value: Any) -> Any:
    """From [0, 2**64) to [0, 1), in the same order."""
    return (value + 1) ** (1 / 64) - 1


class EnergyRow(msgspec.Struct, frozen=True, array_like=True):
    """``count`` actions on ``component`` for ``tensor``, at ``each_pj`` pJ: the sum of all rows is the energy."""

    component: str
    #: ``read``, ``fill``, ``update``, ``compute``, ``leakage``, ``hop``, ...
    action: str
    tensor: str
    #: Actions over the whole machine and run (block accesses for storage levels).
    count: float
    each_pj: float

    @property
    def energy_pj(self) -> float:
        """pJ of the row."""
        return self.count * self.each_pj


class LatencyRow(msgspec.Struct, frozen=True, array_like=True):
    """Cycles that one resource needs on its own."""

    resource: str
    cycles: int


class AreaRow(msgspec.Struct, frozen=True, array_like=True):
    """mm2 of one component, all instances together."""

    component: str
    area_mm2: float


class TrafficRow(msgspec.Struct, frozen=True, array_like=True):
    """Words moved for one tensor at one level, per instance."""

    level: str
    tensor: str
    tile_words: int
    instances: int
    reads: int
    fills: int
    updates: int


class Cost(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one operator, or one run, costs under one model."""

    #: Name and version of the model, e.g. ``timeloop/1``.
    model: str
    fidelity: Fidelity
    #: Total cycles: the maximum of the latency rows unless `conventions` says how they combine.
    cycles: int
    energy: tuple[EnergyRow, ...] = ()
    latency: tuple[LatencyRow, ...] = ()
    area: tuple[AreaRow, ...] = ()
    traffic: tuple[TrafficRow, ...] = ()
    #: MACs per (unit x cycle), 0 to 1.
    utilization: float = 0.0
    #: Switchable rules in force.
    conventions: tuple[str, ...] = ()

    @property
    def energy_pj(self) -> float:
        """pJ, the exact sum of the rows."""
        return math.fsum(row.energy_pj for row in self.energy)

    @property
    def edp(self) -> float:
        """Energy-delay product in pJ x cycles."""
        return self.energy_pj * self.cycles

    @property
    def area_mm2(self) -> float:
        """mm2, the sum of the rows."""
        return math.fsum(row.area_mm2 for row in self.area)

    @property
    def bottleneck(self) -> str:
        """The resource with the most cycles."""
        return max(self.latency, key=lambda row: row.cycles).resource if self.latency else ""

    def objective(self, name: Objective) -> float:
        """The value to minimize."""
        return objective_value(name, self.energy_pj, float(self.cycles))


class Claim(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a mapper says about how good a mapping is. A bound on another objective is only a ``proxy``."""

    #: ``optimal``: proven on the user's objective in `mapspace`; ``proxy optimum``: proven on the method's own objective; ``best found``.
    kind: Literal["optimal", "proxy optimum", "best found"] = "best found"
    #: Named mapspace that the claim is about.
    mapspace: str = ""
    #: Proven lower bound on the user's objective.
    lower_bound: float | None = None
    #: ``value / lower_bound - 1``.
    gap: float | None = None


class Schedule(msgspec.Struct, frozen=True, omit_defaults=True):
    """An operator with its mapping, what that costs, and what is claimed of it."""

    operator: Operator
    mapping: Mapping
    cost: Cost
    claim: Claim
    objective: Objective
    #: Content key of the architecture (`keys.content_key`).
    architecture: str
    #: Name of the core it runs on, in a design with several.
    core: str = ""


class Violation(msgspec.Struct, frozen=True):
    """How many candidates one constraint rejected, and by how little the best of them missed it."""

    constraint: str
    rejected: int
    #: Smallest excess seen, e.g. words over capacity.
    least_excess: float = 0.0


class Infeasible(msgspec.Struct, frozen=True):
    """No valid mapping was found: which constraint kills how much, and the smallest change that helps."""

    operator: Operator
    tried: int
    violations: tuple[Violation, ...]
    smallest_change: str = ""
