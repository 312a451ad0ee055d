"""From deliveries to reads, fills and updates per instance of each level."""

from __future__ import annotations

from dataclasses import dataclass

from .arrays import Array
from .nest import Nest
from .peers import Links
from .special import repeats
from .traffic import compulsory


@dataclass(frozen=True)
class Traffic:
    """Words per instance; every list is ``[level][tensor]`` of [B] arrays and 0 where a level does not keep the tensor."""

    tiles: list[list[Array]]
    #: Delivered to one instance by its parent, whether or not the level keeps the tensor.
    delivered: list[list[Array]]
    #: Children of the block below a level that receive data of their own.
    distinct: list[list[Array]]
    reads: list[list[Array]]
    fills: list[list[Array]]
    updates: list[list[Array]]
    #: Asked of one instance by its children, whether or not the level keeps the tensor.
    asked: list[list[Array]]
    #: Words of the written tensor that one instance is responsible for, per level.
    share: list[Array]
    #: Reads, fills and updates of all instances together, where instances differ.
    machine: tuple[list[list[Array]], list[list[Array]], list[list[Array]]] | None = None


def account(
    nest: Nest,
    tiles: list[list[Array]],
    delivered: list[list[Array]],
    distinct: list[list[Array]],
    keep: list[list[Array]],
    links: Links | None = None,
) -> Traffic:
    """Accesses of each level, given what is delivered (D), how many children differ (G) and what is kept (bool ``[level][tensor]``).

    A level that keeps a tensor is asked for D words by its children once per distinct child; one that does not passes
    its children's requests on. At the outermost level that keeps a tensor nothing is filled: the tensor lives there.
    """
    xp, problem = nest.xp, nest.problem
    levels, tensors = range(len(keep)), range(len(problem.tensors))
    outputs = problem.conventions.outputs
    zero = xp.full(0, nest.steps)
    share = shares(nest)
    reads: list[list[Array]] = [[zero] * len(tensors) for _ in levels]
    fills: list[list[Array]] = [[zero] * len(tensors) for _ in levels]
    updates: list[list[Array]] = [[zero] * len(tensors) for _ in levels]
    requests: list[list[Array]] = [[zero] * len(tensors) for _ in levels]
    again = repeats(nest)
    for t in tensors:
        several = again if t != problem.output else None
        demand = nest.steps if several is None else nest.steps * several[0]
        above = [keep[-1][t] & False] * len(keep)
        for i in reversed(levels[:-1]):
            above[i] = above[i + 1] | keep[i + 1][t]
        innermost = ~(keep[0][t] & False)
        for i in levels:
            here = keep[i][t]
            asked = distinct[i][t] * demand
            if links is not None:
                asked = links.asked(i, t, asked)
            requests[i][t] = asked
            brought = delivered[i][t] if several is None else delivered[i][t] * several[i + 1]
            fill = xp.where(here & above[i], brought, zero)
            if t != problem.output:
                reads[i][t] = xp.where(here, asked, zero)
                fills[i][t] = fill
                if links is not None:
                    reads[i][t] = reads[i][t] + xp.where(here & above[i], links.reads(i + 1, t, nest.used[i]), zero)
                    fills[i][t] = xp.where(here & above[i], links.fills(i + 1, t, nest.used[i], fill), zero)
            else:
                updates[i][t] = xp.where(here, asked, zero)
                fills[i][t] = fill if problem.conventions.release == "2022" else xp.where(here & above[i], delivered[i][t] - share[i], zero)
                reads[i][t] = xp.where(here, asked - share[i], zero)
                if outputs in ("zigzag", "accelforge"):
                    # Draining a tile upward reads it; delivered words stand for the tiles that leave as well.
                    reads[i][t] = reads[i][t] + fill
                if outputs == "zigzag":
                    reads[i][t] = reads[i][t] + xp.where(here & innermost, share[i], zero)
                if outputs == "accelforge":
                    updates[i][t] = xp.where(innermost, zero, updates[i][t])
                innermost = innermost & ~here
            demand = xp.where(here, brought, asked)
    return Traffic(tiles, delivered, distinct, reads, fills, updates, requests, share)


def shares(nest: Nest) -> list[Array]:
    """Words of the written tensor that one instance of each level is responsible for: the whole, divided by relevant spatial loops."""
    xp, problem = nest.xp, nest.problem
    shape = problem.shapes[problem.output]
    share = [xp.full(compulsory(shape, problem.active_bounds.tolist()), nest.steps)]
    for i in reversed(range(1, len(problem.levels))):
        relevant = xp.full(1, nest.steps)
        for dim in shape.dims:
            relevant = relevant * nest.spatial[i][dim]
        share.append(xp.floor_divide(share[-1], relevant))
    return share[::-1]
