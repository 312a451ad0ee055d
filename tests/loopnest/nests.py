"""Random small operators and mappings, for comparisons with the interpreters of `judge`."""

from __future__ import annotations

import random

import numpy as np

from tilewright import loopnest as ln
from tilewright.loopnest.evaluate import Figures, figures
from tilewright.protocol.architecture import Architecture, Compute, Level
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.workload import (
    INPUTS,
    OUTPUTS,
    WEIGHTS,
    Dim,
    Operator,
    Rank,
    Tensor,
    Term,
    batched_matmul,
    conv2d,
    depthwise,
    matmul,
)

TENSORS = (WEIGHTS, INPUTS, OUTPUTS)


def wide(levels: int, **fields: object) -> Architecture:
    """An architecture with fan-outs of 16 x 16 everywhere and nothing that overflows."""
    side = [16 ** (levels - 1 - i) for i in range(levels)]
    return Architecture(
        "wide",
        Compute("MAC", (16**levels) ** 2, 16**levels, 16**levels, energy_pj=1.0),
        tuple(
            Level(
                f"L{i}",
                instances=width**2,
                mesh_x=width,
                mesh_y=width,
                keeps=TENSORS,
                read_energy_pj=1.0 + i,
                fill_energy_pj=2.0 + i,
                update_energy_pj=3.0 + i,
                **fields,  # type: ignore[arg-type]
            )
            for i, width in enumerate(side)
        ),
    )


def rank(*terms: tuple[str, int] | str) -> Rank:
    return Rank(tuple(Term(term) if isinstance(term, str) else Term(*term) for term in terms))


def scatter(p: int, r: int, c: int, k: int, stride: int) -> Operator:
    """A transposed convolution in one dimension: the *written* tensor has the sliding window."""
    return Operator(
        (Dim("P", p), Dim("R", r), Dim("C", c), Dim("K", k)),
        (
            Tensor(WEIGHTS, (rank("R"), rank("C"), rank("K"))),
            Tensor(INPUTS, (rank("P"), rank("C"))),
            Tensor(OUTPUTS, (rank(("P", stride), "R"), rank("K"))),
        ),
    )


def diagonal(p: int, r: int, c: int, dilation: int) -> Operator:
    """An operand one of whose dims moves two ranks."""
    return Operator(
        (Dim("P", p), Dim("R", r), Dim("C", c)),
        (
            Tensor(WEIGHTS, (rank("R"),)),
            Tensor(INPUTS, (rank("P"), rank("P", ("R", dilation)), rank("C"))),
            Tensor(OUTPUTS, (rank("P"), rank("C"))),
        ),
    )


def cascade(p: int, r: int, t: int, c: int, stride: int) -> Operator:
    """An operand with a rank that three dims move: a filter of filters."""
    return Operator(
        (Dim("P", p), Dim("R", r), Dim("T", t), Dim("C", c)),
        (
            Tensor(WEIGHTS, (rank("R"), rank("T"))),
            Tensor(INPUTS, (rank(("P", stride), "R", ("T", 2)), rank("C"))),
            Tensor(OUTPUTS, (rank("P"), rank("C"))),
        ),
    )


def operator(rng: random.Random, *, written_windows: bool = False) -> Operator:
    """An operator small enough to walk."""

    def upto(most: int) -> int:
        return rng.randint(1, most)

    kind = rng.randrange(10 if written_windows else 9)
    if kind == 0:
        return matmul(p=upto(6), c=upto(5), k=upto(5))
    if kind == 1:
        return conv2d(r=upto(3), s=1, p=upto(7), q=1, c=upto(3), k=upto(3), stride=(upto(3), 1), dilation=(upto(3), 1))
    if kind == 2:
        return conv2d(r=upto(3), s=upto(2), p=upto(4), q=upto(4), c=upto(2), k=upto(2), stride=(upto(2), upto(2)))
    if kind == 3:
        return depthwise(r=upto(3), s=1, p=upto(6), q=1, g=upto(4))
    if kind == 4:
        return batched_matmul(g=upto(3), p=upto(4), c=upto(3), k=upto(3), h=upto(2))
    if kind == 5:
        return conv2d(r=upto(3), s=1, p=upto(6), q=1, c=upto(3), k=upto(4), g=upto(3))
    if kind == 6:
        return diagonal(upto(5), upto(4), upto(3), upto(2))
    if kind == 7:
        return matmul(p=upto(11), c=upto(11), k=upto(4))
    if kind == 8:
        return cascade(upto(4), upto(3), upto(3), upto(2), upto(2))
    return scatter(upto(5), upto(3), upto(3), upto(3), upto(3))


def mapping(rng: random.Random, op: Operator, levels: int, *, ragged: bool = False) -> Mapping:
    """A random nest whose factors multiply to the bounds, or overrun some of them."""
    temporal: list[dict[str, int]] = [{} for _ in range(levels)]
    spatial: list[dict[str, int]] = [{} for _ in range(levels)]
    cut = set()
    for dim in op.dims:
        if ragged and rng.random() < 0.6:
            reach = 1
            slots = [(block, i) for i in range(levels) for block in (spatial, temporal)]
            rng.shuffle(slots)
            for block, i in slots:
                if reach < dim.bound:
                    factor = rng.randint(2, 4)
                    block[i][dim.name] = factor
                    reach *= factor
            if reach != dim.bound:
                cut.add(dim.name)
            continue
        left, prime = dim.bound, 2
        while left > 1:
            while left % prime == 0:
                block = spatial if rng.random() < 0.35 else temporal
                at = rng.randrange(levels)
                block[at][dim.name] = block[at].get(dim.name, 1) * prime
                left //= prime
            prime += 1
    rows = []
    for i in range(levels):
        inner, outer = list(spatial[i].items()), list(temporal[i].items())
        rng.shuffle(inner)
        rng.shuffle(outer)
        rows.append(
            LevelMapping(
                f"L{i}",
                tuple(Loop(dim, factor, rng.choice(("X", "Y")), dim in cut) for dim, factor in inner),
                tuple(Loop(dim, factor, ragged=dim in cut) for dim, factor in outer),
                tuple(tensor.name for tensor in op.tensors if i == levels - 1 or rng.random() < 0.6),
            )
        )
    return Mapping(tuple(rows))


def figures_of(problem: ln.Problem, nest: Mapping) -> Figures | None:
    """All figures of one mapping; None when it is not valid."""
    result, validity = figures(ln.Batch.from_mappings(problem, [nest]))
    return result if validity.valid[0] else None


def batch(problem: ln.Problem, size: int, seed: int = 0, *, spatial: float = 0.3) -> ln.Batch:
    """Random perfect factorizations, orders and the architecture's own keep sets (fan-outs and capacities are not looked at)."""
    rng = np.random.default_rng(seed)
    shape = (size, len(problem.levels), len(problem.dims))
    temporal, inner = np.ones(shape, np.int64), np.ones(shape, np.int64)
    rows = np.arange(size)
    for d, bound in enumerate(problem.bounds.tolist()):
        prime = 2
        while bound > 1:
            while bound % prime == 0:
                at, across = rng.integers(0, shape[1], size), rng.random(size) < spatial
                inner[rows[across], at[across], d] *= prime
                temporal[rows[~across], at[~across], d] *= prime
                bound //= prime
            prime += 1
    order = np.argsort(rng.random(shape), axis=2).astype(np.int8)
    keep = np.broadcast_to(ln.default_keep(problem), (size, shape[1], len(problem.tensors))).copy()
    return ln.Batch(problem, temporal, inner, rng.integers(0, 2, shape).astype(np.int8), order, keep)
