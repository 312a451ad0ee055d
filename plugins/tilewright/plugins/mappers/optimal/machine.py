"""Runs plans: for many configurations at once, or for one with a trace from which its nest is read back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright import loopnest as ln
from tilewright.loopnest.mapspace import prime_factors
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping

from .charges import Linear
from .lattice import Bools, Box, Floats, Lattice, crop, reach, stepped, sweep
from .plan import NOTHING, Op, Plan
from .spatial import Block, Chosen, Split, Units, Windows


class Machine:
    """A plan with the tables that it needs."""

    def __init__(
        self,
        problem: ln.Problem,
        lattice: Lattice,
        windows: Windows,
        blocks: list[Block],
        *,
        related: bool = True,
        sliding: bool = True,
    ) -> None:
        self.problem, self.lattice, self.blocks = problem, lattice, blocks
        self.plan = Plan(problem, windows, related=related, sliding=sliding)
        self._feasible = [self._fits(level) for level in range(len(problem.levels))]
        self._boxes = [lattice.box(fits) for fits in self._feasible]
        unit = NOTHING if _gapless(problem) else windows.sliding(self.plan.windowed)
        #: (tensor, along a window, through further spatial blocks) -> words fetched per lattice point.
        self._refetched: dict[tuple[int, bool, bool], Floats] = {}
        for t, slides in sorted({(op.subject, bool(op.window)) for op in self.plan.ops if op.kind == "charge"}):
            table = lattice.refetched(t, unit if slides else NOTHING)
            self._refetched[t, slides, False] = table
            self._refetched[t, slides, True] = lattice.lowered(table, windows.sliding(t))
        #: Per tensor that is refetched anywhere, the fewest words.
        self.fewest: dict[int, float] = {}
        for (t, *_), table in self._refetched.items():
            self.fewest[t] = min(self.fewest.get(t, np.inf), float(table.min()))
        self._related = {op.window: self._relation(op.subject, op.window) for op in self.plan.ops if op.kind == "relate"}
        self._last = {register: at for at, op in enumerate(self.plan.ops) for register in op.inputs}
        #: Array elements written so far: what the work of a plan is proportional to.
        self.work = 0

    def _fits(self, level: int) -> Bools:
        """Points whose tile fits a level, by itself and with nothing else in its pool."""
        words = self.problem.architecture.levels[level].usable_words
        if words is None:
            return np.ones(self.lattice.shape, dtype=bool)
        keep = ln.default_keep(self.problem)[level]
        fits: Bools = sum(self.lattice.words(t) for t in np.flatnonzero(keep).tolist()) <= words  # type: ignore[assignment]
        return np.broadcast_to(fits, self.lattice.shape)

    def _relation(self, tensor: int, window: frozenset[int]) -> Bools:
        """Points where a step along one dim of a window equals, or is twice, a step along the other: only then two loops look related."""
        operator = self.problem.operator
        terms = next(
            rank.terms
            for rank in operator.tensor(self.problem.tensors[tensor]).ranks
            if window <= {self.problem.dims.index(term.dim) for term in rank.terms}
        )
        steps = [t.coefficient * self.lattice.extent[self.problem.dims.index(t.dim)] for t in terms if operator.bounds[t.dim] > 1]
        if len(steps) != 2:
            return np.ones(self.lattice.shape, dtype=bool)
        one, other = steps
        return np.broadcast_to((one == other) | (one == 2 * other) | (other == 2 * one), self.lattice.shape)

    def least(self, chosen: Chosen | None, units: Units, costs: Linear) -> Floats:
        """``[N]``: the least of ``sum weight x F`` over all nests of each configuration (infinite where none fits).

        Without any `chosen`, the least over all configurations, of which `units` must be a bound.
        """
        registers: dict[int, Floats] = {}
        for at, op in enumerate(self.plan.ops):
            inputs = [registers[r] for r in op.inputs]
            mine = [self._last[r] == at for r in op.inputs]
            registers[at] = self._run(op, inputs, mine, chosen, units, costs)
            self.work += registers[at].size
            for r, over in zip(op.inputs, mine, strict=True):
                if over:
                    del registers[r]
        result: Floats = registers[self.plan.result].reshape(-1)
        return result

    def _run(self, op: Op, inputs: list[Floats], mine: list[bool], chosen: Chosen | None, units: Units, costs: Linear) -> Floats:
        """One operation; inputs that are `mine` may be overwritten."""
        lattice = self.lattice
        if op.kind == "start":
            # Nothing differs between configurations yet: one stands for all until something is charged.
            first = np.full((*lattice.shape, 1), np.inf)
            first[lattice.top] = 0.0
            return first
        if op.kind == "least":
            box = self._box(op.level - 1)
            parts = sorted((_cropped(values, box) for values in inputs), key=lambda part: -part.shape[-1])
            least = parts[0].copy()
            for other in parts[1:]:
                np.minimum(least, other, out=least)
            return least
        values = inputs[0] if mine[0] or op.kind in ("charge", "spatial", "double", "strict") else inputs[0].copy()
        if op.kind == "sweep":
            for k in lattice.of_dim[op.subject]:
                values = sweep(values, k, self._box(op.level - 1)[k])
        elif op.kind == "charge":
            charge = self._charge(op, units, costs, values.shape[:-1])
            charge += values
            values = charge
        elif op.kind == "spatial":
            values = self._spatial(op.level, values, None if chosen is None else chosen[op.level].tolist())
        elif op.kind == "tile" and op.level >= 0:
            values[~_part(self._feasible[op.level], values.shape[:-1])] = np.inf
        elif op.kind == "relate":
            values[~_part(self._related[op.window], values.shape[:-1])] = np.inf
        elif op.kind == "double":
            values = stepped(values, lattice.offset({op.subject: 2})) if self._even(op.subject) else np.full_like(values, np.inf)
        elif op.kind == "strict":
            values = self._strict(op.subject, values)
        return values

    def _box(self, level: int) -> Box:
        return self._boxes[level] if level >= 0 else (0,) * len(self.lattice.axes)

    def _even(self, dim: int) -> bool:
        return any(self.lattice.axes[k].prime == 2 for k in self.lattice.of_dim[dim])

    def _charge(self, op: Op, units: Units, costs: Linear, shape: tuple[int, ...]) -> Floats:
        """What a tensor costs for the levels charged: each refetches once per alike unit of the spatial blocks in between.

        Those blocks may also shrink a window, by how much is not known here: the lowest count that this may lead to is taken.
        """
        charged = np.zeros((*shape, units.units.shape[1]))
        for further in (False, True):
            fetches = [(level, tensor) for level, tensor in op.fetches if (level < op.level - 1) == further]
            if fetches:
                weight = sum(
                    costs.weights[level, tensor] * units.alike[level + 1 : op.level, tensor].prod(axis=0) for level, tensor in fetches
                )
                charged += _part(self._refetched[op.subject, bool(op.window), further], shape)[..., None] * weight
        return charged

    def _spatial(self, level: int, values: Floats, chosen: list[int] | None) -> Floats:
        """The spatial block of a level; any that fits when none is chosen."""
        block = self.blocks[level]
        if len(block.splits) == 1 and not block.splits[0][0]:
            return values
        if chosen is None:
            values = values.copy()
            for (dim, prime), count in block.reach.items():
                k = next(k for k in self.lattice.of_dim[dim] if self.lattice.axes[k].prime == prime)
                values = reach(values, k, count)
            return values
        if values.shape[-1] == 1:
            values = np.broadcast_to(values, (*values.shape[:-1], len(chosen)))
        result = np.empty(values.shape)
        for vector in dict.fromkeys(chosen):
            members = [n for n, v in enumerate(chosen) if v == vector]
            part = values if len(members) == len(chosen) else np.ascontiguousarray(values[..., members])
            best = stepped(part, self._offset(block.splits[vector][0]))
            for split in block.splits[vector][1:]:
                np.minimum(best, stepped(part, self._offset(split)), out=best)
            result[..., members] = best
        return result

    def _offset(self, split: Split) -> tuple[int, ...]:
        return self.lattice.offset({dim: factor for dim, factor, _ in split})

    def _strict(self, dim: int, values: Floats) -> Floats:
        """Loops of any factor above 1."""
        best = np.full_like(values, np.inf)
        for k in self.lattice.of_dim[dim]:
            step = tuple(int(j == k) for j in range(len(self.lattice.axes)))
            moved = stepped(values, step)
            for j in self.lattice.of_dim[dim]:
                moved = sweep(moved, j, values.shape[j] - 1)
            np.minimum(best, moved, out=best)
        return best

    def nest(self, chosen: Chosen, units: Units, costs: Linear) -> Mapping | None:
        """The cheapest nest of one configuration, read back from its value; None when none fits."""
        registers: list[Floats] = []
        for op in self.plan.ops:
            registers.append(self._run(op, [registers[r] for r in op.inputs], [False] * len(op.inputs), chosen, units, costs))
            self.work += registers[-1].size
        at = tuple(0 for _ in self.lattice.axes)
        if not np.isfinite(registers[self.plan.result][(*at, 0)]):
            return None
        register = self.plan.result
        temporal: list[dict[int, int]] = [{} for _ in self.problem.levels]
        spatial: list[Split] = [() for _ in self.problem.levels]
        while self.plan.ops[register].kind != "start":
            op = self.plan.ops[register]
            value = registers[register][(*at, 0)]
            if op.kind == "least":
                register = min(op.inputs, key=lambda r: registers[r][(*at, 0)])
                continue
            register = op.inputs[0]
            source = registers[register][..., 0]
            if op.kind in ("sweep", "double", "strict"):
                origin = self._origin(op, source, at, value)
                factor = self._factor(op.subject, at, origin)
                if factor > 1:
                    temporal[op.level][op.subject] = temporal[op.level].get(op.subject, 1) * factor
                at = origin
            elif op.kind == "spatial":
                for split in self.blocks[op.level].splits[int(chosen[op.level, 0])]:
                    origin = tuple(a + o for a, o in zip(at, self._offset(split), strict=True))
                    if all(a < size for a, size in zip(origin, source.shape, strict=True)) and source[origin] == value:
                        spatial[op.level], at = split, origin
                        break
        return self._mapping(temporal, spatial)

    def _origin(self, op: Op, source: Floats, at: Box, value: float) -> Box:
        """Where along one dim a value came from: the nearest point that has it."""
        axes = self.lattice.of_dim[op.subject]
        if op.kind == "double":
            return tuple(a + o for a, o in zip(at, self.lattice.offset({op.subject: 2}), strict=True))
        line = source[tuple(slice(a, None) if k in axes else a for k, a in enumerate(at))]
        hits = np.argwhere(line == value)
        if op.kind == "strict":
            hits = hits[hits.any(axis=1)]
        moves = dict(zip(axes, hits[int(np.argmin(hits.sum(axis=1)))].tolist(), strict=True))
        return tuple(a + moves.get(k, 0) for k, a in enumerate(at))

    def _factor(self, dim: int, inner: Box, outer: Box) -> int:
        factor = 1
        for k in self.lattice.of_dim[dim]:
            factor *= self.lattice.axes[k].prime ** (outer[k] - inner[k])
        return factor

    def _mapping(self, temporal: list[dict[int, int]], spatial: list[Split]) -> Mapping:
        problem, keep = self.problem, ln.default_keep(self.problem)
        return Mapping(
            tuple(
                LevelMapping(
                    name,
                    tuple(Loop(problem.dims[d], factor, axis) for d, factor, axis in spatial[level]),
                    tuple(Loop(problem.dims[d], factor) for d, factor in temporal[level].items()),
                    tuple(tensor for t, tensor in enumerate(problem.tensors) if keep[level, t]),
                )
                for level, name in enumerate(problem.levels)
            )
        )


def _part(table: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The part of a table over the lattice with these sizes."""
    return table[tuple(slice(0, size) for size in shape)]


def _gapless(problem: ln.Problem) -> bool:
    """Do two related loops along one window always cover all words between?

    Then what the reference tool counts for any sequence of loops along it is at least the box that they cover. Taps must
    not be dilated, and where outputs are strided the taps must not be split (which could leave gaps smaller than they seem).
    """
    results, bounds = problem.operator.tensor(problem.operator.output).dims, problem.operator.bounds
    for rank in (rank for tensor in problem.operator.tensors for rank in tensor.ranks if len(rank.terms) > 1):
        taps = [term for term in rank.terms if term.dim not in results and bounds[term.dim] > 1]
        strided = any(term.coefficient > 1 for term in rank.terms if term.dim in results)
        if any(tap.coefficient > 1 for tap in taps):
            return False
        if strided and any(sum(prime_factors(bounds[tap.dim]).values()) > 1 for tap in taps):
            return False
    return True


def _cropped(values: Floats, box: Box) -> Floats:
    for k, high in enumerate(box):
        values = crop(values, k, high)
    return values
