"""Pareto fronts among the designs of one search: energy-delay product against area, energy against latency."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tilewright.protocol.design import Design, FrontPoint

Pair = Callable[[FrontPoint], tuple[float, float]]


def point(design: Design) -> FrontPoint:
    """A design by its hardware and totals."""
    core = design.cores[0]
    area = max((task.schedule.cost.area_mm2 for task in design.tasks), default=0.0) if core.architecture.states_area else None
    return FrontPoint(core.parameters, design.energy_pj, design.cycles, area)


def front(points: Sequence[FrontPoint]) -> tuple[FrontPoint, ...]:
    """The points on either front, by energy; of equal ones the smallest."""
    pairs: list[Pair] = [lambda each: (each.energy_pj, each.cycles)]
    if all(each.area_mm2 is not None for each in points):
        pairs.append(lambda each: (each.area_mm2 or 0.0, each.edp))
    kept = {id(each): each for pair in pairs for each in _front(points, pair)}
    return tuple(sorted(kept.values(), key=lambda each: (each.energy_pj, each.cycles)))


def _front(points: Sequence[FrontPoint], pair: Pair) -> list[FrontPoint]:
    best: list[FrontPoint] = []
    for each in sorted(points, key=lambda one: (*pair(one), one.area_mm2 or 0.0)):
        if not best or pair(each)[1] < pair(best[-1])[1]:
            best.append(each)
    return best
