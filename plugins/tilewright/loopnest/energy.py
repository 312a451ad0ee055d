"""Energy: block accesses of each level, multiply-accumulates, leakage, network hops."""

from __future__ import annotations

from .accesses import Traffic
from .arrays import Array
from .nest import Nest

ACTIONS = ("read", "fill", "update")


def block_accesses(nest: Nest, traffic: Traffic) -> list[list[list[Array]]]:
    """Block accesses over the machine: ``[level][tensor][read, fill, update]``, float64[B] each.

    Words of one instance and the whole run (of the average one, where instances differ) are rounded up to blocks, then
    multiplied by the used instances. The instances of a cluster share one access, as far as more instances are used than
    there are clusters.
    """
    xp = nest.xp
    result = []
    for i, level in enumerate(nest.problem.architecture.levels):
        copies = xp.floats(nest.used[i])
        if level.cluster_size > 1:
            clusters = level.instances // level.cluster_size
            copies = xp.minimum(copies, xp.floats(xp.full(clusters, nest.used[i])))
        row = []
        for t in range(len(nest.problem.tensors)):
            if traffic.machine is None:
                words = (traffic.reads[i][t], traffic.fills[i][t], traffic.updates[i][t])
                row.append([xp.floats(xp.blocks(each, level.block_words)) * copies for each in words])
            else:
                totals = (rows[i][t] / nest.used[i] for rows in traffic.machine)
                row.append(
                    [xp.floats(xp.ceil(each / level.block_words)) * copies if level.block_words > 1 else each * copies for each in totals]
                )
        result.append(row)
    return result


def storage_energy(nest: Nest, accesses: list[list[list[Array]]]) -> Array:
    """pJ of all block accesses, float64[B]."""
    prices = nest.problem.prices
    total = 0.0 * nest.xp.floats(nest.steps)
    for i, row in enumerate(accesses):
        for counts in row:
            for count, each in zip(counts, (prices.read[i], prices.fill[i], prices.update[i]), strict=True):
                if each:
                    total = total + count * each
    return total


def leakage(nest: Nest, cycles: Array) -> list[Array]:
    """pJ leaked by the used instances of each level, float64[B] each; unused instances are power-gated."""
    xp = nest.xp
    return [xp.floats(used * cycles) * each for used, each in zip(nest.used, nest.problem.prices.leakage, strict=True)]
