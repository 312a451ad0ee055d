"""The recurrence that finds the cheapest nest of one spatial configuration, compiled once per problem.

What a level fetches depends on its tile and on the loops next to it: outside of tile i, the loops that do not move tensor t are
free until the first one that does. So going from the outermost level inwards, one decides block by block

* which tensor's *run* is innermost (loops that leave it alone), and down to which level that tensor then stays;
* for the tensor with sliding windows, the loop that *slides* it, and down to which level.

A tensor is charged where its run or slide starts: there F = iterations x words / points of the lattice point, whatever happens
outside. Everything else is moving along the lattice: a ``sweep`` for a loop of any factor, ``spatial`` for a level's spatial
block. The cheapest of all nests is thus a shortest path, with some array operations per level and no enumeration of factors.

A plan is a list of operations on registers; equal operations are shared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tilewright import loopnest as ln

from .charges import Fetch, kept_levels
from .spatial import Windows
from .windows import NO_SLIDE, Dims, Slide, onward, openings

NOTHING: Dims = frozenset()


class Run(NamedTuple):
    """Loops that leave a tensor alone may follow, down to a level for which it was charged."""

    tensor: int = -1
    target: int = -1


NO_RUN = Run()
State = tuple[Run, Slide]


class Op(NamedTuple):
    """One operation; `inputs` are registers (indices of earlier operations)."""

    kind: str
    inputs: tuple[int, ...] = ()
    #: Level of the block; of the tile for ``tile``.
    level: int = -1
    #: A dim for ``sweep``, ``strict`` and ``double``, a tensor for ``charge`` and ``relate``.
    subject: int = -1
    #: ``charge``: the levels charged, outer first.
    fetches: tuple[Fetch, ...] = ()
    #: ``charge``: whether loops along one window may be counted together. ``relate``: the dims of the window.
    window: Dims = NOTHING


class Plan:
    """Operations that end in the cost of the cheapest nest.

    Without `related`, a second loop along a window is never credited: then the cost is one that the nest surely has, no bound.
    With `sliding` false the tensor with sliding windows is left out: what it costs is not counted.
    """

    def __init__(self, problem: ln.Problem, windows: Windows, *, related: bool = True, sliding: bool = True) -> None:
        self.problem, self.windows, self._related = problem, windows, related
        self.ops: list[Op] = []
        self._known: dict[Op, int] = {}
        self._inner = [kept[:-1] if sliding or not windows.ranks[t] else [] for t, kept in enumerate(kept_levels(problem))]
        self._moving = [frozenset(d for d in range(len(problem.dims)) if row[d] and problem.bounds[d] > 1) for row in problem.relevant]
        #: The tensor with sliding windows; -1: none.
        self.windowed = next((t for t, ranks in enumerate(windows.ranks) if ranks and sliding), -1)
        self._ends: dict[State, list[int]] = defaultdict(list)
        state: dict[State, int] = {(NO_RUN, NO_SLIDE): self._op(Op("start"))}
        for level in range(len(problem.levels) - 1, -1, -1):
            state = self._block(level, state)
        self.result = state[NO_RUN, NO_SLIDE]

    def _op(self, op: Op) -> int:
        if op not in self._known:
            self._known[op] = len(self.ops)
            self.ops.append(op)
        return self._known[op]

    def _sweep(self, register: int, dims: Iterable[int], level: int) -> int:
        """Loops over some dims, those that never slide first: so plans share most sweeps."""
        sliding = self.windows.sliding(self.windowed)
        for dim in sorted(dims, key=lambda d: (d in sliding, d)):
            register = self._op(Op("sweep", (register,), level, dim))
        return register

    def _charge(self, register: int, tensor: int, level: int, target: int, window: Dims = NOTHING) -> int:
        """Charge a tensor for all its levels from below `level` down to `target`."""
        fetches = tuple((i, tensor) for i in reversed(self._inner[tensor]) if target <= i < level)
        return self._op(Op("charge", (register,), level, tensor, fetches, window))

    def _block(self, level: int, state: dict[State, int]) -> dict[State, int]:
        """All nests of one level's blocks: from the tile of `level` to that of the level below."""
        rule = self.problem.constraints.level(self.problem.levels[level])
        names, bounds = self.problem.dims, self.problem.bounds
        allowed = frozenset(d for d, n in enumerate(names) if bounds[d] > 1 and (rule.temporal_dims is None or n in rule.temporal_dims))
        self._ends = defaultdict(list)
        for (run, slide), register in state.items():
            # Spatial and temporal steps commute; the spatial one first, so that charges see the tile below.
            inside = self._op(Op("spatial", (register,), level))
            if slide == NO_SLIDE:
                self._without_slide(level, inside, allowed, run)
            else:
                self._sliding(level, inside, allowed, run, slide)
        merged = {}
        for after, registers in self._ends.items():
            unique = tuple(dict.fromkeys(registers))
            merged[after] = self._op(Op("tile", (self._op(Op("least", unique, level)),), level - 1))
        return merged

    def _starts(self, level: int) -> Iterator[Run]:
        """Runs of tensors without windows that may start in a block."""
        for t, inner in enumerate(self._inner):
            if t != self.windowed:
                yield from (Run(t, target) for target in inner if target < level)

    def _free(self, allowed: Dims, run: Run) -> Dims:
        return allowed if run == NO_RUN else allowed - self._moving[run.tensor]

    def _without_slide(self, level: int, register: int, allowed: Dims, run: Run) -> None:
        """No slide is in progress: one may start, and so may a run."""
        if run != NO_RUN:
            self._inside_run(level, register, self._free(allowed, run), run)
            return
        self._inside_run(level, register, allowed, NO_RUN)
        for start in self._starts(level):
            free = self._free(allowed, start)
            charged = self._charge(self._sweep(register, allowed - free, level), start.tensor, level, start.target)
            self._inside_run(level, charged, free, start)
            self._run_inside_slide(level, register, allowed, start)

    def _inside_run(self, level: int, register: int, dims: Dims, run: Run) -> None:
        """The loops of a run (any loops, without one), and then perhaps a slide whose loop is innermost."""
        t = self.windowed
        self._end(level, self._sweep(register, dims, level), run, NO_SLIDE)
        if t < 0:
            return
        still = NOTHING if run != NO_RUN else dims - self._moving[t]
        moving = dims - still
        for target in (i for i in self._inner[t] if i < level):
            for dim in [None, *sorted(self.windows.sliding(t) & moving)]:
                if dim is None and run != NO_RUN:
                    continue
                last = NOTHING if dim is None else frozenset((dim,))
                charged = self._charge(self._sweep(register, moving - last, level), t, level, target)
                slid = self._sweep(charged, last, level)
                self._end(level, self._sweep(slid, still, level), run, Slide(target, "plain"))
            for window, slide in self._openings(moving, target, level):
                charged = self._charge(self._sweep(register, moving - window, level), t, level, target, window)
                slid = self._sweep(charged, window, level)
                self._end(level, self._sweep(slid, still, level), run, slide)

    def _run_inside_slide(self, level: int, register: int, allowed: Dims, run: Run) -> None:
        """A slide along two dims of a window, of which the inner one leaves the tensor of the run alone."""
        t = self.windowed
        for target in (i for i in self._inner[t] if i < level) if t >= 0 else ():
            for window, slide in self._openings(allowed, target, level):
                outer = window & self._moving[run.tensor]
                if outer and outer != window:
                    found = self._charge(self._sweep(register, allowed - window, level), t, level, target, window)
                    found = self._charge(self._sweep(found, outer, level), run.tensor, level, run.target)
                    self._end(level, self._sweep(found, window - outer, level), run, slide)

    def _sliding(self, level: int, register: int, allowed: Dims, run: Run, slide: Slide) -> None:
        """A slide is in progress: loops that leave its tensor alone, or slide it on, inside or outside of a run that starts."""
        free = self._free(allowed, run)
        still = free - self._moving[self.windowed]
        for moves, after in onward(slide, free):
            self._end(level, self._sweep(self._moved(level, register, moves), still, level), run, after)
            if run != NO_RUN:
                continue
            for start in self._starts(level):
                outer = {dim: kind for dim, kind in moves.items() if dim in self._moving[start.tensor]}
                inner = {dim: kind for dim, kind in moves.items() if dim not in outer}
                if inner:
                    charged = self._charge(self._moved(level, register, outer), start.tensor, level, start.target)
                    self._end(level, self._moved(level, charged, inner), start, after)

    def _openings(self, moving: Dims, target: int, level: int) -> Iterator[tuple[Dims, Slide]]:
        return openings(self.windows.ranks[self.windowed], moving, target, level) if self._related else iter(())

    def _moved(self, level: int, register: int, moves: dict[int, str]) -> int:
        for dim, kind in moves.items():
            register = self._op(Op(kind, (register,), level, dim))
        return register

    def _end(self, level: int, register: int, run: Run, slide: Slide) -> None:
        """The end of a block: tensors kept just below that are not charged yet are; what has reached its level is over."""
        for t, inner in enumerate(self._inner):
            charged = t == run.tensor or (t == self.windowed and slide != NO_SLIDE)
            if level - 1 in inner and not charged:
                register = self._charge(register, t, level, level - 1)
        if slide.target == level - 1:
            if slide.related:
                register = self._op(Op("relate", (register,), level, self.windowed, window=slide.window))
            slide = NO_SLIDE
        if run.target == level - 1:
            run = NO_RUN
        self._ends[run, slide].append(register)
