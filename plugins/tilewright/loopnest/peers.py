"""Peer ("link") transfers of the reference tool: words that a mesh neighbour just received come from it, not from the parent.

At a fan-out, a child's new data at one step may equal what one of its four mesh neighbours received at the step before
(outputs along X, the filter moving in time: processing element p needs what p + 1 just had). The words then move over a
link, if that lowers what the parent has to send at that step.
As the tool does, neighbours are found from the linear index over the block's spatial loops and the physical width of
the fan-out, and the words moved are divided among *all* used instances of the child level.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .batch import Batch
from .nest import Nest

Vector = tuple[int, ...]


@dataclass(frozen=True)
class Transfer:
    """What the links below one level do to one tensor, in words over the whole run."""

    #: Words that the parent still sends, each multicast counted once.
    sent: int
    #: Words that its children still receive from it, all children together.
    received: int
    #: Words that move over the links.
    linked: int


@dataclass(frozen=True)
class _Step:
    """All steps of the walk that one loop makes."""

    #: How often.
    count: int
    #: How far the window moves.
    move: Vector
    #: What the step before brought, and what this one brings: words, 0 for nothing, and whether it is the difference of a slide.
    before: tuple[int, bool]
    now: tuple[int, bool]


class Links:
    """Peer transfers of a batch, ready for the access counts: arrays [B], per level above and tensor."""

    def __init__(self, batch: Batch, nest: Nest) -> None:
        self._zero = np.zeros(len(batch), np.int64)
        self._rows: dict[tuple[int, int], NDArray[np.int64]] = {}
        self._children = [np.prod(spatial, axis=0) for spatial in nest.spatial]
        for index in range(len(batch)):
            for key, transfer in transfers(batch, nest, index).items():
                rows = self._rows.setdefault(key, np.zeros((3, len(batch)), np.int64))
                rows[:, index] = transfer.sent, transfer.received, transfer.linked

    def asked(self, level: int, tensor: int, words: NDArray[np.int64]) -> NDArray[np.int64]:
        """What the children ask of `level`: `words`, or what the links leave."""
        if (level, tensor) not in self._rows:
            return words
        sent, _, linked = self._rows[level, tensor]
        asked: NDArray[np.int64] = np.where(linked > 0, sent, words)
        return asked

    def reads(self, level: int, tensor: int, used: NDArray[np.int64]) -> NDArray[np.int64]:
        """Words that one used instance of the child level sends over links below `level`."""
        return self._per_child(level, tensor, used, 0)

    def fills(self, level: int, tensor: int, used: NDArray[np.int64], words: NDArray[np.int64]) -> NDArray[np.int64]:
        """Words that one used instance of the child level receives: `words`, or what `level` and the links bring."""
        if (level, tensor) not in self._rows:
            return words
        _, received, linked = self._rows[level, tensor]
        brought: NDArray[np.int64] = np.where(linked > 0, self._per_child(level, tensor, used, received), words)
        return brought

    def _per_child(self, level: int, tensor: int, used: NDArray[np.int64], received: NDArray[np.int64] | int) -> NDArray[np.int64]:
        """`received` words of all children of one instance, and what moves over links, per child; rounded half up."""
        if (level, tensor) not in self._rows:
            return self._zero
        words: NDArray[np.int64] = np.floor(received / self._children[level] + self._rows[level, tensor][2] / used + 0.5).astype(np.int64)
        return words


def transfers(batch: Batch, nest: Nest, index: int) -> dict[tuple[int, int], Transfer]:
    """``(level, tensor) -> transfers`` below that level in one mapping, where they change anything."""
    problem = batch.problem
    found = {}
    for t, shape in enumerate(problem.shapes):
        if not shape.mixed or t == problem.output:
            continue
        sliding = {dim for rank in shape.mixed for dim, _ in rank}
        for level in range(1, len(problem.levels)):
            if batch.keep[index, level - 1, t] and any(nest.spatial[level][dim][index] > 1 for dim in sliding):
                transfer = _transfer(batch, nest, index, t, level)
                if transfer.linked:
                    found[level, t] = transfer
    return found


def _transfer(batch: Batch, nest: Nest, index: int, t: int, level: int) -> Transfer:
    shape = batch.problem.shapes[t]
    children = _children(batch, nest, index, t, level)
    neighbours = _neighbours(len(children), batch.problem.architecture.fanout(level)[0])
    distinct = len(set(children))
    sent = received = linked = 0
    for step in _steps(nest, index, shape.ranks, level):
        words, count = step.now[0], step.count
        served: set[int] = set()
        if words and step.now == step.before:
            served = {
                child
                for child, position in enumerate(children)
                if any(
                    tuple(there - here for there, here in zip(children[other], position, strict=True)) == step.move
                    for other in neighbours[child]
                )
            }
        rest = {position for child, position in enumerate(children) if child not in served}
        if len(rest) == distinct:
            served = set()
        sent += count * words * len(rest)
        received += count * words * (len(children) - len(served))
        linked += count * words * len(served)
    return Transfer(sent, received, linked)


def _children(batch: Batch, nest: Nest, index: int, t: int, level: int) -> list[Vector]:
    """Displacement of each child's window, by linear index over the spatial loops: those along X inside, innermost fastest."""
    problem = batch.problem
    order = range(len(problem.dims)) if batch.spatial_order is None else batch.spatial_order[index, level].tolist()
    inner_first = sorted(order, key=lambda dim: int(batch.axis[index, level, dim]))
    loops = [problem.active.index(dim) for dim in inner_first if dim in problem.active]
    counts = [int(nest.spatial[level][dim][index]) for dim in loops]
    steps = [[dict(rank).get(dim, 0) * int(nest.below[level][dim][index]) for rank in problem.shapes[t].ranks] for dim in loops]
    return [
        tuple(sum(i * step[rank] for i, step in zip(position[::-1], steps, strict=True)) for rank in range(len(problem.shapes[t].ranks)))
        for position in itertools.product(*(range(count) for count in reversed(counts)))
    ]


