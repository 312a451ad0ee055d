"""Bounds on all spatial configurations at once, then one by one on those that the first bounds leave.

For one configuration, the cheapest nest's energy is a plan's result (`machine`). A plan run once for "any configuration" gives
the least that the variable part of the energy can be; with each configuration's own constants, which are exact, that bounds
tens of thousands of them in one go and leaves a few dozen, which get a plan of their own, the most promising first.

The latency is at least the compute cycles, and at least what the port that limits the best mapping so far needs, which is linear
in the same refetch counts. For the product of both, the plan is run for the energy alone, for the port alone, and for their
sum at the best mapping's exchange rate: a nest with latency D has energy of at least the larger of the first and
``sum - rate x D``, so the product is least at an end of one of these two pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tilewright import loopnest as ln
from tilewright.protocol.cost import Cost, Objective
from tilewright.protocol.mapping import Mapping

from .charges import Charges, Linear, charges
from .lattice import Floats, Lattice
from .machine import Machine
from .spatial import Chosen, Units, Windows, blocks

#: Array elements treated at once by a plan, and configurations bounded at once.
ELEMENTS, CHUNK = 400_000, 50_000


#: More configurations than this are not bounded.
MOST = 20_000_000


def unsupported(problem: ln.Problem) -> str:
    """Why a problem cannot be bounded; empty when it can."""
    windows = Windows(problem)
    moved = problem.relevant.sum(axis=0)
    if not problem.operator.is_contraction:
        return f"the function {problem.operator.function} is not a contraction"
    if sum(bool(ranks) for ranks in windows.ranks) > 1 or windows.ranks[problem.output]:
        return "more than one tensor, or the result, has sliding windows"
    for d, name in enumerate(problem.dims):
        if problem.bounds[d] > 1 and moved[d] < len(problem.tensors) - 1:
            return f"the dim {name} moves fewer than {len(problem.tensors) - 1} tensors"
    configurations = np.prod([float(len(block.splits)) for block in blocks(problem, windows)])
    return f"{configurations:.2g} spatial configurations" if configurations > MOST else ""


class Bounded(NamedTuple):
    """Some configurations with their bounds, the least first."""

    chosen: Chosen
    bounds: Floats


class Bounds:
    """Lower bounds on one problem's objective."""

    def __init__(self, problem: ln.Problem, objective: Objective) -> None:
        self.problem, self.objective = problem, objective
        self._windows = windows = Windows(problem)
        self._lattice = Lattice(problem)
        self._blocks = blocks(problem, windows)
        self._machine = Machine(problem, self._lattice, windows, self._blocks)
        self._sure = Machine(problem, self._lattice, windows, self._blocks, related=False)
        self._elements = [float(self._lattice.words(t)[self._lattice.top]) for t in range(len(problem.tensors))]
        self._choices = [len(block.splits) for block in self._blocks]
        #: Configurations.
        self.count = int(np.prod([float(n) for n in self._choices]))
        #: How many a plan treats at once.
        self.width = max(1, ELEMENTS // int(np.prod(self._lattice.shape)))
        self._port: tuple[int, str] | None = None
        #: pJ per cycle at the best mapping so far.
        self._rate = 0.0

    def aim(self, cost: Cost) -> None:
        """Make the bounds tight around the cost of a mapping: at the port that limits it, and at its exchange rate."""
        compute, *others = cost.latency
        busiest = max(others, key=lambda row: row.cycles)
        self._rate = cost.energy_pj / cost.cycles
        self._port = None
        if busiest.cycles > compute.cycles and busiest.resource in self.problem.levels:
            level = self.problem.levels.index(busiest.resource)
            memory = self.problem.architecture.levels[level]
            rows = [row for row in cost.traffic if row.level == busiest.resource]
            reads, writes = sum(row.reads for row in rows), sum(row.fills + row.updates for row in rows)
            cycles = {
                "read": reads / (memory.read_bandwidth or np.inf),
                "write": writes / (memory.write_bandwidth or np.inf),
                "shared": (reads + writes) / (memory.shared_bandwidth or np.inf),
            }
            self._port = level, max(cycles, key=lambda port: cycles[port])

    def rough(self, below: float) -> Bounded:
        """Bounds on all configurations from plans run once for any of them; only those under `below` are returned."""
        units = Units.best(self._blocks)
        costs = charges(self.problem, units, self._elements)
        least = {name: self._machine.least(None, units, linear)[0] for name, linear in self._wanted(costs).items()}
        chosen, bounds = [], []
        for first in range(0, self.count, CHUNK):
            part = np.array(np.unravel_index(np.arange(first, min(self.count, first + CHUNK)), self._choices))
            found = self._from_any(part, costs, least)
            near = np.flatnonzero(found < below)
            chosen.append(part[:, near])
            bounds.append(found[near])
        return _sorted(np.concatenate(chosen, axis=1), np.concatenate(bounds))

    def tight(self, chosen: Chosen, below: float) -> Bounded:
        """Bounds on some configurations from plans of their own; only those under `below` are returned."""
        units = Units.of(self._blocks, chosen)
        costs = charges(self.problem, units, self._elements)
        known: dict[str, Floats] = {}
        near = np.arange(chosen.shape[1])
        bounds: Floats = costs.steps if self.objective == "latency" else np.zeros(len(near))
        # One plan after the other, each only for those that the earlier ones left.
        for name in self._wanted(costs):
            part = Units.of(self._blocks, chosen[:, near])
            linear = self._wanted(charges(self.problem, part, self._elements))[name]
            known = {key: values[near] if len(values) != len(near) else values for key, values in known.items()}
            known[name] = self._machine.least(chosen[:, near], part, linear) + linear.constant
            bounds = self._combined(costs.steps[near], known)
            keep = bounds < below
            near, bounds = near[keep], bounds[keep]
            known = {key: values[keep] for key, values in known.items()}
            if not len(near):
                break
        return _sorted(chosen[:, near], bounds)

    def nests(self, chosen: Chosen) -> Iterator[Mapping]:
        """The cheapest nests of one configuration: for the energy, and for what `aim` looks at; as bounded, and as they surely cost."""
        units = Units.of(self._blocks, chosen)
        costs = charges(self.problem, units, self._elements)
        machines = [self._sure, self._machine] if any(self._windows.ranks) else [self._sure]
        for linear in self._wanted(costs).values() or [costs.energy]:
            for machine in machines:
                mapping = machine.nest(chosen, units, linear)
                if mapping is not None:
                    yield mapping

    def surely(self, chosen: Chosen) -> tuple[float, Mapping | None]:
        """The least energy of one configuration that some nest has for certain (pJ), and that nest."""
        units = Units.of(self._blocks, chosen)
        energy = charges(self.problem, units, self._elements).energy
        return float(self._sure.least(chosen, units, energy)[0] + energy.constant[0]), self._sure.nest(chosen, units, energy)

    def _wanted(self, costs: Charges) -> dict[str, Linear]:
        """What plans are run for, in the order in which they tighten the bound."""
        found: dict[str, Linear] = {}
        if self.objective != "latency":
            found["energy"] = costs.energy
        if self.objective != "energy" and self._port is not None:
            found["port"] = costs.ports[self._port]
            if self.objective == "edp":
                found["both"] = _sum(costs.energy, found["port"], self._rate)
        return found

    def _from_any(self, chosen: Chosen, any_: Charges, least: dict[str, float]) -> Floats:
        """``[N]``: bounds from what a plan found for the best of anything, plus what each configuration must pay on top."""
        units = Units.of(self._blocks, chosen)
        costs = charges(self.problem, units, self._elements)
        known = {}
        for name, linear in self._wanted(costs).items():
            base = self._wanted(any_)[name]
            known[name] = linear.constant + least[name]
            for (level, tensor), weight in linear.weights.items():
                # Instances that hold other words than their neighbours fetch this much at least, whatever the nest.
                compulsory = self._machine.fewest[tensor] * units.alike[level + 1 :, tensor].prod(axis=0)
                known[name] = known[name] + (weight - base.weights[level, tensor]) * compulsory
        return self._combined(costs.steps, known)

    def _combined(self, steps: Floats, known: dict[str, Floats]) -> Floats:
        """``[N]``: bounds on the objective from bounds on energy, port cycles, and their weighted sum, as far as known."""
        # Cycles are whole numbers; the factor is for the rounding of the sums above.
        latency = np.maximum(steps, np.ceil(known["port"] * (1 - 1e-12))) if "port" in known else steps
        if self.objective == "latency":
            return latency
        energy = known["energy"]
        if self.objective == "energy":
            return energy
        if "both" not in known:
            return energy * latency
        total, rate = known["both"], self._rate
        with np.errstate(invalid="ignore"):
            turn = (total - energy) / rate
            last = np.maximum(latency, np.floor(turn))
            ends = [d * np.maximum(energy, total - rate * d) for d in (latency, last)]
            bounds: Floats = np.minimum(np.minimum(*ends), np.maximum(latency, np.ceil(turn)) * energy)
        return np.where(np.isfinite(energy), bounds, np.inf)


def _sorted(chosen: Chosen, bounds: Floats) -> Bounded:
    order = np.argsort(bounds, kind="stable")
    return Bounded(chosen[:, order], bounds[order])


def _sum(energy: Linear, port: Linear, rate: float) -> Linear:
    """``energy + rate x port``."""
    total = Linear(len(energy.constant))
    total.constant = energy.constant + rate * port.constant
    for linear, factor in ((energy, 1.0), (port, rate)):
        for fetch, weight in linear.weights.items():
            total.add(fetch, factor * weight)
    return total
