"""CoSA's mixed-integer program in aggregated form: how many of a dim's equal primes are at each (level, kind).

It has the optimum of the published program, which spends one binary per single prime and rank, with a tenth of the variables:
equal primes of a dim are interchangeable, and the published ranks only decide which tensors stay stationary, so a few
one-hot binaries (`Formulation.savings`) replace them. All sizes are base-2 logarithms, so every row is linear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import log2
from typing import NamedTuple, TypeAlias

import pulp

from tilewright.protocol.mapping import Axis, LevelMapping, Loop, Mapping

from .formulation import Formulation, Saving, Window

TEMPORAL, X, Y = "t", "x", "y"
Expression: TypeAlias = pulp.LpAffineExpression


class Slot(NamedTuple):
    """Where some of a dim's equal primes can be; the program counts how many are."""

    dim: int
    prime: int
    level: int
    kind: str


def _where(**fields: int | str) -> Callable[[Slot], bool]:
    """Chooses the slots with these values."""
    return lambda slot: all(getattr(slot, name) == value for name, value in fields.items())


class Weights(NamedTuple):
    """Weights of the objective's three terms; the defaults are the released ones.

    The weighted sum is ``-utilization * Util + compute * Comp + traffic * Traf``. The balance is ``-utilization * Util + max(compute *
    Comp, traffic * Traf)``: where transfers and work overlap, only the longer of them counts. A hundredth of their sum is added, so
    that the shorter one is not left open.
    """

    utilization: float = 0.1
    compute: float = 10.0
    traffic: float = 1.0


#: The weights of the balance: log-sizes of work and of traffic, as they are.
EVEN = Weights(compute=1.0, traffic=1.0)
#: Share of the sum in the balance.
REMAINDER = 0.01


class Solution(NamedTuple):
    """A solved program."""

    mapping: Mapping
    #: The program's objective there, recomputed from the integer counts.
    objective: float
    #: False when the solver stopped at its node limit.
    proven: bool
    variables: int
    rows: int


