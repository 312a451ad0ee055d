"""Brute-force loop-nest interpreters: slow, obviously right, written apart from the model they judge.

`corners` follows the reference tool's procedure literally (two iterations of each loop, weighted) and judges the
``timeloop`` semantics; `full_walk` visits everything and judges ``walk``. Both speak plain Python integers.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from dataclasses import dataclass, field

from tilewright.protocol.mapping import Mapping
from tilewright.protocol.workload import Operator, Tensor


@dataclass
class Row:
    """Words per (first) instance, and of all instances together."""

    tile: int = 0
    reads: int = 0
    fills: int = 0
    updates: int = 0
    all_reads: int = 0
    all_fills: int = 0
    all_updates: int = 0


@dataclass
class Verdict:
    steps: int
    used: list[int]
    rows: dict[tuple[int, str], Row] = field(default_factory=dict)


@dataclass
class _Loop:
    level: int
    spatial: bool
    dim: str
    factor: int
    step: int


def _nest(operator: Operator, mapping: Mapping) -> list[_Loop]:
    """All loops, innermost first, with their steps; trivial ones left out."""
    inside = dict.fromkeys(operator.bounds, 1)
    loops = []
    for i, level in enumerate(mapping.levels):
        for spatial, block in ((True, level.spatial), (False, level.temporal)):
            for loop in block:
                if loop.factor > 1:
                    loops.append(_Loop(i, spatial, loop.dim, loop.factor, inside[loop.dim]))
                    inside[loop.dim] *= loop.factor
    return loops


def _tile(operator: Operator, loops: list[_Loop], level: int) -> dict[str, int]:
    size = dict.fromkeys(operator.bounds, 1)
    for loop in loops:
        if loop.level <= level:
            size[loop.dim] *= loop.factor
    return size


def _extents(tensor: Tensor, size: dict[str, int]) -> list[int]:
    return [1 + sum(term.coefficient * (size[term.dim] - 1) for term in rank.terms) for rank in tensor.ranks]


def _vector(tensor: Tensor, at: dict[str, int]) -> tuple[int, ...]:
    return tuple(sum(term.coefficient * at.get(term.dim, 0) for term in rank.terms) for rank in tensor.ranks)


def corners(operator: Operator, mapping: Mapping, release: str = "2025") -> Verdict:
    """The reference tool's counts, by its own procedure."""
    loops = _nest(operator, mapping)
    levels = range(len(mapping.levels))
    steps = math.prod(loop.factor for loop in loops if not loop.spatial)
    used = [math.prod(loop.factor for loop in loops if loop.spatial and loop.level > i) for i in levels]
    verdict = Verdict(steps, used)
    for tensor in operator.tensors:
        keeps = [i for i in levels if tensor.name in mapping.levels[i].keep]
        share = operator_words(operator, tensor)
        shares = {}
        for i in reversed(levels):
            shares[i] = share
            for loop in loops:
                if loop.spatial and loop.level == i and loop.dim in tensor.dims:
                    share //= loop.factor
        demand = steps
        for i in levels:
            children = [loop for loop in loops if loop.spatial and loop.level == i]
            windows = {
                _vector(tensor, _position(zip(children, index, strict=True)))
                for index in itertools.product(*(range(loop.factor) for loop in children))
            }
            asked = len(windows) * demand
            if i in keeps:
                delivered = _corner_delivery(tensor, loops, i, _tile(operator, loops, i), release)
                outermost = i == keeps[-1]
                row = Row(tile=math.prod(_extents(tensor, _tile(operator, loops, i))))
                if tensor.name != operator.output:
                    row.reads, row.fills = asked, 0 if outermost else delivered
                else:
                    row.updates, row.reads = asked, asked - shares[i]
                    row.fills = 0 if outermost else delivered - (shares[i] if release == "2025" else 0)
                row.all_reads, row.all_fills, row.all_updates = (words * used[i] for words in (row.reads, row.fills, row.updates))
                verdict.rows[i, tensor.name] = row
                demand = delivered
            else:
                demand = asked
    return verdict


def operator_words(operator: Operator, tensor: Tensor) -> int:
    return math.prod(_extents(tensor, operator.bounds))


def _position(loops_at) -> dict[str, int]:
    at: dict[str, int] = defaultdict(int)
    for loop, index in loops_at:
        at[loop.dim] += index * loop.step
    return at


def _corner_delivery(tensor: Tensor, loops: list[_Loop], level: int, size: dict[str, int], release: str) -> int:
    outer = [loop for loop in loops if not loop.spatial and loop.level > level]
    lengths = _extents(tensor, size)
    words = math.prod(lengths)

    def overlap(delta):
        return math.prod(max(0, length - abs(by)) for length, by in zip(lengths, delta, strict=True))

    total, previous, translation = 0, None, None
    for index in itertools.product((0, 1), repeat=len(outer)):
        index = index[::-1]
        weight = math.prod(loop.factor - 1 if at else 1 for loop, at in zip(outer, index, strict=True))
        position = _vector(tensor, _position(zip(outer, index, strict=True)))
        if previous is None:
            new = words
        else:
            delta = tuple(now - before for now, before in zip(position, previous, strict=True))
            if not any(delta) and release == "2025":
                new = 0
            elif translation is None or translation == delta:
                new, translation = words - overlap(delta), delta
            else:
                new, translation = words, None
        previous = position
        total += weight * new
    return total


