"""The index sets and constants of CoSA's mixed-integer program, for any einsum on any hierarchy.

Source: Huang et al., "CoSA: Scheduling by Constrained Optimization for Spatial Accelerators", ISCA 2021, sections III-B to III-D,
and its released code (github.com/ucb-bar/cosa, commit 4d89aa6). What the publication writes down for one fixed machine with six
levels follows here from the operator's index maps and the architecture's levels:

* A loop at level ``l`` belongs to the tile held *in* level ``l``.
* The *boundary* is the level whose loop order decides the traffic: the outermost on-chip level (Simba's global buffer), or
  the outermost level where the constraints allow no loops there (Gemmini's scratchpad).
* A dim that only slides a window over a tensor (the taps R, S over Inputs) is not relevant to it; the halo is charged apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Literal, NamedTuple

from tilewright.loopnest import Problem, default_keep
from tilewright.protocol.architecture import Architecture
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS

Constants = Literal["release", "paper"]
#: Innermost first: the order of loops that the program does not decide.
DEFAULT_ORDER = ("R", "S", "P", "Q", "C", "K", "N", "H", "G")


class Factor(NamedTuple):
    """`multiplicity` equal prime factors of a dim (a bound of 1 has the one factor 1)."""

    dim: int
    prime: int
    multiplicity: int


class Window(NamedTuple):
    """A rank that slides: `outs` are dims of the result, `taps` are reduced over."""

    tensor: int
    outs: tuple[int, ...]
    taps: tuple[int, ...]


class Saving(NamedTuple):
    """One choice of loop order at a level: per relevance class how many tensors its loops leave alone, and the dims in that order."""

    weights: dict[frozenset[int], int]
    order: tuple[int, ...]


@dataclass(frozen=True)
class Formulation:
    """Everything the program is built from. Dims, tensors and levels are indices (levels innermost first)."""

    architecture: Architecture
    constants: Constants
    dims: tuple[str, ...]
    tensors: tuple[str, ...]
    factors: tuple[Factor, ...]
    #: Per tensor, its relevant dims in CoSA's sense (matrix A).
    relevant: tuple[frozenset[int], ...]
    #: (tensor, dim) -> coefficient of an output dim in a sliding rank.
    stride: dict[tuple[int, int], int]
    windows: tuple[Window, ...]
    #: Per level, the tensors kept there (matrix B).
    keep: tuple[frozenset[int], ...]
    #: (level, tensor) -> words it may fill (matrix M); unlimited where absent.
    capacity: dict[tuple[int, int], float]
    #: Per level, the dims that may have temporal loops.
    temporal: tuple[frozenset[int], ...]
    #: Per level, the dims that may be spatial.
    spatial: tuple[frozenset[int], ...]
    #: Per level, children (X, Y).
    fanout: tuple[tuple[int, int], ...]
    #: (level, dim) -> largest temporal factor.
    limits: dict[tuple[int, int], int]

    @property
    def outermost(self) -> int:
        """Index of the outermost level."""
        return len(self.keep) - 1

    @property
    def shared(self) -> int:
        """Index of the outermost on-chip level; -1 when there is none."""
        return self.outermost - 1

    @property
    def boundary(self) -> int:
        """Level whose loop order decides the traffic."""
        return self.shared if self.shared >= 0 and self.temporal[self.shared] else self.outermost

    @property
    def default_order(self) -> tuple[int, ...]:
        """All dims, innermost first, in the fixed order."""
        known = {name: at for at, name in enumerate(DEFAULT_ORDER)}
        return tuple(sorted(range(len(self.dims)), key=lambda d: (known.get(self.dims[d], len(known)), d)))

    @property
    def weights_tensor(self) -> int:
        """Index of the weights; -1 when there are none."""
        return self.tensors.index(WEIGHTS) if WEIGHTS in self.tensors else -1

    def relevance_class(self, dim: int) -> frozenset[int]:
        """The tensors that a dim is relevant to."""
        return frozenset(t for t, dims in enumerate(self.relevant) if dim in dims)

    def halo_level(self, window: Window) -> int:
        """The on-chip level charged with a window's halo: the innermost that keeps the tensor; -1 when none does."""
        return next((level for level in range(self.outermost) if window.tensor in self.keep[level]), -1)

    def savings(self) -> tuple[Saving, ...]:
        """The undominated loop orders of a level, by what stays stationary.

        When tensors stop being stationary in the order v1, v2, ..., vn while one walks outwards, a loop relevant to none of
        vk ... vn can lie inside the first loop relevant to any of them, and leaves all n - k + 1 of them alone for the smallest
        such k.
        """
        classes = sorted({self.relevance_class(d) for d in range(len(self.dims))}, key=sorted)
        count = len(self.tensors)
        found: list[Saving] = []
        for ends in permutations(range(count)):
            first = {c: next((k for k in range(count) if not c & set(ends[k:])), count) for c in classes}
            weights = {c: count - k for c, k in first.items()}
            order = tuple(sorted(self.default_order, key=lambda d: first[self.relevance_class(d)]))
            found.append(Saving(weights, order))
        return tuple(s for i, s in enumerate(found) if not any(_dominates(o, s, j < i) for j, o in enumerate(found) if j != i))


