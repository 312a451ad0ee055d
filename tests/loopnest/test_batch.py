"""Batches: from and to mappings, slicing, joining, and what they refuse."""

from __future__ import annotations

import random

import nests
import numpy as np
import pytest

from tilewright import loopnest as ln
from tilewright.protocol.errors import InvalidMapping
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.workload import conv2d, matmul

OP = matmul(p=12, c=8, k=6)


def problem(semantics: ln.Semantics = "timeloop") -> ln.Problem:
    return ln.Problem(OP, nests.wide(3), semantics=semantics)


def nest(*inner: Loop, spatial: tuple[Loop, ...] = (), keep: tuple[str, ...] = nests.TENSORS) -> Mapping:
    done = {loop.dim: loop.factor for loop in (*inner, *spatial)}
    outer = tuple(Loop(dim, bound // max(1, done.get(dim, 1))) for dim, bound in OP.bounds.items())
    return Mapping((LevelMapping("L0", (), inner, keep), LevelMapping("L1", spatial, (), keep), LevelMapping("L2", (), outer, keep)))


def test_mappings_survive_the_round_trip() -> None:
    rng = random.Random(3)
    op = conv2d(r=3, s=2, p=8, q=6, c=4, k=6)
    there = ln.Problem(op, nests.wide(3))
    mappings = [nests.mapping(rng, op, 3).canonical() for _ in range(50)]
    batch = ln.Batch.from_mappings(there, mappings)
    assert [batch.mapping(i).canonical() for i in range(50)] == mappings


def test_ragged_loops_survive_the_round_trip() -> None:
    rng = random.Random(4)
    there = problem("walk")
    for _ in range(50):
        mapping = nests.mapping(rng, OP, 3, ragged=True)
        again = ln.Batch.from_mappings(there, [mapping]).mapping(0)
        assert ln.cost(there, again) == ln.cost(there, mapping)
        assert not again.is_ragged or mapping.is_ragged


def test_slices_masks_and_joins() -> None:
    there = problem()
    batch = ln.Batch.from_mappings(there, [nest(Loop("P", factor)) for factor in (1, 2, 3, 4, 6)])
    whole = ln.evaluate(batch)
    for part, index in ((batch[1:3], slice(1, 3)), (batch[np.array([4, 0])], [4, 0]), (batch[np.arange(5) > 2], [3, 4])):
        np.testing.assert_array_equal(ln.evaluate(part).energy_pj, whole.energy_pj[index])
    joined = ln.Batch.concatenate([batch[:2], batch[2:]])
    assert len(joined) == 5
    np.testing.assert_array_equal(ln.evaluate(joined).cycles, whole.cycles)


def test_batches_of_other_problems_are_not_joined() -> None:
    other = ln.Problem(matmul(p=12, c=8, k=5), nests.wide(3))
    empty = ln.Batch.from_mappings(other, [])
    with pytest.raises(InvalidMapping, match="different problems"):
        ln.Batch.concatenate([ln.Batch.from_mappings(problem(), [nest()]), empty])


def test_an_empty_batch_evaluates() -> None:
    assert len(ln.evaluate(ln.Batch.from_mappings(problem(), []))) == 0


def test_large_batches_are_evaluated_in_chunks() -> None:
    there = problem()
    batch = nests.batch(there, 5000)
    whole = ln.evaluate(batch)
    np.testing.assert_array_equal(whole.energy_pj[4000:4010], ln.evaluate(batch[4000:4010]).energy_pj)
    assert whole.reads.shape == (5000, 3, 3)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (Mapping((LevelMapping("L0"), LevelMapping("L2"))), "levels: \\['L0', 'L2'\\], expected \\['L0', 'L1', 'L2'\\]"),
        (nest(Loop("Z", 2)), "L0: dim 'Z' is unknown"),
        (nest(Loop("P", 2), Loop("P", 3)), "L0: dim 'P' has two loops in one block"),
        (nest(Loop("P", 0)), "L0.P: factor 0, expected at least 1"),
        (nest(keep=("Weight",)), "L0.keep: tensor 'Weight' is unknown; did you mean 'Weights'"),
    ],
)
def test_malformed_mappings_are_named(mapping: Mapping, message: str) -> None:
    with pytest.raises(InvalidMapping, match=message):
        ln.Batch.from_mappings(problem(), [mapping])
    with pytest.raises(InvalidMapping, match="mapping 1: "):
        ln.Batch.from_mappings(problem(), [nest(), mapping])


def test_malformed_arrays_are_named() -> None:
    good = ln.Batch.from_mappings(problem(), [nest()])
    arrays = (good.temporal, good.spatial, good.axis, good.order, good.keep)
    with pytest.raises(InvalidMapping, match=r"temporal: shape \(1, 2, 3\), expected \(1, 3, 3\)"):
        ln.Batch(problem(), good.temporal[:, :2], *arrays[1:])
    broken = good.order.copy()
    broken[0, 1] = (0, 0, 2)
    with pytest.raises(InvalidMapping, match=r"order\[0, 1\]: \[0, 0, 2\], expected a permutation of 0..2"):
        ln.Batch(problem(), *arrays[:3], broken, good.keep)


def test_problems_compare_by_content() -> None:
    assert problem() == problem()
    assert hash(problem()) == hash(problem())
    assert problem() != problem("walk")
