"""Words delivered to one instance of a level (D), and how many children share a delivery (G): the ``timeloop`` semantics.

A tile is the box that all loops up to its level cover. The temporal loops outside of it move it; the words that a move
brings in are delivered. The reference tool visits only the indices 0 and 1 of each loop, the latter standing for all
later ones; the closed form below equals that procedure. Only the innermost relevant loop enjoys the overlap of sliding
windows, and a loop whose first step happens to look like no move, or like the previous move, is credited for it.
"""

from __future__ import annotations

import math

from .arrays import Array
from .nest import Nest, box, extents, product
from .problem import TensorShape


def tiles(nest: Nest) -> list[list[Array]]:
    """Words of the tile of each tensor at each level: ``[level][tensor]``, [B] each."""
    return [[box(nest.xp, shape, nest.tile[i]) for shape in nest.problem.shapes] for i in range(len(nest.temporal))]


class Loops:
    """The temporal loops of a nest by position, innermost first; every list has L x A entries."""

    def __init__(self, nest: Nest) -> None:
        xp, problem = nest.xp, nest.problem
        dims = len(problem.active)
        #: Level of each position.
        self.level = [i for i in range(len(nest.temporal)) for _ in range(dims)]
        self.factor: list[Array] = []
        #: Dim at the position; -1 where the loop is trivial.
        self.dim: list[Array] = []
        self.step: list[Array] = []
        for i, order in enumerate(nest.order):
            factors = xp.take_rows(nest.temporal[i], order)
            steps = xp.take_rows(nest.step[i], order)
            dims_here = xp.where(xp.values(factors) > 1, order, -1)
            for k in range(dims):
                self.factor.append(factors[k])
                self.step.append(steps[k])
                self.dim.append(dims_here[k])
        #: Product of the factors of this and all outer positions; one more entry than positions.
        self.outward = [xp.full(1, self.factor[0])]
        for factor in reversed(self.factor):
            self.outward.append(self.outward[-1] * factor)
        self.outward.reverse()


def delivered(nest: Nest, tile: list[list[Array]]) -> list[list[Array]]:
    """D: words delivered to one instance over the whole run, ``[level][tensor]``, [B] each."""
    loops = Loops(nest)
    columns = [_delivered(nest, loops, shape, [row[t] for row in tile]) for t, shape in enumerate(nest.problem.shapes)]
    return [[column[i] for column in columns] for i in range(len(tile))]


def runs(nest: Nest, loops: Loops, shape: TensorShape) -> Array:
    """How often a unit that holds one word of a tensor changes it, [B]: all loops from the innermost one that moves it outward."""
    member = nest.xp.members(shape.dims, len(nest.problem.active))
    repeats = nest.xp.full(1, loops.factor[0])
    for position in reversed(range(len(loops.factor))):
        repeats = nest.xp.where(member[loops.dim[position]], loops.outward[position], repeats)
    return repeats


def _delivered(nest: Nest, loops: Loops, shape: TensorShape, tile: list[Array]) -> list[Array]:
    """D of one tensor at each level."""
    xp, dims = nest.xp, len(nest.problem.active)
    member = xp.members(shape.dims, dims)
    moves = [member[dim] for dim in loops.dim]
    # Outer loops multiply from the innermost one that moves the tensor; seen from each level, that one is found by walking inward.
    repeats = xp.full(1, loops.factor[0])
    first: list[Array] = [repeats] * len(tile)
    windows = [_window_steps(nest, loops, rank) for rank in shape.mixed]
    start = [[xp.full(0, repeats)] * len(tile) for _ in windows]
    at = [xp.full(0, repeats) for _ in windows]
    for position in reversed(range(len(moves))):
        repeats = xp.where(moves[position], loops.outward[position], repeats)
        at = [xp.where(moves[position], window[position], now) for window, now in zip(windows, at, strict=True)]
        if position % dims == 0 and position:
            level = position // dims - 1
            first[level] = repeats
            for rank, now in enumerate(at):
                start[rank][level] = now
    words = [tile[i] * first[i] for i in range(len(tile))]
    if shape.mixed:
        plain = xp.members(shape.plain, dims)
        straight = [plain[dim] for dim in loops.dim]
        for i in range(len(tile) - 1):
            words[i] = words[i] - _overlaps(nest, loops, shape, i, tile[i], windows, straight, [row[i] for row in start])
    return words