def _neighbours(children: int, width: int) -> list[list[int]]:
    """Mesh neighbours of each child of a fan-out `width` children wide; no wrap-around."""
    result = []
    for child in range(children):
        x, y = child % width, child // width
        near = [(x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)]
        result.append([v * width + h for h, v in near if 0 <= h < width and v >= 0 and v * width + h < children])
    return result


def _steps(nest: Nest, index: int, ranks: list[tuple[tuple[int, int], ...]], level: int) -> list[_Step]:
    """The steps that the tile of a child of `level` makes, grouped by the loop that advances and what came before."""
    loops: list[tuple[int, Vector]] = []
    for i in range(level, len(nest.temporal)):
        for dim in nest.order[i][:, index].tolist():
            factor = int(nest.temporal[i][dim][index])
            if factor > 1:
                step = int(nest.step[i][dim][index])
                loops.append((factor, tuple(dict(rank).get(dim, 0) * step for rank in ranks)))
    tile = [1 + sum(coefficient * (int(nest.below[level][dim][index]) - 1) for dim, coefficient in rank) for rank in ranks]
    words = math.prod(tile)
    first = next((move for _, move in loops if any(move)), None)
    if first is None:
        return [_Step(1, tuple(0 for _ in ranks), (0, False), (words, False))]
    slide = words - math.prod(max(0, length - move) for length, move in zip(tile, first, strict=True))
    moves: list[Vector] = []
    brought: list[tuple[int, bool]] = []
    passed = np.zeros(len(ranks), np.int64)
    for _, move in loops:
        delta = tuple((np.array(move) - passed).tolist())
        passed = passed + np.array(move)
        moves.append(delta)
        brought.append((0, False) if not any(delta) else (slide, slide < words) if delta == first else (words, False))
    steps = [_Step(1, tuple(0 for _ in ranks), (0, False), (words, False))]
    start = (words, False)
    for j, (factor, _) in enumerate(loops):
        repeats = math.prod(outer for outer, _ in loops[j + 1 :])
        if j:
            # The step before was the innermost loop's.
            steps.append(_Step((factor - 1) * repeats, moves[j], brought[0], brought[j]))
            continue
        # The step before was the start, or made by the innermost outer loop that is not at its first index.
        steps.append(_Step(factor - 1, moves[0], start, brought[0]))
        for k in range(1, len(loops)):
            before = (loops[k][0] - 1) * math.prod(outer for outer, _ in loops[k + 1 :])
            steps.append(_Step((factor - 1) * before, moves[0], brought[k], brought[0]))
    return steps