def _dominates(one: Saving, other: Saving, earlier: bool) -> bool:
    """True when `one` saves at least as much everywhere and more somewhere, or as much and comes `earlier`."""
    return all(one.weights[c] >= w for c, w in other.weights.items()) and (earlier or one.weights != other.weights)


def prime_factors(bound: int) -> dict[int, int]:
    """Prime -> multiplicity; ``{1: 1}`` for 1, as the publication does."""
    found: dict[int, int] = {}
    prime = 2
    while prime * prime <= bound:
        while bound % prime == 0:
            found[prime] = found.get(prime, 0) + 1
            bound //= prime
        prime += 1
    if bound > 1 or not found:
        found[bound] = found.get(bound, 0) + 1
    return found


def formulate(problem: Problem, constants: Constants = "release", split: float | None = None) -> Formulation:
    """Derive the program's sets.

    `split` is the share of a level kept by several tensors that the first of them (in the order Weights, Inputs, Outputs) gets;
    None: a quarter for Inputs beside Outputs, as released, else equal shares. Raises `InvalidInput` for a share outside (0, 1).
    """
    if split is not None and not 0 < split < 1:
        raise InvalidInput(f"options.split: {split}, expected a share between 0 and 1")
    operator, architecture, constraints = problem.operator, problem.architecture, problem.constraints
    dims, tensors = problem.dims, problem.tensors
    at = {name: d for d, name in enumerate(dims)}
    results = operator.tensor(operator.output).dims
    relevant, stride, windows = [], {}, []
    for t, tensor in enumerate(operator.tensors):
        slides: set[int] = set()
        for rank in tensor.ranks:
            outs = tuple(at[term.dim] for term in rank.terms if term.dim in results)
            taps = tuple(at[term.dim] for term in rank.terms if term.dim not in results)
            if outs and taps:
                windows.append(Window(t, outs, taps))
                slides.update(taps)
                stride.update({(t, at[term.dim]): term.coefficient for term in rank.terms if term.dim in results})
        relevant.append(frozenset(at[name] for name in tensor.dims) - slides)
    levels = architecture.levels
    allowed = [constraints.level(level.name) for level in levels]
    everything = frozenset(range(len(dims)))
    keep = tuple(frozenset(t for t in range(len(tensors)) if row[t]) for row in default_keep(problem))
    return Formulation(
        architecture=architecture,
        constants=constants,
        dims=dims,
        tensors=tensors,
        factors=tuple(Factor(d, p, n) for d, dim in enumerate(operator.dims) for p, n in prime_factors(dim.bound).items()),
        relevant=tuple(relevant),
        stride=stride,
        windows=tuple(windows),
        keep=keep,
        capacity=_capacity(architecture, tensors, keep, split),
        temporal=tuple(everything if a.temporal_dims is None else frozenset(at[n] for n in a.temporal_dims if n in at) for a in allowed),
        spatial=tuple(everything if a.spatial_dims is None else frozenset(at[n] for n in a.spatial_dims if n in at) for a in allowed),
        fanout=tuple(architecture.fanout(level) for level in range(len(levels))),
        limits={(i, at[name]): most for i, a in enumerate(allowed) for name, most in a.max_factors.items() if name in at},
    )


def _capacity(
    architecture: Architecture, tensors: tuple[str, ...], keep: tuple[frozenset[int], ...], split: float | None
) -> dict[tuple[int, int], float]:
    """Words of each (level, tensor), the capacity of a level or pool divided by fixed shares."""
    groups: dict[str, list[tuple[int, int]]] = {}
    for index, level in enumerate(architecture.levels):
        if level.usable_words is not None:
            groups.setdefault(level.pool or f"level {level.name}", []).extend((index, t) for t in sorted(keep[index]))
    found = {}
    for members in groups.values():
        names = [tensors[t] for _, t in members]
        first = 0.25 if split is None and names == [INPUTS, OUTPUTS] else split
        for position, (index, t) in enumerate(members):
            words = architecture.levels[index].usable_words or 0
            if len(members) == 1:
                share = 1.0
            elif first is None:
                share = 1 / len(members)
            else:
                share = first if position == 0 else (1 - first) / (len(members) - 1)
            found[index, t] = max(1.0, words * share)
    return found
