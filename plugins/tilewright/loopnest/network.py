"""What crosses the network between a level and its children, and how far it travels."""

from __future__ import annotations

from .accesses import Traffic
from .arrays import Array
from .nest import Nest, product


def crossing(nest: Nest, traffic: Traffic, keep: list[list[Array]]) -> list[list[Array]]:
    """Words between one instance of a level and its children, each multicast or reduction counted once: ``[level][tensor]``, [B] each.

    Operands go down. Updates of the written tensor go up; where a level further in keeps it, partial sums come back down.
    """
    xp, written = nest.xp, nest.problem.output
    rows = [list(row) for row in traffic.asked]
    inside = keep[0][written] & False
    for i, row in enumerate(rows):
        returned = xp.where(inside, row[written] - traffic.share[i], xp.full(0, nest.steps))
        row[written] = row[written] + returned
        inside = inside | keep[i][written]
    return rows


def network_cycles(nest: Nest, words: list[list[Array]]) -> dict[int, Array]:
    """Cycles of each network with a stated bandwidth (words per cycle of one parent instance), by level, [B] each."""
    xp = nest.xp
    cycles = {}
    for i, level in enumerate(nest.problem.architecture.levels):
        if level.network is not None and level.network.bandwidth is not None:
            total = xp.full(0, nest.steps)
            for each in words[i]:
                total = total + each
            cycles[i] = xp.ceil(xp.floats(total) / level.network.bandwidth)
    return cycles


def hops(nest: Nest, traffic: Traffic, words: list[list[Array]]) -> dict[int, list[Array]]:
    """Words x hops over the machine, of networks with a price per hop: level -> per tensor, float64[B] each.

    A word goes half of the used width and height of the mesh on average (X-Y routing from a corner), and one hop more for
    each further child that shares it.
    """
    xp, problem = nest.xp, nest.problem
    result = {}
    for i in range(len(words)):
        if not problem.prices.hop[i]:
            continue
        children = xp.floats(product(xp, nest.spatial[i]))
        along_x, along_y = (xp.floats(each) for each in nest.mesh[i])
        row = []
        for t, each in enumerate(words[i]):
            sharing = children / xp.floats(traffic.distinct[i][t])
            row.append(xp.floats(each * nest.used[i]) * ((along_x + along_y) / 2 + sharing - 1))
        result[i] = row
    return result