class Program:
    """The program of one formulation."""

    def __init__(self, formulation: Formulation, weights: Weights = Weights(), *, balance: bool = False) -> None:  # noqa: B008 (immutable)
        self.f = formulation
        self.lp = pulp.LpProblem("cosa", pulp.LpMinimize)
        self._integers: list[pulp.LpVariable] = []
        self._counts: dict[Slot, pulp.LpVariable] = {}
        #: Level -> its possible orders with the log-size that each keeps stationary.
        self._orders: dict[int, list[tuple[Expression, Saving]]] = {}
        self._saved: dict[int, pulp.LpVariable] = {}
        self._place_factors()
        tiles = self._tiles({window: self._halo(window) for window in self.f.windows})
        compute = self._size(lambda s: s.kind == TEMPORAL)
        self._longer: tuple[pulp.LpVariable, tuple[Expression, ...]] | None = None
        terms = (weights.compute * compute, weights.traffic * self._traffic())
        total = terms[0] + terms[1]
        if balance:
            longer = self.lp.add_variable("longer", 0)
            for term in terms:
                self.lp += longer >= term
            self._longer = longer, terms
            total = longer + REMAINDER * total
        self.lp.setObjective(total - weights.utilization * self._utilization(tiles))

    def solve(self, solver: pulp.LpSolver) -> Solution | None:
        """Solve; None when there is no solution."""
        self.lp.solve(solver)
        if self.lp.sol_status not in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible):
            return None
        for variable in self._integers:
            variable.varValue = round(variable.varValue or 0.0)
        for level, saved in self._saved.items():
            saved.varValue = max(size.value() for size, _ in self._orders[level])
        if self._longer is not None:
            self._longer[0].varValue = max(term.value() for term in self._longer[1])
        proven = self.lp.sol_status == pulp.LpSolutionOptimal
        return Solution(self._mapping(), float(self.lp.objective.value()), proven, len(self.lp.variables()), len(self.lp.constraints()))

    def _integer(self, name: str, high: int) -> pulp.LpVariable:
        variable = self.lp.add_variable(name, 0, high, cat=pulp.LpInteger)
        self._integers.append(variable)
        return variable

    def _slots(self, chosen: Callable[[Slot], bool]) -> Iterator[tuple[Slot, pulp.LpVariable]]:
        return ((slot, variable) for slot, variable in self._counts.items() if chosen(slot))

    def _size(self, chosen: Callable[[Slot], bool], weight: Callable[[Slot], float] = lambda s: 1.0) -> Expression:
        """Weighted log-size of the loops in the chosen slots."""
        return Expression([(variable, weight(slot) * log2(slot.prime)) for slot, variable in self._slots(chosen) if slot.prime > 1])

    def _place_factors(self) -> None:
        """Assignment, fan-out and factor-limit rows."""
        f, lp = self.f, self.lp
        for dim, prime, count in f.factors:
            for level, (wide, high) in enumerate(f.fanout):
                allowed = {TEMPORAL: dim in f.temporal[level]}
                allowed |= {kind: dim in f.spatial[level] and 1 < prime <= side for kind, side in ((X, wide), (Y, high))}
                for kind in (kind for kind, yes in allowed.items() if yes):
                    self._counts[Slot(dim, prime, level, kind)] = self._integer(f"n_{f.dims[dim]}_{prime}_{level}{kind}", count)
            lp += pulp.lpSum(v for _, v in self._slots(_where(dim=dim, prime=prime))) == count
        for level, sides in enumerate(f.fanout):
            for kind, side in zip((X, Y), sides, strict=True):
                if loops := self._size(_where(level=level, kind=kind)):
                    lp += loops <= log2(side)
            self._one_axis_each(level)
        for (level, dim), most in f.limits.items():
            lp += self._size(_where(dim=dim, level=level, kind=TEMPORAL)) <= log2(most)

    def _one_axis_each(self, level: int) -> None:
        """A dim is spatial along at most one axis of a level."""
        for dim, name in enumerate(self.f.dims):
            along = {k: list(self._slots(_where(dim=dim, level=level, kind=k))) for k in (X, Y)}
            if along[X] and along[Y]:
                vertical = self._integer(f"y_{name}_{level}", 1)
                for kind, off in ((X, vertical), (Y, 1 - vertical)):
                    for _, variable in along[kind]:
                        self.lp += variable <= variable.upBound * (1 - off)

    def _halo(self, window: Window) -> Expression:
        """Log-size that the taps of a sliding window add to the tile at its halo level.

        All taps on chip count. Once a factor of an output dim of the window is inside the tile, every tap factor counts as 2
        instead ("P outputs of R taps need P + R - 1 <= 2 P words").
        """
        f, lp = self.f, self.lp
        level = f.halo_level(window)
        if level < 0:
            return Expression()
        name = f"{'_'.join(f.dims[d] for d in window.taps)}_{f.tensors[window.tensor]}"
        inside = self._integer(f"inside_{name}", 1)
        outs = [variable for _, variable in self._slots(lambda s: s.dim in window.outs and s.level <= level)]
        for variable in outs:
            lp += inside >= variable * (1 / variable.upBound)
        lp += inside <= pulp.lpSum(outs)
        total = Expression()
        for dim, prime, count in f.factors:
            if dim in window.taps:
                on_chip = pulp.lpSum(v for slot, v in self._slots(_where(dim=dim, prime=prime)) if slot.level <= f.shared)
                product = self._integer(f"product_{f.dims[dim]}_{prime}_{name}", count)
                lp += product <= count * inside
                lp += product <= on_chip
                lp += product >= on_chip - count * (1 - inside)
                total += log2(prime) * on_chip + (1 - log2(prime)) * product
        return total

    def _tiles(self, halos: dict[Window, Expression]) -> dict[tuple[int, int], Expression]:
        """Log-size of each tensor's tile in each on-chip level that keeps it; capacity rows.

        As published, every single prime of a strided dim is multiplied by the stride.
        """
        f = self.f
        tiles = {}
        for level in range(f.outermost):
            for t in sorted(f.keep[level]):
                tile = Expression()
                for slot, variable in self._counts.items():
                    if slot.level <= level and slot.dim in f.relevant[t]:
                        tile.addterm(variable, log2(slot.prime * f.stride.get((t, slot.dim), 1)))
                for window, halo in halos.items():
                    if window.tensor == t and f.halo_level(window) == level:
                        tile += halo
                tiles[level, t] = tile
                if (level, t) in f.capacity:
                    self.lp += tile <= log2(f.capacity[level, t])
        return tiles

    def _utilization(self, tiles: dict[tuple[int, int], Expression]) -> Expression:
        """Sum of the tiles held on chip.

        The released code leaves out the shared level and gives the outermost level that keeps only weights 1 % more.
        """
        f = self.f
        if f.constants == "paper":
            return pulp.lpSum(tiles.values())
        extra = max((level for level in range(f.shared) if f.keep[level] == {f.weights_tensor}), default=-1)
        return pulp.lpSum(tile * (1.01 if level == extra else 1.0) for (level, _), tile in tiles.items() if level < f.shared)

    def _traffic(self) -> Expression:
        """Log-traffic over the boundary summed over the tensors: tile inside, spatial copies, temporal repeats; and over DRAM.

        The released code charges spatial loops to all tensors (multicast or not), favours inner levels by a few percent, and
        counts every temporal loop at DRAM once per tensor (weights 1 % more) whatever its relevance.
        """
        f = self.f
        released = f.constants == "release"
        sharers = {d: len(f.tensors) if released else len(f.relevance_class(d)) for d in range(len(f.dims))}

        def inside(slot: Slot) -> float:
            return len(f.relevance_class(slot.dim)) * (0.99 * (0.80 + 0.04 * slot.level) if released else 1.0)

        def copies(slot: Slot) -> float:
            return sharers[slot.dim] * (0.99 if released else 1.0)

        total = self._size(lambda s: s.level < f.boundary, inside)
        total += self._size(lambda s: s.level == f.boundary and s.kind != TEMPORAL, copies)
        total += self._repeats(f.boundary)
        if f.boundary < f.outermost and released:
            each = len(f.tensors) + (0.01 if f.weights_tensor >= 0 else 0.0)
            total += self._size(lambda s: s.level == f.outermost and s.kind == TEMPORAL, lambda s: each)
        elif f.boundary < f.outermost:
            total += self._repeats(f.outermost)
        return total

    def _repeats(self, level: int) -> Expression:
        """Temporal loops of a level, once per tensor, less what its best order keeps stationary."""
        f = self.f
        largest = len(f.tensors) * sum(count * log2(prime) for _, prime, count in f.factors)
        here = _where(level=level, kind=TEMPORAL)
        saved = self._saved[level] = self.lp.add_variable(f"saved_{level}", 0)
        self._orders[level] = []
        chosen = []
        for at, saving in enumerate(f.savings()):
            size = self._size(here, self._savings(saving))
            chosen.append(self._integer(f"order_{level}_{at}", 1))
            self.lp += saved <= size + largest * (1 - chosen[-1])
            self._orders[level].append((size, saving))
        self.lp += pulp.lpSum(chosen) == 1
        return self._size(here, lambda s: float(len(f.tensors))) - saved

    def _savings(self, saving: Saving) -> Callable[[Slot], float]:
        return lambda slot: float(saving.weights[self.f.relevance_class(slot.dim)])

    def _mapping(self) -> Mapping:
        f = self.f
        axes: tuple[tuple[str, Axis], ...] = ((X, "X"), (Y, "Y"))
        factors: dict[tuple[int, str, int], int] = {}
        for slot, variable in self._counts.items():
            key = (slot.level, slot.kind, slot.dim)
            factors[key] = factors.get(key, 1) * slot.prime ** int(variable.varValue)
        levels = []
        for index, level in enumerate(f.architecture.levels):
            order = f.default_order
            if index in self._orders:
                order = max(self._orders[index], key=lambda choice: choice[0].value())[1].order
            spatial = (Loop(f.dims[d], factors.get((index, kind, d), 1), axis) for d in f.default_order for kind, axis in axes)
            temporal = (Loop(f.dims[d], factors.get((index, TEMPORAL, d), 1)) for d in order)
            levels.append(
                LevelMapping(
                    level.name,
                    tuple(loop for loop in spatial if loop.factor > 1),
                    tuple(loop for loop in temporal if loop.factor > 1),
                    tuple(f.tensors[t] for t in sorted(f.keep[index])),
                )
            )
        return Mapping(tuple(levels))
