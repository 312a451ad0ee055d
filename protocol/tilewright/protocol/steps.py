"""Sums over the steps of a generation without counting every step: what a node does is an affine function of the context."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import msgspec

from .profile import Counted

#: Relative error that is allowed for cycles, which only grow about evenly.
TOLERANCE = 1e-3
_EXACT = ("flops", "read_bytes", "write_bytes", "external_bytes")

Steps = Callable[[int], Sequence[Counted]]


def summed(count: Steps, first: int, last: int) -> list[Counted]:
    """Figures of every node summed over the steps ``first .. last``; `count` gives those of one step.

    An interval is summed as an arithmetic series only if its middle lies on the line between its ends, node by node: exact for
    operations and bytes, which are affine functions of the context (but for parts of bytes that are rounded up, where words are
    narrower than one). Cycles, which grow in small steps, may be off by about `TOLERANCE`.
    """
    known: dict[int, Sequence[Counted]] = {}

    def at(step: int) -> Sequence[Counted]:
        if step not in known:
            known[step] = count(step)
        return known[step]

    totals: dict[str, Counted] = {}
    todo = [(first, last)] if first <= last else []
    while todo:
        low, high = todo.pop()
        middle = (low + high) // 2
        if low == high:
            _add(totals, at(low))
        elif high - low > 2 and not _even(at(low), at(middle), at(high), (middle - low) / (high - low)):
            todo += [(low, middle), (middle + 1, high)]
        elif high - low <= 2:
            todo += [(step, step) for step in range(low, high + 1)]
        else:
            _add(totals, (_series(*pair, high - low + 1) for pair in zip(at(low), at(high), strict=True)))
    return list(totals.values())


def _add(totals: dict[str, Counted], items: Iterable[Counted]) -> None:
    for item in items:
        before = totals.get(item.node)
        totals[item.node] = item if before is None else _map(lambda _, x, y: x + y, before, item)


def _map(combine: Callable[[str, float, float], float], one: Counted, other: Counted) -> Counted:
    figures = {}
    for name in (*_EXACT, "cycles"):
        x, y = getattr(one, name), getattr(other, name)
        figures[name] = None if x is None or y is None else combine(name, x, y)
    return msgspec.structs.replace(one, **figures)


def _series(low: Counted, high: Counted, steps: int) -> Counted:
    return _map(lambda _, x, y: (x + y) * steps / 2, low, high)


def _even(low: Sequence[Counted], middle: Sequence[Counted], high: Sequence[Counted], share: float) -> bool:
    """True when the middle is where a line puts it."""
    names = [item.node for item in low]
    if names != [item.node for item in middle] or names != [item.node for item in high]:
        return False
    for one, between, other in zip(low, middle, high, strict=True):
        line = _map(lambda _, x, y: x + (y - x) * share, one, other)
        for name in _EXACT:
            x, y = getattr(line, name), getattr(between, name)
            if (x is None) != (y is None) or (x is not None and not math.isclose(x, y, rel_tol=1e-12, abs_tol=1e-6)):
                return False
    cycles = [math.fsum(item.cycles or 0.0 for item in each) for each in (low, middle, high)]
    return math.isclose(cycles[1], cycles[0] + (cycles[2] - cycles[0]) * share, rel_tol=TOLERANCE, abs_tol=1e-6)
