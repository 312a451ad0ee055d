"""Cycles: compute and every level run in parallel; the slowest decides."""

from __future__ import annotations

from .accesses import Traffic
from .arrays import Array
from .nest import Nest


def level_cycles(nest: Nest, traffic: Traffic, keep: list[list[Array]]) -> list[Array]:
    """Cycles that each level needs at its bandwidths, [B] each.

    In the reference tool's order of operations, so that its double roundings are reproduced: demands in words per
    cycle and instance, the tightest ratio of bandwidth to demand, then the compute cycles divided by that slowdown.
    """
    xp = nest.xp
    steps = xp.floats(nest.steps)
    cycles = []
    for i, level in enumerate(nest.problem.architecture.levels):
        if level.read_bandwidth is None and level.write_bandwidth is None and level.shared_bandwidth is None:
            cycles.append(nest.steps)
            continue
        read = write = 0.0 * steps
        for t in range(len(nest.problem.tensors)):
            read = read + traffic.reads[i][t] / steps
            write = write + (traffic.fills[i][t] + traffic.updates[i][t]) / steps
        slowdown = 0.0 * steps + 1.0
        for bandwidth, demand in (
            (level.read_bandwidth, read),
            (level.write_bandwidth, write),
            (level.shared_bandwidth, read + write),
        ):
            if bandwidth is not None:
                slowdown = xp.minimum(slowdown, xp.ratio(bandwidth, demand))
        cycles.append(xp.ceil(steps / slowdown))
    return cycles


def network_cycles(nest: Nest, traffic: Traffic) -> dict[int, Array]:
    """Cycles of each network with a stated bandwidth (words per cycle out of one parent instance), by level, [B] each.

    What a parent sends and receives over the network below it are its own accesses by its children: reads of operands, updates and
    returned partial sums of the written tensor.
    """
    xp = nest.xp
    cycles = {}
    for i, level in enumerate(nest.problem.architecture.levels):
        if level.network is None or level.network.bandwidth is None:
            continue
        words = xp.full(0, nest.steps)
        for t in range(len(nest.problem.tensors)):
            words = words + traffic.reads[i][t] + traffic.updates[i][t]
        cycles[i] = xp.ceil(words / level.network.bandwidth)
    return cycles
