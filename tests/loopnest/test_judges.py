"""The closed forms against interpreters that share no code with them."""

from __future__ import annotations

import random

import judge
import nests
import pytest

from tilewright import loopnest as ln
from tilewright.protocol.mapping import Mapping
from tilewright.protocol.workload import Operator


def _compare(op: Operator, nest: Mapping, semantics: ln.Semantics, conventions: ln.Conventions = ln.TIMELOOP) -> bool:
    """Assert that model and interpreter agree; False when the mapping is refused."""
    problem = ln.Problem(op, nests.wide(len(nest.levels)), semantics=semantics, conventions=conventions)
    result = nests.figures_of(problem, nest)
    if result is None:
        return False
    verdict = judge.corners(op, nest, conventions.release) if semantics == "timeloop" else judge.full_walk(op, nest)
    assert int(result.nest.steps[0]) == verdict.steps
    assert [int(used[0]) for used in result.nest.used] == verdict.used
    traffic = result.traffic
    for (level, tensor), row in verdict.rows.items():
        t = problem.tensors.index(tensor)
        ours = [int(table[level][t][0]) for table in (traffic.tiles, traffic.reads, traffic.fills, traffic.updates)]
        assert ours == [row.tile, row.reads, row.fills, row.updates], (level, tensor)
        if traffic.machine is None:
            total = [count * verdict.used[level] for count in ours[1:]]
        else:
            total = [int(table[level][t][0]) for table in traffic.machine]
        assert total == [row.all_reads, row.all_fills, row.all_updates], (level, tensor)
    return True


@pytest.mark.parametrize("chunk", range(4))
def test_timeloop_semantics_equal_the_corner_procedure(chunk: int) -> None:
    compared = 0
    for seed in range(100 * chunk, 100 * chunk + 100):
        rng = random.Random(seed)
        op = nests.operator(rng)
        compared += _compare(op, nests.mapping(rng, op, rng.choice((2, 3, 3, 4))), "timeloop")
    assert compared > 90


def test_the_rules_of_2022_equal_their_procedure() -> None:
    compared = 0
    for seed in range(1000, 1150):
        rng = random.Random(seed)
        op = nests.operator(rng)
        compared += _compare(op, nests.mapping(rng, op, rng.choice((2, 3, 4))), "timeloop", ln.Conventions(release="2022"))
    assert compared > 130


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("chunk", range(3))
def test_walk_semantics_equal_a_full_walk(chunk: int, ragged: bool) -> None:
    compared = 0
    for seed in range(100 * chunk, 100 * chunk + 100):
        rng = random.Random(seed)
        op = nests.operator(rng, written_windows=True)
        compared += _compare(op, nests.mapping(rng, op, rng.choice((2, 3, 3)), ragged=ragged), "walk")
    assert compared > 80


def test_both_semantics_agree_without_windows() -> None:
    for seed in range(60):
        rng = random.Random(seed)
        op = nests.matmul(p=rng.randint(1, 12), c=rng.randint(1, 12), k=rng.randint(1, 12))
        nest = nests.mapping(rng, op, 3)
        architecture = nests.wide(3)
        if nests.figures_of(ln.Problem(op, architecture), nest) is None:
            continue
        reference = ln.cost(ln.Problem(op, architecture), nest)
        walked = ln.cost(ln.Problem(op, architecture, semantics="walk"), nest)
        assert (reference.traffic, reference.energy, reference.cycles) == (walked.traffic, walked.energy, walked.cycles)
