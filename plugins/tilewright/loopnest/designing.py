"""What every co-designer needs of a request: operators with counts, hardware as tuples of parameter values, limits."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tilewright.protocol.architecture import Architecture, Parameter
from tilewright.protocol.cost import objective_value
from tilewright.protocol.errors import InvalidInput, suggest
from tilewright.protocol.mapping import Mapping
from tilewright.protocol.plugin import Context, DesignCandidate, DesignRequest
from tilewright.protocol.workload import Operator

from .estimators import Prices
from .mapspace import Mapspace, scores
from .problem import Problem

#: Values of a target's design-space parameters, in their order.
Hardware = tuple[int, ...]
#: Evaluations per operator when a budget names none.
DEFAULT_SHARE = 20_000


class Designing:
    """A design request, taken apart.

    Raises `InvalidInput` for a limit that no design has and for workloads without a contraction.
    """

    def __init__(self, request: DesignRequest, ctx: Context) -> None:
        self.request = request
        self.target = ctx.plugin("targets", request.target)
        self.parameters: tuple[Parameter, ...] = self.target.design_space().parameters
        limits = dict(request.limits)
        #: mm2 and cycles of the whole, at most.
        self.most_area = limits.pop("area_mm2", math.inf)
        self.most_cycles = limits.pop("cycles", math.inf)
        known = [*(parameter.name for parameter in self.parameters), "area_mm2", "cycles"]
        for name in limits:
            if name not in known:
                raise InvalidInput(f"limits: {name!r} is unknown{suggest(name, known)}")
        #: Values of each parameter that the limits allow, ascending.
        self.values = [tuple(v for v in p.values if v <= limits.get(p.name, v)) for p in self.parameters]
        for parameter, values in zip(self.parameters, self.values, strict=True):
            if not values:
                raise InvalidInput(f"limits: {parameter.name}={limits[parameter.name]:g}, expected at least {parameter.low}")
        self._between = [np.log(np.array(values[:-1]) * np.array(values[1:], float)) / 2 for values in self.values]
        #: Distinct contractions of all workloads, one after the other, and how often each runs times its workload's weight.
        self.operators: list[Operator] = []
        counts = []
        for each in request.workloads:
            for task in each.workload.tasks:
                if task.operator.is_contraction:
                    self.operators.append(task.operator)
                    counts.append(task.count * each.weight)
        if not self.operators:
            raise InvalidInput("workloads: no contraction among their operators, expected at least one to design for")
        self.counts: NDArray[np.float64] = np.array(counts, dtype=np.float64)
        budget = ctx.budget.evaluations
        #: Evaluations for each operator.
        self.share = max(1, budget // len(self.operators)) if budget is not None else DEFAULT_SHARE

    def architecture(self, hardware: Hardware) -> Architecture:
        """The target with these parameter values."""
        architecture: Architecture = self.target.architecture(**self.named(hardware))
        return architecture

    def named(self, hardware: Hardware) -> dict[str, int]:
        """Parameter name -> value."""
        return {parameter.name: value for parameter, value in zip(self.parameters, hardware, strict=True)}

    @property
    def largest(self) -> Hardware:
        """Every parameter at the most that the limits allow."""
        return tuple(values[-1] for values in self.values)

    def nearest(self, wanted: list[float]) -> Hardware:
        """The allowed hardware next to these values, by ratio."""
        return tuple(
            values[int(np.searchsorted(between, math.log(goal)))]
            for values, between, goal in zip(self.values, self._between, wanted, strict=True)
        )

    def drawn(self, rng: np.random.Generator) -> Hardware:
        """Hardware with every parameter drawn evenly between the logarithms of its limits."""
        return self.nearest([float(np.exp(rng.uniform(math.log(values[0]), math.log(values[-1])))) for values in self.values])

    def candidate(self, hardware: Hardware, mappings: tuple[Mapping, ...]) -> DesignCandidate:
        """An answer."""
        return DesignCandidate(self.named(hardware), mappings)

    def value(self, energies: list[float], cycles: list[float]) -> float:
        """The objective of the whole, infinite beyond a latency target."""
        energy, delay = float(np.dot(self.counts, energies)), float(np.dot(self.counts, cycles))
        if delay > self.most_cycles:
            return math.inf
        return objective_value(self.request.objective, energy, delay)

    def affordable(self, hardware: Hardware) -> bool:
        """Is its area within the limit?"""
        return area(self.architecture(hardware)) <= self.most_area

    def sampled(self, hardware: Hardware, count: int, ctx: Context) -> tuple[float, tuple[Mapping, ...]] | None:
        """The best of `count` random mappings of each operator, by the operator's own objective; None when some operator has none."""
        architecture = self.architecture(hardware)
        energies, cycles, mappings = [], [], []
        for operator in self.operators:
            space = Mapspace(Problem(operator, architecture, self.target.constraints()))
            batch = space.batch(space.sample(ctx.rng, count))
            if not len(batch):
                return None
            evaluation = ctx.evaluate(batch)
            at = int(np.argmin(scores(evaluation, self.request.objective)))
            if not evaluation.valid[at]:
                return None
            energies.append(float(evaluation.energy_pj[at]))
            cycles.append(float(evaluation.cycles[at]))
            mappings.append(batch.mapping(at))
        return self.value(energies, cycles), tuple(mappings)


def area(architecture: Architecture) -> float:
    """mm2 of the whole; 0 where nothing states one."""
    prices = Prices(architecture)
    return prices.compute_area + sum(prices.area)