def _window_steps(nest: Nest, loops: Loops, rank: tuple[tuple[int, int], ...]) -> list[Array]:
    """How far one step of the loop at each position moves the window along a rank: ``coefficient x step``, 0 where it does not."""
    table = [0] * len(nest.problem.active)
    for dim, coefficient in rank:
        table[dim] = coefficient
    coefficients = nest.xp.table([*table, 0])
    return [coefficients[dim] * step for dim, step in zip(loops.dim, loops.step, strict=True)]


def _overlaps(
    nest: Nest,
    loops: Loops,
    shape: TensorShape,
    level: int,
    tile: Array,
    windows: list[list[Array]],
    straight: list[Array],
    first: list[Array],
) -> Array:
    """Words that the overlap of successive windows saves one instance of `level`, [B].

    `windows[rank][position]` are the steps along the mixed ranks, `first[rank]` those of the innermost loop that moves
    the tensor, `straight[position]` is true for loops along a dim with a rank of its own, after which nothing overlaps.
    """
    xp = nest.xp
    # Overlap of the tile with itself moved by the innermost moving loop.
    lengths = [length for rank, length in zip(shape.ranks, extents(shape, nest.tile[level]), strict=True) if rank in shape.mixed]
    zero = xp.full(0, tile)
    earlier = nest.problem.conventions.release == "2022"
    direct = _moves_first(nest, loops, shape, level) if earlier else None
    kept = [xp.maximum(length - move, zero) for length, move in zip(lengths, first, strict=True)]
    shared = product(xp, kept) * xp.floor_divide(tile, product(xp, lengths))
    saved = zero
    moved = [zero for _ in windows]
    clean = xp.values(tile) > 0
    wanted = [xp.values(move) for move in first]
    for position in range((level + 1) * len(nest.problem.active), len(loops.factor)):
        clean = clean & ~straight[position]
        same = still = clean
        slides = ~clean
        for rank, window in enumerate(windows):
            step = xp.values(window[position])
            delta = step - moved[rank]
            still = still & (delta == 0)
            same = same & (delta == wanted[rank])
            slides = slides | (step > 0)
            moved[rank] = moved[rank] + step
        if direct is not None:
            still, same = still & ~direct, same & direct
        reused = xp.where(still, tile, xp.where(same, shared, zero))
        saved = saved + xp.where(slides & clean, (loops.factor[position] - 1) * loops.outward[position + 1] * reused, zero)
    return saved


def _moves_first(nest: Nest, loops: Loops, shape: TensorShape, level: int) -> Array:
    """Does the innermost loop above `level` move the tensor?  bool[B]."""
    member = nest.xp.members(shape.dims, len(nest.problem.active))
    moves = nest.xp.values(loops.factor[0]) < 0
    for position in reversed(range((level + 1) * len(nest.problem.active), len(loops.factor))):
        moves = nest.xp.where(loops.dim[position] >= 0, member[loops.dim[position]], moves)
    return moves


def multicast(nest: Nest) -> list[list[Array]]:
    """G: children of a block with windows of their own, ``[level][tensor]``, [B] each. Children with one window share deliveries."""
    problem = nest.problem
    grouped = [shape.groups() for shape in problem.shapes]
    result = []
    for i in range(len(nest.spatial)):
        row = []
        for t, (shape, groups) in enumerate(zip(problem.shapes, grouped, strict=True)):
            if not problem.shares(i, t):
                row.append(product(nest.xp, nest.spatial[i]))
                continue
            children = nest.xp.full(1, nest.used_compute)
            for group in groups:
                children = children * distinct(nest, i, shape, group)
            row.append(children)
        result.append(row)
    return result


def distinct(nest: Nest, level: int, shape: TensorShape, group: list[int]) -> Array:
    """Distinct displacements of the children along the ranks of one group of dims, [B]."""
    spatial = nest.spatial[level]
    if len(group) == 1 or (any(dim in shape.plain for dim in group) and len(group) == 2):
        return product(nest.xp, [spatial[dim] for dim in group])
    ranks = [rank for rank in shape.mixed if any(dim in group for dim, _ in rank)]
    steps = nest.below[level]
    if len(group) == 2 and len(ranks) == 1:
        (p, first), (r, second) = ranks[0]
        return nest.xp.distinct_sums(spatial[p], first * steps[p], spatial[r], second * steps[r])
    return nest.xp.distinct_vectors(
        [spatial[dim] for dim in group],
        [[dict(rank).get(dim, 0) * steps[dim] for rank in shape.ranks] for dim in group],
    )


def compulsory(shape: TensorShape, bounds: list[int]) -> int:
    """Words of the whole tensor: the box over all bounds."""
    return math.prod(1 + sum(coefficient * (bounds[dim] - 1) for dim, coefficient in rank) for rank in shape.ranks)
