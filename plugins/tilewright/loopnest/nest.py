"""The loop nests of a batch in the layout that the formulas run on: one contiguous row of B mappings per quantity.

Whole nest, innermost first: spatial block of level 0, temporal block of level 0, spatial block of level 1, ...
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from .arrays import NUMPY, Array, Namespace
from .batch import Batch
from .problem import Problem, TensorShape


@dataclass(frozen=True)
class Nest:
    """Loops over active dims (A of them), and what follows from their factors alone. Lists are over levels."""

    xp: Namespace
    problem: Problem
    #: Factors, [A, B] each.
    temporal: list[Array]
    spatial: list[Array]
    #: Dim at each temporal position, [A, B] each.
    order: list[Array]
    #: Extent of each dim below a level's blocks, [A, B] each; one more than levels.
    below: list[Array]
    #: Extent of each dim in the tile of a level, [A, B] each: ``below[i + 1]``, cut at the bounds.
    tile: list[Array]
    #: Step of each temporal loop: extent of its dim inside of it, [A, B] each.
    step: list[Array]
    #: Used instances per level, [B] each.
    used: list[Array]
    #: Used compute units, [B].
    used_compute: Array
    #: Product of all temporal factors: compute cycles, [B].
    steps: Array
    #: Units along X and along Y of each spatial block, [B] each; only in exact nests.
    mesh: list[tuple[Array, Array]] = field(default_factory=list)
    #: Spatial factors along X, 1 for loops along Y, [A, B] each; only in exact nests.
    across: list[Array] = field(default_factory=list)

    @classmethod
    def of(cls, xp: Namespace, problem: Problem, temporal: Array, spatial: Array, order: Array) -> Nest:
        """From arrays [L, A, B] over active dims."""
        levels = range(len(problem.levels))
        below = [xp.full(1, temporal[0])]
        step = []
        for i in levels:
            step.append(below[i] * spatial[i])
            below.append(step[i] * temporal[i])
        outside = xp.full(1, product(xp, temporal[0]))
        steps = outside
        used: list[Array] = []
        for i in reversed(levels):
            used.append(outside)
            outside = outside * product(xp, spatial[i])
            steps = steps * product(xp, temporal[i])
        tile = below[1:]
        if problem.semantics == "walk" and not xp.real:
            tile = [xp.minimum(each, problem.active_bounds[:, None]) for each in tile]
        return cls(xp, problem, list(temporal), list(spatial), list(order), below, tile, step, used[::-1], outside, steps)

    @classmethod
    def of_batch(cls, batch: Batch) -> Nest:
        """The exact (numpy) nests of a batch; factors below 1 count as 1."""
        problem = batch.problem
        active = problem.active
        xp = NUMPY
        order = batch.order
        if len(active) < len(problem.dims):
            place = np.full(len(problem.dims), -1)
            place[active] = np.arange(len(active))
            order = place[order]
            order = order[order >= 0].reshape(*order.shape[:2], len(active))
        temporal, spatial = (xp.maximum(factors, 1)[:, :, active].transpose(1, 2, 0).copy() for factors in (batch.temporal, batch.spatial))
        nest = cls.of(xp, problem, temporal, spatial, order.transpose(1, 2, 0).copy())
        if problem.needs_mesh:
            on_y = batch.axis[:, :, active].transpose(1, 2, 0) != 0
            across = np.where(on_y, 1, spatial)
            along = (across.prod(axis=1), np.where(on_y, spatial, 1).prod(axis=1))
            return replace(nest, mesh=list(zip(*along, strict=True)), across=list(across))
        return nest


def product(xp: Namespace, rows: Array) -> Array:
    """Product over the first axis, [B]."""
    result = rows[0]
    for row in rows[1:]:
        result = result * row
    return result


def extents(shape: TensorShape, tile: Array) -> list[Array]:
    """Extent along each rank of a tile box that covers ``tile[d]`` consecutive values of each dim, [B] each."""
    lengths = []
    for rank in shape.ranks:
        if len(rank) == 1 and rank[0][1] == 1:
            lengths.append(tile[rank[0][0]])
            continue
        length = tile[rank[0][0]] * rank[0][1] + (1 - sum(coefficient for _, coefficient in rank))
        for dim, coefficient in rank[1:]:
            length = length + tile[dim] * coefficient
        lengths.append(length)
    return lengths


def box(xp: Namespace, shape: TensorShape, tile: Array) -> Array:
    """Words of a tile box, [B]: the bounding box, gaps included."""
    lengths = extents(shape, tile)
    return product(xp, lengths) if lengths else xp.full(1, tile[0])
