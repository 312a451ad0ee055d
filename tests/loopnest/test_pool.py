"""A pool charged on an architecture says what a fresh evaluation there says."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright import loopnest as ln
from tilewright.loopnest.mapspace import Mapspace
from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidArchitecture
from tilewright.testing import samples


@pytest.mark.parametrize("name", ["matmul", "conv", "attention"])
@pytest.mark.parametrize("sizes", [{"pe": 16}, {"pe": 4, "scratchpad_kib": 1, "accumulator_kib": 1}, {"pe": 128, "scratchpad_kib": 300}])
def test_pool_equals_evaluation(name: str, sizes: dict[str, int]) -> None:
    target = registry.load("targets", "gemmini")
    there = target.architecture(**sizes)
    largest = target.architecture(pe=128, scratchpad_kib=2048, accumulator_kib=2048)
    problem = ln.Problem(samples.OPERATORS[name], largest, target.constraints())
    space = Mapspace(problem)
    batch = space.batch(space.sample(np.random.default_rng(1), 300))
    cycles, energy = ln.Pool(batch).on(there)
    again = batch[:]
    again.problem = ln.Problem(samples.OPERATORS[name], there, target.constraints())
    expected = ln.evaluate(again)
    assert expected.valid.any()
    np.testing.assert_array_equal(cycles, expected.cycles)
    np.testing.assert_array_equal(energy, expected.energy_pj)


def test_other_levels_are_refused() -> None:
    problem = ln.Problem(samples.OPERATORS["matmul"], samples.architecture())
    pool = ln.Pool(ln.Batch.from_mappings(problem, [samples.outermost(problem.operator, problem.architecture)]))
    with pytest.raises(InvalidArchitecture, match="Scratchpad"):
        pool.on(registry.load("targets", "gemmini").architecture())
