"""The co-designers on DOSA's networks: ``python tests/benchmarks/pareto.py dosa_workloads.json [NETWORK...] [--option NAME=VALUE]``.

The file is DOSA's layer tables (ucb-bar/dosa, BSD-2-Clause) as JSON: network -> list of ``{name, count, R, S, P, Q, C, K, N, Wstride,
Hstride}``. Prints EDP in uJ x cycles, the ratio to the bar, the certified gap, evaluations per layer, and CPU seconds;
with ``--front`` the designs on the fronts and the expert baselines with the optimal mapper beside them.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

from tilewright import loopnest as ln
from tilewright.loopnest.designing import area
from tilewright.protocol import registry
from tilewright.protocol.context import HostContext
from tilewright.protocol.plugin import Budget, BudgetExhausted, DesignCandidate, DesignRequest, MapRequest, WeightedWorkload
from tilewright.protocol.workload import Workload, conv2d, matmul

BARS = {"bert": 1.512e9, "resnet50": 6.374e10, "retinanet": 2.129e10, "unet": 1.170e13}
#: Target -> pJ of its unit of energy; Eyeriss counts in 16-bit multiply-accumulates, here four of DOSA's 8-bit ones.
EXPERTS = {"gemmini": 1.0, "nvdla_small": 1.0, "nvdla_large": 1.0, "eyeriss": 4 * 0.5608}


def workload(name: str, layers: list[dict[str, Any]]) -> Workload:
    operators = []
    for each in layers:
        product = each["R"] == each["S"] == each["Q"] == 1 and each["P"] > 1
        operator = (
            matmul(p=each["P"], c=each["C"], k=each["K"])
            if product
            else conv2d(**{d.lower(): each[d] for d in "RSPQCKN"}, stride=(each["Wstride"], each["Hstride"]))
        )
        operators += [(each["name"], operator)] * each["count"]
    return Workload.build(name, operators)


def totals(network: Workload, found: DesignCandidate, target: str) -> tuple[float, int]:
    """uJ and cycles of the whole, by the exact cost model."""
    plugin = registry.load("targets", target)
    architecture = plugin.architecture(**found.parameters)
    costs = [
        (task.count, ln.cost(ln.Problem(task.operator, architecture, plugin.constraints()), mapping))
        for task, mapping in zip(network.tasks, found.mappings, strict=True)
    ]
    return math.fsum(n * cost.energy_pj for n, cost in costs) * 1e-6, sum(n * cost.cycles for n, cost in costs)


def expert(network: Workload, target: str, evaluations: int) -> tuple[float, int]:
    """uJ and cycles on a target as it is, every operator mapped by the optimal mapper for the least EDP."""
    plugin = registry.load("targets", target)
    architecture = plugin.architecture()
    energy, cycles = 0.0, 0
    for task in network.tasks:
        ctx = HostContext("mappers", "optimal", Budget(evaluations=evaluations))
        best = None
        try:
            for candidate in registry.load("mappers", "optimal").search(MapRequest(task.operator, architecture, plugin.constraints()), ctx):
                best = candidate
        except BudgetExhausted:
            pass
        assert best is not None, task.name
        cost = ln.cost(ln.Problem(task.operator, architecture, plugin.constraints()), best.mapping)
        energy, cycles = energy + task.count * cost.energy_pj, cycles + task.count * cost.cycles
    return energy * 1e-6 * EXPERTS[target], cycles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("networks", nargs="*", default=list(BARS))
    parser.add_argument("--codesigner", default="pareto")
    parser.add_argument("--evaluations", type=int, default=10_000, help="per layer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--front", action="store_true")
    said = parser.parse_args()
    tables = json.loads(said.file.read_text())
    options: dict[str, Any] = {"front": 12 if said.front else 0} if said.codesigner == "pareto" else {}
    options |= {name: int(value) if value.isdigit() else value for name, _, value in (each.partition("=") for each in said.option)}
    for name in said.networks:
        network = workload(name, tables[name])
        budget = Budget(evaluations=said.evaluations * len(network.tasks))
        ctx = HostContext("codesigners", said.codesigner, budget, said.seed, granted=("targets:gemmini",))
        request = DesignRequest((WeightedWorkload(network),), "gemmini", options=options)
        found: list[DesignCandidate] = []
        began = time.process_time()
        try:
            for candidate in registry.load("codesigners", said.codesigner).search(request, ctx):
                found.append(candidate)
        except BudgetExhausted:
            pass
        took = time.process_time() - began
        each = [(*totals(network, candidate, "gemmini"), candidate) for candidate in found]
        energy, cycles, best = min(each, key=lambda row: row[0] * row[1])
        bound = max((c.claim.lower_bound or 0.0 for c in found), default=0.0) * 1e-6
        gap = f"gap {100 * (energy * cycles / bound - 1):.4f} %" if bound else "no bound"
        ratio = f"{energy * cycles / BARS[name]:.4f} of the bar" if name in BARS else ""
        used = f"{ctx.evaluations / len(network.tasks):.0f} evaluations per layer, {took:.1f} CPU-s"
        print(f"{name:10} {energy * cycles:.4e} {ratio} {gap}, {used}, {best.parameters}", flush=True)
        if said.front:
            for e, c, candidate in sorted(each, key=lambda row: area(_built("gemmini", row[2]))):
                print(f"    {area(_built('gemmini', candidate)):7.2f} mm2 {e * c:.3e} {e:10.0f} uJ {c:10d} cycles {candidate.parameters}")
            for target in EXPERTS:
                e, c = expert(network, target, said.evaluations)
                plain = area(registry.load("targets", target).architecture())
                print(f"    {target:12} {plain:7.2f} mm2 {e * c:.3e} {e:10.0f} uJ {c:10d} cycles", flush=True)


def _built(target: str, found: DesignCandidate) -> Any:
    return registry.load("targets", target).architecture(**found.parameters)


if __name__ == "__main__":
    main()
