"""What can be spatial: per level, the ways to unroll dims over the mesh, grouped by what they do to traffic.

Dims that move the same tensors form a class. All that cost sees of a spatial block is the product per class: how many units
work, and how many of them share each tensor's words. So a *configuration* is one vector of class products per level.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilewright import loopnest as ln
from tilewright.loopnest.mapspace import divisors, prime_factors
from tilewright.protocol.mapping import Axis as MeshAxis

Floats = NDArray[np.float64]
#: ``[L, N]``: index of each level's class vector in N configurations.
Chosen = NDArray[np.int64]
#: (dim, factor, mesh axis) of each spatial loop.
Split = tuple[tuple[int, int, MeshAxis], ...]


class Block(NamedTuple):
    """What one level's spatial block can be, V class vectors of it."""

    #: Per class vector, the loops that realize it.
    splits: tuple[tuple[Split, ...], ...]
    #: ``[V, C]``: the class vectors, and ``[C]`` the product of all bounds of each class.
    vectors: Floats
    whole: Floats
    #: ``[V]``: units in use.
    units: Floats
    #: ``[T, V]``: units with equal coordinates in every dim of the tensor.
    alike: Floats
    #: ``[T, V]``: at most so many units share one word of each tensor (more than `alike` where windows coincide).
    sharing: Floats
    #: (dim, prime) -> most of them that fit.
    reach: dict[tuple[int, int], int]


class Windows:
    """Which dims slide windows over which tensor."""

    def __init__(self, problem: ln.Problem) -> None:
        bounds = problem.operator.bounds
        results = problem.operator.tensor(problem.operator.output).dims
        #: Per tensor, the dims of each rank that mixes several non-trivial ones.
        self.ranks: list[list[frozenset[int]]] = []
        #: Dims of such ranks that the result does not have.
        self.taps: set[int] = set()
        for tensor in problem.operator.tensors:
            mixed = [frozenset(problem.dims.index(t.dim) for t in rank.terms if bounds[t.dim] > 1) for rank in tensor.ranks]
            self.ranks.append([dims for dims in mixed if len(dims) > 1])
            self.taps |= {d for dims in self.ranks[-1] for d in dims if problem.dims[d] not in results}

    def sliding(self, tensor: int) -> frozenset[int]:
        """All dims that slide a window over a tensor (none for tensor -1)."""
        return frozenset().union(*self.ranks[tensor]) if tensor >= 0 else frozenset()


def blocks(problem: ln.Problem, windows: Windows) -> list[Block]:
    """The blocks of all levels, innermost first."""
    relevant = problem.relevant
    key_of = {d: (tuple(relevant[:, d].tolist()), d in windows.taps) for d in range(len(problem.dims)) if problem.bounds[d] > 1}
    classes = sorted(set(key_of.values()))
    whole = np.array([np.prod([float(problem.bounds[d]) for d, own in key_of.items() if own == key]) for key in classes])
    found = []
    for level in range(len(problem.levels)):
        groups: dict[tuple[int, ...], list[Split]] = defaultdict(list)
        for split in _splits(problem, level):
            vector = [1] * len(classes)
            for dim, factor, _ in split:
                vector[classes.index(key_of[dim])] *= factor
            groups[tuple(vector)].append(split)
        vectors = np.array(sorted(groups), dtype=np.float64).reshape(len(groups), len(classes))
        alike = np.ones((len(problem.tensors), len(groups)))
        sharing = np.ones_like(alike)
        for t in range(len(problem.tensors)):
            free = [k for k, (moves, _) in enumerate(classes) if not moves[t]]
            sharing[t] = alike[t] = vectors[:, free].prod(axis=1)
            if windows.ranks[t]:
                taps = vectors[:, [k for k, (moves, tap) in enumerate(classes) if moves[t] and tap]].prod(axis=1)
                outs = vectors[:, [k for k, (moves, tap) in enumerate(classes) if moves[t] and moves[problem.output]]].prod(axis=1)
                # Windows of A outputs and B taps coincide along diagonals: at least A + B - 1 of A x B are distinct.
                sharing[t] *= taps * outs / (taps + outs - 1)
            if not problem.shares(level, t):
                sharing[t] = 1.0
        splits = tuple(tuple(groups[v]) for v in sorted(groups))
        found.append(Block(splits, vectors, whole, vectors.prod(axis=1), alike, sharing, _reach(groups)))
    return found


def _splits(problem: ln.Problem, level: int) -> list[Split]:
    """All spatial blocks that fit the mesh, one for each set of (dim, factor)."""
    rule = problem.constraints.level(problem.levels[level])
    dims = [d for d, name in enumerate(problem.dims) if problem.bounds[d] > 1 and (rule.spatial_dims is None or name in rule.spatial_dims)]
    sides: dict[MeshAxis, int] = dict(zip(("X", "Y"), problem.architecture.fanout(level), strict=True))
    found: dict[tuple[tuple[int, int], ...], Split] = {}

    def extend(at: int, used: dict[MeshAxis, int], split: Split) -> None:
        if at == len(dims):
            found.setdefault(tuple((d, f) for d, f, _ in split), split)
            return
        extend(at + 1, used, split)
        for factor in divisors(int(problem.bounds[dims[at]]))[1:]:
            for axis, side in sides.items():
                if used[axis] * factor <= side:
                    extend(at + 1, {**used, axis: used[axis] * factor}, (*split, (dims[at], factor, axis)))

    extend(0, {"X": 1, "Y": 1}, ())
    return list(found.values())


def _reach(groups: dict[tuple[int, ...], list[Split]]) -> dict[tuple[int, int], int]:
    most: dict[tuple[int, int], int] = {}
    for split in (split for splits in groups.values() for split in splits):
        for dim, factor, _ in split:
            for prime, count in prime_factors(factor).items():
                most[dim, prime] = max(count, most.get((dim, prime), 0))
    return most


class Units(NamedTuple):
    """Spatial figures of N configurations."""

    #: ``[L, N]``: units per spatial block.
    units: Floats
    #: ``[L, T, N]``: of these, how many surely share a word, and how many may.
    alike: Floats
    sharing: Floats

    @classmethod
    def of(cls, levels: list[Block], chosen: Chosen) -> Units:
        """The figures of some configurations."""
        return cls(
            np.stack([block.units[v] for block, v in zip(levels, chosen, strict=True)]),
            np.stack([block.alike[:, v] for block, v in zip(levels, chosen, strict=True)]),
            np.stack([block.sharing[:, v] for block, v in zip(levels, chosen, strict=True)]),
        )

    @classmethod
    def best(cls, levels: list[Block]) -> Units:
        """One column that is at least as good as any configuration."""
        return cls(
            np.array([[block.units.max()] for block in levels]),
            np.stack([block.alike.min(axis=1, keepdims=True) for block in levels]),
            np.stack([block.sharing.max(axis=1, keepdims=True) for block in levels]),
        )

    @property
    def used(self) -> Floats:
        """``[L, N]``: used instances of each level."""
        outside = np.ones_like(self.units)
        for level in range(len(self.units) - 2, -1, -1):
            outside[level] = outside[level + 1] * self.units[level + 1]
        return outside

    def between(self, tensor: int, child: int, parent: int) -> Floats:
        """``[N]``: how many units share a word of `tensor` on the way from `parent` to `child` (-1: the compute)."""
        shared: Floats = self.sharing[child + 1 : parent + 1, tensor].prod(axis=0)
        return shared