def full_walk(operator: Operator, mapping: Mapping) -> Verdict:
    """Counts of a true walk: every iteration inside of the bounds, box by box, instance by instance."""
    loops = _nest(operator, mapping)
    levels = range(len(mapping.levels))
    bounds = operator.bounds
    temporal = [loop for loop in loops if not loop.spatial]
    steps = 0
    for index in itertools.product(*(range(loop.factor) for loop in reversed(temporal))):
        at = _position(zip(reversed(temporal), index, strict=True))
        steps += all(at[dim] < bound for dim, bound in bounds.items())
    used = []
    for i in levels:
        outside = [loop for loop in loops if loop.spatial and loop.level > i]
        used.append(
            sum(
                all(_position(zip(outside, index, strict=True))[dim] < bound for dim, bound in bounds.items())
                for index in itertools.product(*(range(loop.factor) for loop in outside))
            )
        )
    verdict = Verdict(steps, used)
    for tensor in operator.tensors:
        keeps = [i for i in levels if tensor.name in mapping.levels[i].keep]
        for k, parent in enumerate(keeps):
            child = keeps[k - 1] if k else -1
            size = {dim: min(extent, bounds[dim]) for dim, extent in _tile(operator, loops, parent).items()}
            row = verdict.rows[parent, tensor.name] = Row(tile=math.prod(_extents(tensor, size)))
            asked = _requests(operator, tensor, loops, child, parent)
            entering, held = _deliveries(operator, tensor, loops, parent)
            outermost = parent == keeps[-1]
            first = tuple(0 for loop in loops if loop.spatial and loop.level > parent)
            everything = (sum(asked.values()), sum(entering.values()), sum(len(words) for words in held.values()))
            one = (asked[first], entering[first], len(held[first]))
            for prefix, (requests, deliveries, distinct) in (("", one), ("all_", everything)):
                if tensor.name != operator.output:
                    setattr(row, f"{prefix}reads", requests)
                    setattr(row, f"{prefix}fills", 0 if outermost else deliveries)
                else:
                    setattr(row, f"{prefix}updates", requests)
                    setattr(row, f"{prefix}reads", requests - distinct)
                    setattr(row, f"{prefix}fills", 0 if outermost else deliveries - distinct)
    return verdict


def _boxes(operator: Operator, tensor: Tensor, loops: list[_Loop], level: int):
    """For each step of the loops outside of a level, in order: instance -> (new words, box), for instances with work."""
    outer = [loop for loop in loops if not loop.spatial and loop.level > level]
    fan = [loop for loop in loops if loop.spatial and loop.level > level]
    tile = _tile(operator, loops, level)
    held: dict[tuple[int, ...], frozenset] = {}
    for index in itertools.product(*(range(loop.factor) for loop in reversed(outer))):
        time = _position(zip(reversed(outer), index, strict=True))
        news = {}
        for instance in itertools.product(*(range(loop.factor) for loop in fan)):
            place = _position(zip(fan, instance, strict=True))
            start = {dim: time[dim] + place[dim] for dim in operator.bounds}
            size = {dim: min(tile[dim], bound - start[dim]) for dim, bound in operator.bounds.items()}
            if min(size.values()) < 1:
                continue
            low = _vector(tensor, start)
            box = frozenset(itertools.product(*(range(at, at + length) for at, length in zip(low, _extents(tensor, size), strict=True))))
            # A compute unit holds nothing: every step asks again.
            news[instance] = (box - held.get(instance, frozenset()) if level >= 0 else box, box)
            held[instance] = box
        yield fan, news


def _deliveries(operator: Operator, tensor: Tensor, loops: list[_Loop], level: int):
    entering: dict[tuple[int, ...], int] = defaultdict(int)
    held: dict[tuple[int, ...], set] = defaultdict(set)
    for _, news in _boxes(operator, tensor, loops, level):
        for instance, (new, box) in news.items():
            entering[instance] += len(new)
            held[instance] |= box
    return entering, held


def _requests(operator: Operator, tensor: Tensor, loops: list[_Loop], child: int, parent: int):
    """Words asked of each instance of `parent`; at each fan-out in between, siblings that ask for the same are answered once."""
    asked: dict[tuple[int, ...], int] = defaultdict(int)
    for fan, news in _boxes(operator, tensor, loops, child):
        asking = {instance: (new,) if new else () for instance, (new, _) in news.items()}
        boxes = {instance: (box,) for instance, (_, box) in news.items()}
        remaining = list(fan)
        for level in range(child + 1, parent + 1):
            keep = [k for k, loop in enumerate(remaining) if loop.level != level]
            siblings = defaultdict(dict)
            for instance, requests in asking.items():
                owner = tuple(instance[k] for k in keep)
                # Siblings on one box ask for the same; what one of them asks for beyond the other is sent once.
                key = boxes[instance]
                known = siblings[owner].get(key, ())
                siblings[owner][key] = max(known, requests, key=lambda each: sum(map(len, each)))
            asking = {owner: sum(groups.values(), ()) for owner, groups in siblings.items()}
            boxes = {owner: tuple(sorted(groups, key=repr)) for owner, groups in siblings.items()}
            remaining = [remaining[k] for k in keep]
        for owner, requests in asking.items():
            asked[owner] += sum(map(len, requests))
    return asked
