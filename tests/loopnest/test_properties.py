"""What must hold of every mapping, whatever its figures."""

from __future__ import annotations

import math
import random

import msgspec
import nests
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright import loopnest as ln
from tilewright.protocol.architecture import Architecture, Compute, Level
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.workload import Operator, conv2d, matmul

SEEDS = st.integers(0, 2**32)
EXAMPLES = settings(max_examples=60, deadline=None)


def machine(*, words: int = 512, bandwidth: float = 4.0) -> Architecture:
    """Fixed energies per access, whatever the sizes."""
    prices = {"read_energy_pj": 1.0, "fill_energy_pj": 1.0, "update_energy_pj": 1.0}
    return Architecture(
        "sized",
        Compute("MAC", 16, 4, 4, energy_pj=0.5),
        (
            Level("Register", 8 * 16, instances=16, mesh_x=4, mesh_y=4, keeps=nests.TENSORS, **prices),
            Level("Buffer", 8 * words, keeps=nests.TENSORS, shared_bandwidth=2 * bandwidth, **prices),
            Level("DRAM", keeps=nests.TENSORS, shared_bandwidth=bandwidth, read_energy_pj=50.0, fill_energy_pj=50.0, update_energy_pj=50.0),
        ),
    )


def random_case(seed: int, semantics: ln.Semantics, *, ragged: bool = False) -> tuple[Operator, Mapping, ln.Problem] | None:
    rng = random.Random(seed)
    op = nests.operator(rng)
    nest = nests.mapping(rng, op, 3, ragged=ragged)
    problem = ln.Problem(op, nests.wide(3), semantics=semantics)
    return (op, nest, problem) if nests.figures_of(problem, nest) is not None else None


@EXAMPLES
@given(SEEDS)
def test_macs_do_not_depend_on_the_mapping(seed: int) -> None:
    if case := random_case(seed, "timeloop"):
        op, nest, problem = case
        cost = ln.cost(problem, nest)
        assert cost.energy[0].count == op.macs == math.prod(op.bounds.values())
        steps = math.prod(loop.factor for level in nest.levels for loop in level.temporal)
        assert steps * nest.spatial_size == op.macs
        assert 0 < cost.utilization <= 1


@EXAMPLES
@given(SEEDS, st.booleans())
def test_a_walk_moves_every_element_it_touches(seed: int, ragged: bool) -> None:
    if case := random_case(seed, "walk", ragged=ragged):
        op, nest, problem = case
        rows = {(row.level, row.tensor): row for row in ln.cost(problem, nest).traffic}
        for tensor in op.tensors:
            row = rows["L2", tensor.name]
            touched = touched_elements(op, tensor.name)
            assert (row.updates if tensor.name == op.output else row.reads) >= touched


def touched_elements(op: Operator, name: str) -> int:
    """Distinct elements of a tensor that the operator touches, by walking its ranks."""
    ranks = op.tensor(name).ranks
    reached: set[tuple[int, ...]] = {tuple(0 for _ in ranks)}
    for dim, bound in op.bounds.items():
        step = tuple(sum(term.coefficient for term in rank.terms if term.dim == dim) for rank in ranks)
        if any(step):
            reached = {tuple(a + i * b for a, b in zip(point, step, strict=True)) for point in reached for i in range(bound)}
    return len(reached)


@EXAMPLES
@given(SEEDS)
def test_trivial_loops_change_nothing(seed: int) -> None:
    if case := random_case(seed, "timeloop"):
        op, nest, problem = case
        rng = random.Random(seed)

        def padded(loops: tuple[Loop, ...]) -> tuple[Loop, ...]:
            row = list(loops)
            for dim in op.bounds:
                if dim not in {loop.dim for loop in loops}:
                    row.insert(rng.randint(0, len(row)), Loop(dim, 1))
            return tuple(row)

        longer = Mapping(tuple(LevelMapping(each.level, padded(each.spatial), padded(each.temporal), each.keep) for each in nest.levels))
        assert ln.cost(problem, longer) == ln.cost(problem, nest)


@EXAMPLES
@given(SEEDS, st.integers(16, 600), st.integers(1, 400))
def test_a_bigger_buffer_never_makes_a_mapping_invalid(seed: int, words: int, more: int) -> None:
    op = matmul(p=16, c=12, k=24)
    batch = nests.batch(ln.Problem(op, machine(words=words)), 40, seed)
    small = ln.evaluate(batch)
    batch.problem = ln.Problem(op, machine(words=words + more))
    large = ln.evaluate(batch)
    assert (large.valid | ~small.valid).all()
    np.testing.assert_array_equal(large.energy_pj[small.valid], small.energy_pj[small.valid])


def test_the_optimum_is_monotone_in_capacity_and_bandwidth() -> None:
    """Over one fixed set of mappings, at fixed energies per access."""
    op = conv2d(r=3, s=1, p=16, q=1, c=8, k=16)
    batch = nests.batch(ln.Problem(op, machine()), 20_000, spatial=0.2)

    def best(**sizes: float) -> tuple[float, float]:
        batch.problem = ln.Problem(op, machine(**sizes))  # type: ignore[arg-type]
        evaluation = ln.evaluate(batch)
        assert evaluation.valid.any()
        return float(evaluation.edp.min()), float(evaluation.objective("latency").min())

    by_size = [best(words=words) for words in (60, 120, 300, 1200)]
    by_speed = [best(bandwidth=speed) for speed in (0.5, 1.0, 4.0, 64.0)]
    for series in (by_size, by_speed):
        assert series == sorted(series, reverse=True)
        assert series[0] > series[-1]


def test_padding_is_explicit() -> None:
    """A mapping whose factors overrun the bounds, evaluated as if the bounds were their products."""
    op = matmul(p=10, c=6, k=4)
    nest = Mapping(
        (
            LevelMapping("L0", (), (Loop("P", 4),), nests.TENSORS),
            LevelMapping("L1", (), (Loop("P", 3), Loop("C", 6), Loop("K", 4)), nests.TENSORS),
        )
    )
    padded = ln.pad(op, nest)
    assert padded.bounds == {"P": 12, "C": 6, "K": 4}
    assert ln.cost(ln.Problem(padded, nests.wide(2)), nest).energy[0].count == 12 * 6 * 4
    assert ln.pad(padded, nest) == padded
    ragged = msgspec.structs.replace(
        nest,
        levels=tuple(
            msgspec.structs.replace(level, temporal=tuple(Loop(x.dim, x.factor, ragged=x.dim == "P") for x in level.temporal))
            for level in nest.levels
        ),
    )
    exact = ln.cost(ln.Problem(op, nests.wide(2), semantics="walk"), ragged)
    assert exact.energy[0].count == 10 * 6 * 4
    assert exact.cycles == 10 * 6 * 4
