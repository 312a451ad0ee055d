"""What crosses the network between a level and its children, how far it travels, and how long that takes.

A network with a bandwidth moves its words through one port. One with ``flit_bits`` is a mesh of routers (Huang et al., "CoSA", ISCA
2021, section IV-B; Shao et al., "Simba", MICRO 2019): the children are its nodes, an extra row in front of the first holds two ports, one
of the parent and one of what lies further out, for tensors that the parent does not keep. Packets of one header and up to four data
flits go along the extra row to their column, then down it (X-Y routing). A packet to several children is copied where their ways
part; partial sums meet on their way up. Links move one flit per cycle in each direction, so the network needs the cycles of its
busiest link, and the hops of one packet.
"""

from __future__ import annotations

from tilewright.protocol.architecture import Network

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


def network_cycles(nest: Nest, traffic: Traffic, words: list[list[Array]], keep: list[list[Array]]) -> dict[int, Array]:
    """Cycles of each network with a stated bandwidth (words per cycle of one parent instance) or with routers, by level, [B] each."""
    xp = nest.xp
    cycles = {}
    for i, level in enumerate(nest.problem.architecture.levels):
        if level.network is not None and level.network.bandwidth is not None:
            total = xp.full(0, nest.steps)
            for each in words[i]:
                total = total + each
            cycles[i] = xp.ceil(xp.floats(total) / level.network.bandwidth)
        if level.network is not None and level.network.flit_bits is not None:
            busiest = _busiest_link(nest, i, level.network, traffic, words[i], keep)
            routed = xp.ceil(busiest) + nest.mesh[i][0] + nest.mesh[i][1]
            cycles[i] = xp.maximum(cycles[i], routed) if i in cycles else routed
    return cycles


def _busiest_link(nest: Nest, i: int, network: Network, traffic: Traffic, words: list[Array], keep: list[list[Array]]) -> Array:
    """Flits over the busiest link of the mesh below one instance of level `i`, float64[B].

    Only the ports' own links and the first link of each column can be that: everything further on carries part of what they do. All
    used columns carry the same.
    """
    xp, problem = nest.xp, nest.problem
    none = xp.floats(xp.full(0, nest.steps))
    own, far, column = [none, none], [none, none], [none, none]
    for t, each in enumerate(words):
        up = traffic.asked[i][t] if t == problem.output else xp.full(0, nest.steps)
        for way, moved in enumerate((each - up, up)):
            flits = xp.floats(moved) * _bits(nest, i, t, keep) / (network.flit_bits or 1) * (1 + 1 / network.payload_flits)
            own[way] = own[way] + xp.where(keep[i][t], flits, none)
            far[way] = far[way] + xp.where(keep[i][t], none, flits)
            column[way] = column[way] + flits / xp.floats(_columns(nest, i, t))
    busiest = none
    for link in (*own, *far, *column):
        busiest = xp.maximum(busiest, link)
    return busiest


def _columns(nest: Nest, i: int, t: int) -> Array:
    """Columns of the mesh whose words of a tensor differ; all where nothing is shared."""
    if not nest.problem.shares(i, t):
        return nest.mesh[i][0]
    relevant = [nest.across[i][d] for d in nest.problem.shapes[t].dims]
    return product(nest.xp, relevant) if relevant else nest.xp.full(1, nest.steps)


def _bits(nest: Nest, i: int, t: int, keep: list[list[Array]]) -> Array:
    """Bits of a word of a tensor on its way below level `i`: those of the next level inside that keeps it, or of the compute."""
    xp, levels = nest.xp, nest.problem.architecture.levels
    bits = xp.full(nest.problem.architecture.compute.bits, nest.steps)
    for inner, level in enumerate(levels[:i]):
        bits = xp.where(keep[inner][t], xp.full(level.word_bits, nest.steps), bits)
    return bits


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
