"""Figures 8 to 10 of the publication in spirit: how much slower and how much more energy than CoSA's are other mappers' mappings?

Random is the best of five valid mappings, hybrid Timeloop's search with the victory condition 500, both by latency and then energy, as
there. ``optimal`` is what is to be had: the mapper of that name, for latency and then energy (with a bound on the former), which where
it cannot prove anything is a local search from CoSA's mapping. All are scored by the one cost model. The publication: random is 5.2
and hybrid 1.5 times as slow on Timeloop, 3.3 and 2.5 times with the network; its mapping takes 4.2 s per layer, Timeloop's hybrid 380.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from tilewright import loopnest as ln
from tilewright.protocol import registry
from tilewright.protocol.architecture import Architecture
from tilewright.protocol.context import HostContext
from tilewright.protocol.cost import Objective
from tilewright.protocol.plugin import Budget, BudgetExhausted, MapRequest, Options
from tilewright.protocol.validation import ValidationReport
from tilewright.protocol.workload import Operator

from .machines import NAMES, machine

#: Method -> the mapper and its options.
METHODS: dict[str, tuple[str, Options]] = {
    "cosa": ("cosa", {}),
    "random": ("random", {"samples": 5}),
    "hybrid": ("hybrid", {"victory": 500}),
    "optimal": ("optimal", {}),
}
OBJECTIVE: Objective = "latency-then-energy"
#: A search ends after so many evaluations; only hybrid comes near it.
MOST = 20_000


class Found(NamedTuple):
    """A mapping's figures, and the CPU seconds that it took to find it."""

    cycles: int
    energy_pj: float
    seconds: float


def find(method: str, problem: ln.Problem) -> Found | None:
    """The best mapping that a method finds; None when it finds none."""
    name, options = METHODS[method]
    mapper = registry.load("mappers", name)
    ctx = HostContext("mappers", name, Budget(evaluations=MOST))
    request = MapRequest(problem.operator, problem.architecture, problem.constraints, OBJECTIVE, options=options)
    began = time.process_time()
    best: Found | None = None
    try:
        for candidate in mapper.search(request, ctx):
            cost = ln.cost(problem, candidate.mapping)
            if best is None or (cost.cycles, cost.energy_pj) < best[:2]:
                best = Found(cost.cycles, cost.energy_pj, 0.0)
    except BudgetExhausted:
        pass
    return None if best is None else best._replace(seconds=time.process_time() - began)


def compare(suite: str, file: str, networks: dict[str, Sequence[Operator]], names: Sequence[str] = NAMES) -> dict[str, ValidationReport]:
    """``"machine, network"`` and ``"machine, all"`` -> ratios over CoSA: geometric means over the layers that every method mapped."""
    groups = {}
    for name in names:
        architecture = machine(name)
        everything: list[dict[str, Found]] = []
        for network, layers in networks.items():
            rows = list(_rows(layers, architecture))
            everything += rows
            groups[f"{name}, {network}"] = _report(suite, file, rows, len(layers))
        groups[f"{name}, all"] = _report(suite, file, everything, sum(map(len, networks.values())))
    return groups


def _rows(layers: Sequence[Operator], architecture: Architecture) -> Iterator[dict[str, Found]]:
    """The layers that all methods find a mapping of."""
    for layer in layers:
        problem = ln.Problem(layer, architecture, registry.load("targets", "simba").constraints())
        row = {method: found for method in METHODS if (found := find(method, problem)) is not None}
        if len(row) == len(METHODS):
            yield row


def _report(suite: str, file: str, rows: list[dict[str, Found]], layers: int) -> ValidationReport:
    figures: dict[str, float] = {"layers": len(rows)}
    if rows:
        for method in METHODS:
            if method != "cosa":
                figures[f"{method} cycles/cosa"] = _geomean(row[method].cycles / row["cosa"].cycles for row in rows)
                figures[f"{method} energy/cosa"] = _geomean(row[method].energy_pj / row["cosa"].energy_pj for row in rows)
        for method in METHODS:
            figures[f"{method} CPU s"] = statistics.median(row[method].seconds for row in rows)
    return msgspec.structs.replace(ValidationReport.of(suite, file, (), exact=0, skipped=layers - len(rows)), figures=figures)


def _geomean(values: Iterator[float]) -> float:
    logs = [math.log(value) for value in values]
    return math.exp(math.fsum(logs) / len(logs))
