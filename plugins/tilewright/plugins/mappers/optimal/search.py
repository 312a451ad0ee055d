"""Bounds on all spatial configurations at once, then one by one on those that the first bounds leave.

For one configuration, the cheapest nest's energy is a plan's result (`machine`). What a configuration fetches in any case, with
its own prices and constants, bounds tens of thousands of them in one go; so does a plan run once for "any configuration". That
leaves a few dozen, which get a plan of their own, the most promising first.

The latency is at least the compute cycles, and at least what each port needs, which is linear in the same refetch counts. Counted
are the ports that limit the best mapping so far, or a nest that was cheap enough to be better but for its latency. For objectives
of both, the plan is run for the energy alone, for each port alone, and for their sum at an exchange rate of pJ per cycle: a nest
with latency D has energy of at least the larger of the first and ``sum - rate x D``. Objectives of both grow with energy and
latency and have their least value along a falling line at one of its ends (all but ``energy-then-latency``, where the sum is not
used), so the bound is that at an end of one of these two pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np

from tilewright import loopnest as ln
from tilewright.protocol.cost import Cost, Objective, objective_value
from tilewright.protocol.mapping import Mapping

from .charges import Charges, Fetch, Linear, charges
from .ground import Ground
from .lattice import Floats
from .machine import Machine
from .spatial import Chosen, Units

#: Array elements treated at once by a plan.
ELEMENTS = 200_000
#: Array elements that listing one configuration takes.
LISTED = 20
#: Configurations that may as well be bounded one by one.
FEW = 16


class Bounded(NamedTuple):
    """Some configurations with their bounds, the least first."""

    chosen: Chosen
    bounds: Floats


class Least(NamedTuple):
    """The least of what some fetches cost, over all nests of all configurations."""

    counted: Linear
    low: float


class Bounds:
    """Lower bounds on one problem's objective; `ground` may be that of a problem which differs in what levels keep."""

    def __init__(self, problem: ln.Problem, objective: Objective, ground: Ground | None = None) -> None:
        self.problem, self.objective = problem, objective
        self._ground = ground or Ground(problem)
        self._machine = self._plan()
        #: How many a plan treats at once.
        self.width = max(1, ELEMENTS // int(np.prod(self._ground.lattice.shape)))
        #: Ports that bounds count, and at how many pJ per cycle.
        self._rates: dict[tuple[int, str], float] = {}
        self._listed = 0

    def _plan(self, *, related: bool = True, sliding: bool = True) -> Machine:
        ground = self._ground
        return Machine(self.problem, ground.lattice, ground.windows, ground.blocks, related=related, sliding=sliding)

    @cached_property
    def _sure(self) -> Machine:
        """The plan whose nests cost what it says, or less."""
        return self._plan(related=False)

    @cached_property
    def _brief(self) -> Machine:
        """The much shorter plan in which the tensor with sliding windows is not counted."""
        return self._plan(sliding=False)

    @property
    def work(self) -> int:
        """Array elements written so far, by plans and where configurations are listed."""
        machines = [self.__dict__[name] for name in ("_machine", "_sure", "_brief") if name in self.__dict__]
        return self._listed + sum(int(machine.work) for machine in machines)

    def aim(self, cost: Cost) -> None:
        """Make the bounds tight around the cost of the best mapping: at the port that limits it, and at its exchange rate."""
        port = self._limit(cost)
        if port is not None:
            self._rates[port] = cost.energy_pj / cost.cycles

    def meet(self, cost: Cost, best: Cost) -> bool:
        """From now on count the port that limits a mapping, at its exchange rate with the best one; false when it is counted already."""
        port = self._limit(cost)
        if port is None or port in self._rates:
            return False
        saved, lost = best.energy_pj - cost.energy_pj, cost.cycles - best.cycles
        self._rates[port] = saved / lost if saved > 0 and lost > 0 else best.energy_pj / best.cycles
        return True

    def _limit(self, cost: Cost) -> tuple[int, str] | None:
        """The port that a mapping waits for; None when it waits for none."""
        compute, *others = cost.latency
        busiest = max(others, key=lambda row: row.cycles)
        if busiest.cycles <= compute.cycles or busiest.resource not in self.problem.levels:
            return None
        level = self.problem.levels.index(busiest.resource)
        memory = self.problem.architecture.levels[level]
        rows = [row for row in cost.traffic if row.level == busiest.resource]
        reads, writes = sum(row.reads for row in rows), sum(row.fills + row.updates for row in rows)
        cycles = {
            "read": reads / (memory.read_bandwidth or np.inf),
            "write": writes / (memory.write_bandwidth or np.inf),
            "shared": (reads + writes) / (memory.shared_bandwidth or np.inf),
        }
        return level, max(cycles, key=lambda name: cycles[name])

    def rough(self, below: float, share: tuple[int, int] = (0, 1)) -> Bounded:
        """Bounds on all configurations (of a share of them); only those under `below` are returned.

        Every fetch counts with what is compulsory for a configuration, whatever the nest. Where that leaves many, a plan
        run once for any configuration may show that not all fetches can be so few at once.
        """
        base = self._wanted(self._charges(None))
        least = {name: [Least(Linear(1), 0.0)] for name in base}
        self._listed += LISTED * self._ground.count // share[1]
        found = [self._from_any(chosen, least, below) for chosen in self._ground.configurations(self.objective, below, share)]
        for name, linear in base.items():
            if sum(len(part.bounds) for part in found) > FEW:
                least[name].append(Least(linear, self._machine.least(None, Units.best(self._ground.blocks), linear)[0]))
                found = [self._from_any(part.chosen, least, below) for part in found]
        if not found:
            return Bounded(np.zeros((len(self.problem.levels), 0), dtype=np.int64), np.zeros(0))
        return _sorted(np.concatenate([part.chosen for part in found], axis=1), np.concatenate([part.bounds for part in found]))

    def tight(self, chosen: Chosen, below: float) -> Bounded:
        """Bounds on some configurations from plans of their own; only those under `below` are returned."""
        known: dict[str, Floats] = {}
        bounds = np.zeros(chosen.shape[1])
        machines = [self._brief, self._machine] if any(self._ground.windows.ranks) else [self._machine]
        # One plan after the other, the short one first, each only for those that the earlier ones left.
        for machine in machines:
            for name in self._wanted(self._charges(None)) or [""]:
                units = Units.of(self._ground.blocks, chosen)
                costs = self._charges(chosen)
                if name:
                    linear = self._wanted(costs)[name]
                    least = machine.least(chosen, units, linear) + linear.constant + self._compulsory(linear, units, machine)
                    known[name] = np.maximum(known[name], least) if name in known else least
                bounds = self._combined(costs.steps, known)
                keep = bounds < below
                chosen, bounds = chosen[:, keep], bounds[keep]
                known = {key: values[keep] for key, values in known.items()}
                if not len(bounds):
                    return Bounded(chosen, bounds)
        return _sorted(chosen, bounds)

    def nests(self, chosen: Chosen) -> Iterator[Mapping]:
        """The cheapest nests of one configuration: for the energy, and for what `aim` looks at; as bounded, and as they surely cost."""
        units = Units.of(self._ground.blocks, chosen)
        costs = self._charges(chosen)
        machines = [self._sure, self._machine] if any(self._ground.windows.ranks) else [self._sure]
        for linear in self._wanted(costs).values() or [costs.energy]:
            for machine in machines:
                mapping = machine.nest(chosen, units, linear)
                if mapping is not None:
                    yield mapping

    def surely(self, chosen: Chosen) -> tuple[float, Mapping | None]:
        """The least energy of one configuration that some nest has for certain (pJ), and that nest."""
        units = Units.of(self._ground.blocks, chosen)
        energy = self._charges(chosen).energy
        return float(self._sure.least(chosen, units, energy)[0] + energy.constant[0]), self._sure.nest(chosen, units, energy)

    def _charges(self, chosen: Chosen | None) -> Charges:
        """What some configurations cost; of the one column that is as good as any, when none are given."""
        ground = self._ground
        units = Units.best(ground.blocks) if chosen is None else Units.of(ground.blocks, chosen)
        return charges(self.problem, units, ground.elements)

    def _wanted(self, costs: Charges) -> dict[str, Linear]:
        """What plans are run for, in the order in which they tighten the bound."""
        found: dict[str, Linear] = {}
        if self.objective != "latency":
            found["energy"] = costs.energy
        for number, (port, rate) in enumerate(self._rates.items() if self.objective != "energy" else ()):
            found[f"port {number}"] = costs.ports[port]
            if self.objective not in ("latency", "energy-then-latency"):
                found[f"both {number}"] = _sum(costs.energy, costs.ports[port], rate)
        return found

    def _from_any(self, chosen: Chosen, least: dict[str, list[Least]], below: float) -> Bounded:
        """Bounds from what a plan found for the best of anything, plus what each configuration must pay on top; those under `below`."""
        units = Units.of(self._ground.blocks, chosen)
        costs = charges(self.problem, units, self._ground.elements)
        known: dict[str, Floats] = {}
        wanted = self._wanted(costs)
        for name, lows in least.items():
            for counted, low in lows:
                bound = wanted[name].constant + low
                for fetch, weight in wanted[name].weights.items():
                    bound = bound + (weight - counted.weights.get(fetch, 0.0)) * self._fewest(fetch, units)
                known[name] = np.maximum(known[name], bound) if name in known else bound
        bounds = self._combined(costs.steps, known)
        near = bounds < below
        return Bounded(chosen[:, near], bounds[near])

    def _fewest(self, fetch: Fetch, units: Units) -> Floats:
        """``[N]``: words fetched whatever the nest: instances that hold other words than their neighbours fetch them all."""
        level, tensor = fetch
        words: Floats = self._machine.fewest[tensor] * units.alike[level + 1 :, tensor].prod(axis=0)
        return words

    def _compulsory(self, linear: Linear, units: Units, machine: Machine) -> Floats:
        """``[N]``: what the fetches cost at least that a machine does not count."""
        missed = [fetch for fetch in linear.weights if fetch[1] not in machine.fewest]
        return sum((linear.weights[fetch] * self._fewest(fetch, units) for fetch in missed), np.zeros(units.units.shape[1]))

    def _combined(self, steps: Floats, known: dict[str, Floats]) -> Floats:
        """``[N]``: bounds on the objective from bounds on energy, port cycles, and their weighted sum, as far as known."""
        # Cycles are whole numbers; the factor is for the rounding of the sums above.
        latency = steps
        for name, cycles in known.items():
            if name.startswith("port"):
                latency = np.maximum(latency, np.ceil(cycles * (1 - 1e-12)))
        if "energy" not in known:
            return latency if self.objective == "latency" else np.zeros(len(steps))
        energy = known["energy"]
        possible = np.isfinite(energy) & np.isfinite(latency)
        energy, latency = np.where(possible, energy, 0.0), np.where(possible, latency, 1.0)
        bounds = objective_value(self.objective, energy, latency)
        for number, rate in enumerate(self._rates.values()):
            if f"both {number}" not in known:
                continue
            total = np.where(possible, known[f"both {number}"], 0.0)
            turn = (total - energy) / rate
            last = np.maximum(latency, np.floor(turn))
            ends = [(np.maximum(energy, total - rate * delay), delay) for delay in (latency, last)]
            ends.append((energy, np.maximum(latency, np.ceil(turn))))
            bounds = np.maximum(bounds, np.minimum.reduce([objective_value(self.objective, *end) for end in ends]))
        return np.where(possible, bounds, np.inf)


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
