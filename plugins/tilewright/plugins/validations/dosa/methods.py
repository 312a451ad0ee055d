"""The rows of the comparison: which co-designer with which options, run on one network and seed, its answer scored anew."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tilewright import loopnest as ln
from tilewright.protocol import registry
from tilewright.protocol.context import HostContext
from tilewright.protocol.cost import Objective
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.keys import content_key
from tilewright.protocol.plugin import (
    Budget,
    BudgetExhausted,
    Candidate,
    Context,
    DesignCandidate,
    DesignRequest,
    Kind,
    MapRequest,
    Options,
    WeightedWorkload,
)
from tilewright.protocol.workload import Workload

TARGET = "gemmini"
#: What the mixed orders evaluate in each step for one of the others: their rows get as many steps, and the evaluations that this takes.
ORDERS = 3


@dataclass(frozen=True)
class Row:
    """One method."""

    codesigner: str
    options: Options
    objective: Objective = "edp"
    #: Evaluations for each one of the budget.
    times: int = 1


#: The methods in the order of the table. `dosa` is as published unless its name says otherwise.
ROWS: dict[str, Row] = {
    "dosa": Row("dosa", {"as_published": True}),
    "dosa, defects repaired": Row("dosa", {}),
    "no-gradient": Row("dosa", {"as_published": True, "steps": 0}),
    "random": Row("random", {}),
    "bayesian": Row("bayesian", {}),
    "evolutionary": Row("evolutionary", {}),
    "pareto": Row("pareto", {}),
    "gradient": Row("gradient", {}),
    "dosa, order none": Row("dosa", {"as_published": True, "strategy": "none"}),
    "dosa, order softmax": Row("dosa", {"as_published": True, "strategy": "softmax"}, times=ORDERS),
    "dosa, order gumbel": Row("dosa", {"as_published": True, "strategy": "gumbel"}, times=ORDERS),
    "dosa, energy": Row("dosa", {"as_published": True}, objective="energy"),
}


@dataclass(frozen=True)
class Result:
    """One search."""

    #: uJ and cycles of the answer by the one cost model.
    energy: float
    cycles: int
    #: Evaluations per layer.
    samples: float
    cpu_seconds: float
    design: DesignCandidate

    @property
    def edp(self) -> float:
        """uJ x cycles."""
        return self.energy * self.cycles


class Remembered:
    """A mapper whose answers are kept: the rows start from the same mappings. Evaluations of a remembered answer are charged again."""

    def __init__(self, name: str) -> None:
        self._mapper = registry.load("mappers", name)
        self._known: dict[tuple[str, str, str], tuple[tuple[Candidate, ...], int]] = {}

    def search(self, request: MapRequest, ctx: Context) -> Iterator[Candidate]:
        """As the mapper."""
        key = content_key(request.operator), content_key(request.architecture), content_key(request.constraints)
        if key not in self._known:
            before = ctx.evaluations
            self._known[key] = tuple(self._mapper.search(request, ctx)), ctx.evaluations - before
        else:
            ctx.charge(self._known[key][1])
        yield from self._known[key][0]


class Methods:
    """Runs rows."""

    def __init__(self) -> None:
        self._cosa = Remembered("cosa")
        self._target = registry.load("targets", TARGET)

    def run(self, row: Row, network: Workload, seed: int, budget: int) -> Result:
        """One search with `budget` evaluations per layer; `InvalidInput` when it finds nothing within them."""
        layers = len(network.tasks)
        ctx = HostContext(
            "codesigners",
            row.codesigner,
            Budget(evaluations=budget * row.times * layers),
            seed,
            granted=(f"targets:{TARGET}",),
            load=self._load,
        )
        request = DesignRequest((WeightedWorkload(network),), TARGET, row.objective, options=row.options)
        started = time.process_time()
        last = None
        try:
            for last in registry.load("codesigners", row.codesigner).search(request, ctx):  # noqa: B007 (the last one is the answer)
                pass
        except BudgetExhausted:
            pass
        seconds = time.process_time() - started
        if last is None:
            raise InvalidInput(f"option budget: {row.codesigner} finds no design of {network.name} with {budget} evaluations per layer")
        energy, cycles = self.score(network, last)
        return Result(energy, cycles, ctx.evaluations / layers, seconds, last)

    def _load(self, kind: Kind, name: str) -> Any:
        return self._cosa if (kind, name) == ("mappers", "cosa") else registry.load(kind, name)

    def score(self, network: Workload, design: DesignCandidate) -> tuple[float, int]:
        """uJ and cycles of a design by the one cost model, every mapping checked."""
        architecture = self._target.architecture(**design.parameters)
        energies, cycles = [], 0
        for task, mapping in zip(network.tasks, design.mappings, strict=True):
            cost = ln.cost(ln.Problem(task.operator, architecture, self._target.constraints()), mapping)
            energies.append(task.count * cost.energy_pj * 1e-6)
            cycles += task.count * cost.cycles
        return math.fsum(energies), cycles

    def mapped(self, mapper: str, network: Workload, parameters: dict[str, int], seed: int, budget: int) -> float:
        """EDP (uJ x cycles) of the mappings that a mapper finds on some hardware, `budget` evaluations per layer."""
        architecture = self._target.architecture(**parameters)
        mappings = []
        for task in network.tasks:
            ctx = HostContext("mappers", mapper, Budget(evaluations=budget), seed)
            request = MapRequest(task.operator, architecture, self._target.constraints())
            best = None
            try:
                for best in registry.load("mappers", mapper).search(request, ctx):  # noqa: B007 (the last one is the best)
                    pass
            except BudgetExhausted:
                pass
            if best is None:
                raise InvalidInput(
                    f"option mapper_budget: {mapper} finds no mapping of {task.name} on {parameters} with {budget} evaluations"
                )
            mappings.append(best.mapping)
        energy, cycles = self.score(network, DesignCandidate(parameters, tuple(mappings)))
        return energy * cycles
