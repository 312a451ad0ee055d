"""Exact scores: mappings collected per operator, the best choice of them on given hardware, and the best hardware for them.

What a mapping moves does not depend on sizes, so a mapping is evaluated once (`loopnest.Pool`) and then priced on any hardware.
Symbols: ``B`` mappings of one operator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright import loopnest as ln
from tilewright.protocol.cost import Objective, objective_value
from tilewright.protocol.plugin import Context, DesignCandidate

from .machine import Hardware, Sizes

#: Exponent of cycles for one of energy, of the objectives that are products.
PRODUCTS: dict[str, float] = {"edp": 1.0, "ed2p": 2.0, "e2dp": 0.5}
#: Iterations of the fixpoint; it settles after two or three.
SETTLED = 12
#: Mappings per operator that stay when pools are thinned, for each hardware and each of three scores.
SHORTLIST = 12
#: Ratios by which a parameter is changed in search of better hardware.
STEPS = (0.5, 0.75, 0.93, 1.07, 1.35, 2.0)

Figures = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class Choice:
    """Hardware with one mapping (an index) per operator, and the objective of the whole."""

    hardware: Hardware
    picks: tuple[int, ...]
    value: float


class Pools:
    """Mappings of all operators with their traffic."""

    def __init__(
        self, problems: list[ln.Problem], counts: list[float], objective: Objective, sizes: Sizes, area: float, ctx: Context
    ) -> None:
        """`area` is the limit in mm2; problems are on the largest hardware."""
        self._counts, self._objective, self._sizes, self._area, self._ctx = counts, objective, sizes, area, ctx
        self.batches = [ln.Batch.from_mappings(problem, []) for problem in problems]
        #: None: to be counted when it is next asked for.
        self._pools: list[ln.Pool | None] = [None for _ in problems]
        self._seen: list[set[bytes]] = [set() for _ in problems]
        self._priced: dict[Hardware, Choice | None] = {}

    def add(self, operator: int, batch: ln.Batch) -> int:
        """Evaluate the mappings that are new, as many as the budget has left; how many that were."""
        fresh = []
        for index, key in enumerate(keys(batch)):
            if key not in self._seen[operator]:
                self._seen[operator].add(key)
                fresh.append(index)
        left = self._ctx.budget.evaluations
        batch = batch[np.array(fresh[:left], dtype=np.int64)]
        if len(batch):
            self._ctx.charge(len(batch))
            self.batches[operator] = ln.Batch.concatenate([self.batches[operator], batch])
            self._pools[operator] = None
            self._priced.clear()
        return len(batch)

    def figures(self, hardware: Hardware) -> list[Figures]:
        """pJ and cycles of all mappings of each operator, times its count; infinite where a mapping does not fit."""
        architecture = self._sizes.architecture(hardware)
        found = []
        for operator, count in enumerate(self._counts):
            pool = self._pools[operator]
            if pool is None:
                pool = self._pools[operator] = ln.Pool(self.batches[operator])
            cycles, energy = pool.on(architecture)
            fits = np.isfinite(energy)
            found.append((energy * count, np.where(fits, cycles * count, np.inf)))
        return found

    def choose(self, hardware: Hardware) -> Choice | None:
        """The best choice on some hardware; None where an operator has no mapping that fits, or the area is too large."""
        if hardware not in self._priced:
            self._priced[hardware] = self._choose(hardware)
        return self._priced[hardware]

    def _choose(self, hardware: Hardware) -> Choice | None:
        if np.isfinite(self._area):
            prices = ln.Prices(self._sizes.architecture(hardware))
            if prices.compute_area + sum(prices.area) > self._area:
                return None
        figures = self.figures(hardware)
        if not all(np.isfinite(energy).any() for energy, _ in figures):
            return None
        return self._chosen(hardware, figures)

    def _chosen(self, hardware: Hardware, figures: list[Figures]) -> Choice:
        """The least objective: one figure first; or E C^b, least where E + lambda C is with lambda = b E / C of the answer itself."""
        if self._objective not in PRODUCTS:
            first = 0 if self._objective.startswith("energy") else 1
            return self._choice(hardware, figures, [int(np.lexsort((each[1 - first], each[first]))[0]) for each in figures])[0]
        ratio = PRODUCTS[self._objective]
        best, energy, cycles = self._choice(hardware, figures, [int(np.argmin(e * c**ratio)) for e, c in figures])
        for _ in range(SETTLED):
            picks = [int(np.argmin(e + ratio * energy / cycles * c)) for e, c in figures]
            found, energy, cycles = self._choice(hardware, figures, picks)
            if found.value >= best.value:
                break
            best = found
        return best

    def _choice(self, hardware: Hardware, figures: list[Figures], picks: list[int]) -> tuple[Choice, float, float]:
        """A choice, with pJ and cycles of the whole."""
        energy, cycles = (sum(float(each[side][pick]) for each, pick in zip(figures, picks, strict=True)) for side in (0, 1))
        return Choice(hardware, tuple(picks), objective_value(self._objective, energy, cycles)), energy, cycles

    def improve(self, start: Choice) -> Choice:
        """The best choice that steps of single parameters lead to, each shrunk to what its mappings need."""
        best = self._best([start, self.choose(self._shrunk(start))])
        while not self._ctx.cancelled:
            found = self._best([best, *map(self.choose, self._around(best))])
            if found is best:
                break
            best = self._best([found, self.choose(self._shrunk(found))])
        return best

    @staticmethod
    def _best(choices: list[Choice | None]) -> Choice:
        """The first of the lowest."""
        return min((each for each in choices if each is not None), key=lambda each: each.value)

    def _around(self, choice: Choice) -> list[Hardware]:
        """Hardware with one parameter at other values, none priced yet."""
        found = []
        for at, (here, values) in enumerate(zip(choice.hardware, self._sizes.values, strict=True)):
            wanted = {int(values[np.abs(np.log(values / (here * step))).argmin()]) for step in STEPS}
            found += [(*choice.hardware[:at], value, *choice.hardware[at + 1 :]) for value in sorted(wanted - {here})]
        return [hardware for hardware in found if hardware not in self._priced]

    def _shrunk(self, choice: Choice) -> Hardware:
        """The smallest values, one parameter after the other, on which all chosen mappings fit."""
        chosen = [ln.Pool(batch[pick : pick + 1]) for batch, pick in zip(self.batches, choice.picks, strict=True)]
        hardware = list(choice.hardware)
        for at, values in enumerate(self._sizes.values):
            low, high = 0, int(np.flatnonzero(values == hardware[at])[0])
            while low < high:
                middle = (low + high) // 2
                there = self._sizes.architecture((*hardware[:at], int(values[middle]), *hardware[at + 1 :]))
                if all(np.isfinite(pool.on(there)[1][0]) for pool in chosen):
                    high = middle
                else:
                    low = middle + 1
            hardware[at] = int(values[high])
        return tuple(hardware)

    def thin(self, hardware: list[Hardware]) -> list[Choice]:
        """Keep the mappings that are among the best on some of the hardware; the best choices on it."""
        keep: list[set[int]] = [set() for _ in self.batches]
        for each in hardware:
            choice = self.choose(each)
            picks = choice.picks if choice is not None else ()
            for kept, pick in zip(keep, picks, strict=False):
                kept.add(pick)
            for kept, (energy, cycles) in zip(keep, self.figures(each), strict=True):
                for score in (energy, cycles, energy * cycles):
                    few = np.argsort(score, kind="stable")[:SHORTLIST]
                    kept.update(few[np.isfinite(score[few])].tolist())
        for operator, kept in enumerate(keep):
            self.batches[operator] = self.batches[operator][np.array(sorted(kept))]
            self._pools[operator] = None
        self._priced.clear()
        return [choice for choice in map(self.choose, hardware) if choice is not None]

    def candidate(self, choice: Choice) -> DesignCandidate:
        """A choice as an answer."""
        names = (parameter.name for parameter in self._sizes.parameters)
        mappings = tuple(batch.mapping(pick) for batch, pick in zip(self.batches, choice.picks, strict=True))
        return DesignCandidate(dict(zip(names, choice.hardware, strict=True)), mappings)


def keys(batch: ln.Batch) -> list[bytes]:
    """What distinguishes mappings: factors, and the order of the loops that there are."""
    order = np.where(np.take_along_axis(batch.temporal, batch.order.astype(np.int64), axis=2) > 1, batch.order, -1)
    return [b"".join(part[i].tobytes() for part in (batch.temporal, batch.spatial, order)) for i in range(len(batch))]
