"""The cost of single mappings, as rows that add up."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tilewright.protocol.cost import AreaRow, Cost, EnergyRow, LatencyRow, TrafficRow
from tilewright.protocol.errors import InvalidMapping
from tilewright.protocol.mapping import Mapping
from tilewright.protocol.workload import Operator

from .batch import Batch
from .energy import ACTIONS
from .evaluate import Figures, figures
from .problem import Problem, pad

#: Version of the model: raised when any figure of a valid mapping changes.
VERSION = 1


def model_name(problem: Problem) -> str:
    """``timeloop/1`` or ``walk/1``: what `Cost.model` says."""
    return f"{problem.semantics}/{VERSION}"


def cost(problem: Problem, mapping: Mapping) -> Cost:
    """What a mapping costs. Under the semantics ``timeloop`` ragged loops run padded: what overruns the bounds is work like any other.

    Raises `InvalidMapping` naming level, dim and excess when it is not valid.
    """
    if problem.semantics == "timeloop" and mapping.is_ragged:
        problem = Problem(_padded(problem, mapping), problem.architecture, problem.constraints, problem.semantics, problem.conventions)
    return costs(problem, [mapping])[0]


def _padded(problem: Problem, mapping: Mapping) -> Operator:
    """The operator with the bounds of its ragged dims raised to the products of their factors."""
    ragged = {loop.dim for level in mapping.levels for loop in (*level.spatial, *level.temporal) if loop.ragged}
    pairs = zip(problem.operator.dims, pad(problem.operator, mapping).dims, strict=True)
    return msgspec.structs.replace(problem.operator, dims=tuple(longer if dim.name in ragged else dim for dim, longer in pairs))


def costs(problem: Problem, mappings: Sequence[Mapping]) -> list[Cost]:
    """What some mappings cost; the first invalid one raises `InvalidMapping`."""
    batch = Batch.from_mappings(problem, mappings)
    result, validity = figures(batch)
    for b in range(len(batch)):
        if not validity.valid[b]:
            raise InvalidMapping(validity.describe(b))
    return [_cost(result, batch, b) for b in range(len(batch))]


def _cost(result: Figures, batch: Batch, b: int) -> Cost:
    problem = result.nest.problem
    architecture, prices = problem.architecture, problem.prices
    compute = architecture.compute
    macs = problem.operator.macs
    cycles = int(result.cycles[b])
    if problem.operator.is_contraction:
        energy = [EnergyRow(compute.name, "compute", "", float(macs), prices.compute)]
    else:
        energy = [EnergyRow("special-function unit", problem.operator.function, "", float(problem.operator.flops), prices.special)]
    traffic = []
    latency = [LatencyRow(energy[0].component, int(result.computing[b]))]
    area = [AreaRow(compute.name, prices.compute_area)]
    for i, level in enumerate(architecture.levels):
        each = (prices.read[i], prices.fill[i], prices.update[i])
        for t, tensor in enumerate(problem.tensors):
            if not batch.keep[b, i, t]:
                continue
            for action, count, price in zip(ACTIONS, result.accesses[i][t], each, strict=True):
                if count[b]:
                    energy.append(EnergyRow(level.name, action, tensor, float(count[b]), price))
            words = (rows[i][t][b] for rows in (result.traffic.tiles, result.traffic.reads, result.traffic.fills, result.traffic.updates))
            tile, *moved = (int(word) for word in words)
            traffic.append(TrafficRow(level.name, tensor, tile, int(result.nest.used[i][b]), *moved))
        if prices.leakage[i]:
            energy.append(EnergyRow(level.name, "leakage", "", float(result.leakage[i][b]) / prices.leakage[i], prices.leakage[i]))
        latency.append(LatencyRow(level.name, int(result.level_cycles[i][b])))
        for tensor, travelled in zip(problem.tensors, result.hops.get(i, ()), strict=False):
            energy.append(EnergyRow(f"{level.name} network", "hop", tensor, float(travelled[b]), prices.hop[i]))
        if i in result.network_cycles:
            latency.append(LatencyRow(f"{level.name} network", int(result.network_cycles[i][b])))
        area.append(AreaRow(level.name, prices.area[i]))
    latency += [LatencyRow(name, int(extra[b])) for name, extra in result.extra_cycles]
    return Cost(
        model=model_name(problem),
        fidelity="analytical",
        cycles=cycles,
        energy=tuple(energy),
        latency=tuple(latency),
        area=tuple(area),
        traffic=tuple(traffic),
        utilization=macs / compute.instances / cycles,
        conventions=problem.conventions.names,
    )
