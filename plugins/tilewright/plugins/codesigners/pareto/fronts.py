"""Pareto fronts among designs: energy-delay product against area, and energy against latency."""

from __future__ import annotations

from collections.abc import Sequence

from .choice import Choice


def front(choices: Sequence[Choice], count: int) -> list[Choice]:
    """Up to `count` non-dominated choices of each front, spread evenly along it, without repeats."""
    found: dict[Choice, None] = {}
    for pair in (_area_and_edp, _energy_and_cycles):
        best: list[Choice] = []
        for choice in sorted(choices, key=pair):
            if not best or pair(choice)[1] < pair(best[-1])[1]:
                best.append(choice)
        step = max(1.0, (len(best) - 1) / max(1, count - 1))
        found.update(dict.fromkeys(best[round(i * step)] for i in range(min(count, len(best)))))
    return list(found)


def _area_and_edp(choice: Choice) -> tuple[float, float]:
    return choice.area, choice.energy * choice.cycles


def _energy_and_cycles(choice: Choice) -> tuple[float, float]:
    return choice.energy, choice.cycles
