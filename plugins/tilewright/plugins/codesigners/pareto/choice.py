"""One mapping per operator on given hardware, so that the objective of the whole is least."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.loopnest.designing import Hardware
from tilewright.protocol.cost import Objective, objective_value

#: Objectives that are E^a C^b -> (a, b).
PRODUCTS: dict[str, tuple[int, int]] = {"edp": (1, 1), "ed2p": (1, 2), "e2dp": (2, 1)}
#: Iterations of the fixpoint; it settles after two or three.
SETTLED = 12
#: Steps of the bisection that meets a latency target.
HALVINGS = 40


@dataclass(frozen=True)
class Choice:
    """Hardware with one mapping (index into its pool) per operator."""

    hardware: Hardware
    indices: tuple[int, ...]
    #: The objective, then what breaks ties.
    value: tuple[float, float]
    #: Of the whole: pJ, cycles, mm2.
    energy: float
    cycles: float
    area: float


@dataclass(frozen=True)
class Figures:
    """pJ and cycles of every mapping of each pool on one hardware, times how often the operator runs."""

    hardware: Hardware
    area: float
    energies: list[NDArray[Any]]
    cycles: list[NDArray[Any]]

    def best(self, objective: Objective, most_cycles: float = np.inf) -> Choice:
        """The choice with the least objective that takes at most `most_cycles`; where none does, the fastest, of infinite value.

        A product of powers (sum of E)^a (sum of C)^b is least where E + lambda C is least with lambda = b E / a C of the answer
        itself: a fixpoint. A latency target raises lambda until it is met.
        """
        if objective in PRODUCTS:
            found = self._fixpoint(objective)
        elif objective.startswith("latency"):
            found = self._choice([int(np.lexsort((e, c))[0]) for e, c in zip(self.energies, self.cycles, strict=True)], objective)
        else:
            found = self._choice([int(np.lexsort((c, e))[0]) for e, c in zip(self.energies, self.cycles, strict=True)], objective)
        return found if found.cycles <= most_cycles else self._fast_enough(found, objective, most_cycles)

    def _fixpoint(self, objective: Objective) -> Choice:
        a, b = PRODUCTS[objective]
        found = self._choice([int(np.argmin(e**a * c**b)) for e, c in zip(self.energies, self.cycles, strict=True)], objective)
        for _ in range(SETTLED):
            better = self.weighted(b * found.energy / (a * found.cycles), objective)
            if better.value >= found.value:
                break
            found = better
        return found

    def _fast_enough(self, slow: Choice, objective: Objective, most_cycles: float) -> Choice:
        fastest = self.best("latency")
        if fastest.cycles > most_cycles:
            return replace(fastest, value=(np.inf, fastest.cycles))
        found = self._choice(list(fastest.indices), objective)
        low = high = slow.energy / slow.cycles
        while (quicker := self.weighted(high, objective)).cycles > most_cycles and high < 1e18:
            low, high = high, 16 * high
        if quicker.cycles > most_cycles:
            return found
        found = min(found, quicker, key=lambda each: each.value)
        for _ in range(HALVINGS):
            middle = (low * high) ** 0.5
            between = self.weighted(middle, objective)
            if between.cycles > most_cycles:
                low = middle
            else:
                high = middle
                found = min(found, between, key=lambda each: each.value)
        return found

    def weighted(self, weight: float, objective: Objective) -> Choice:
        """The choice with the least E + weight x C."""
        return self._choice([int(np.argmin(e + weight * c)) for e, c in zip(self.energies, self.cycles, strict=True)], objective)

    def _choice(self, picks: list[int], objective: Objective) -> Choice:
        energy = float(sum(each[i] for each, i in zip(self.energies, picks, strict=True)))
        cycles = float(sum(each[i] for each, i in zip(self.cycles, picks, strict=True)))
        value = objective_value(objective, energy, cycles)
        return Choice(self.hardware, tuple(picks), (value, cycles if objective == "energy" else energy), energy, cycles, self.area)
