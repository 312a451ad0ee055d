"""Mapspaces: what is drawn obeys the rules, and small ones are drawn completely."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright import loopnest as ln
from tilewright.loopnest.mapspace import Mapspace, divisors, prime_factors
from tilewright.protocol import registry
from tilewright.protocol.architecture import Architecture, Compute, Constraints, Level, LevelConstraint
from tilewright.protocol.workload import Operator, batched_matmul, conv2d, depthwise, matmul

TENSORS = ("Weights", "Inputs", "Outputs")
OPERATORS = {
    "matmul": matmul(p=64, c=96, k=40),
    "attention": batched_matmul(g=12, p=16, c=64, k=16),
    "strided": conv2d(r=3, s=3, p=14, q=14, c=16, k=32, stride=(2, 2)),
    "depthwise": depthwise(r=3, s=3, p=28, q=28, g=32),
}


@given(st.integers(1, 5000))
def test_factors_multiply_back(number: int) -> None:
    assert math.prod(p**n for p, n in prime_factors(number).items()) == number
    assert divisors(number) == [d for d in range(1, number + 1) if number % d == 0]


@pytest.mark.parametrize("target", ["gemmini", "simba", "eyeriss", "tpu_like"])
@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_samples_are_valid_and_so_are_their_neighbours(operator: Operator, target: str) -> None:
    """The judge is `loopnest.check`, which shares no code with the mapspace."""
    plugin = registry.load("targets", target)
    problem = ln.Problem(operator, plugin.architecture(), plugin.constraints())
    space = Mapspace(problem)
    points = space.sample(np.random.default_rng(3), 300)
    assert len(points) == 300
    batch = space.batch(points)
    assert ln.check(batch).valid.all()
    assert (space.points(batch).factors == points.factors).all()
    for move in (space.moves, space.swaps, space.reorders):
        neighbours = move(points.take([0]))
        assert ln.check(space.batch(neighbours)).valid.all()


def test_unfitting_samples_are_judged_as_the_model_does() -> None:
    plugin = registry.load("targets", "simba")
    problem = ln.Problem(OPERATORS["strided"], plugin.architecture(), plugin.constraints())
    space = Mapspace(problem)
    points = space.sample(np.random.default_rng(0), 2000, fit=False)
    valid = ln.check(space.batch(points)).valid
    assert 0 < valid.sum() < len(points)
    assert (space.fits(points) == valid).all()


def test_pooled_levels_are_judged_as_the_model_does() -> None:
    machine = Architecture(
        "pooled",
        Compute("MAC", 4, 4),
        (
            Level("WeightsPart", 1024, 8, keeps=("Weights",), pool="buffer", read_energy_pj=1.0),
            Level("Rest", 1024, 16, keeps=("Inputs", "Outputs"), pool="buffer", multiple_buffering=2, read_energy_pj=1.0),
            Level("DRAM", keeps=TENSORS, read_energy_pj=1.0),
        ),
    )
    problem = ln.Problem(matmul(p=16, c=16, k=16), machine)
    space = Mapspace(problem)
    points = space.sample(np.random.default_rng(0), 2000, fit=False)
    valid = ln.check(space.batch(points)).valid
    assert 0 < valid.sum() < len(points)
    assert (space.fits(points) == valid).all()
    assert ln.check(space.batch(space.sample(np.random.default_rng(0), 500))).valid.all()


def test_constraints_are_kept() -> None:
    machine = registry.load("targets", "simba").architecture()
    limits = Constraints(
        (
            LevelConstraint("GlobalBuffer", spatial_dims=("K",), temporal_dims=("P",), max_factors={"P": 2}),
            LevelConstraint("WeightBuffer", temporal_dims=()),
        )
    )
    problem = ln.Problem(OPERATORS["strided"], machine, limits)
    space = Mapspace(problem)
    assert ln.check(space.batch(space.sample(np.random.default_rng(1), 500))).valid.all()


@pytest.mark.parametrize("count", [1, 3])
def test_every_point_of_a_small_mapspace_is_drawn(count: int) -> None:
    """A bound of 2**count over one spatial slot of 2 and two temporal ones: stars and bars by hand."""
    machine = Architecture(
        "small",
        Compute("MAC", 2, 2),
        (Level("Buffer", keeps=TENSORS, read_energy_pj=1.0), Level("DRAM", keeps=TENSORS, read_energy_pj=1.0)),
    )
    space = Mapspace(ln.Problem(matmul(p=2**count, c=1, k=1), machine))
    drawn = {tuple(point.ravel().tolist()) for point in space.sample(np.random.default_rng(0), 500).factors}
    assert len(drawn) == 2 * count + 1


def test_moves_of_a_small_point() -> None:
    """One prime, three slots: two neighbours; with whole divisors of 4, also the moves of 4 at once."""
    machine = Architecture(
        "small",
        Compute("MAC", 4, 4),
        (Level("Buffer", keeps=TENSORS, read_energy_pj=1.0), Level("DRAM", keeps=TENSORS, read_energy_pj=1.0)),
    )
    space = Mapspace(ln.Problem(matmul(p=4, c=1, k=1), machine))
    point = space.sample(np.random.default_rng(0), 100)
    home = point.take(point.factors[:, space.outermost, 0] == 4).take([0])
    assert len(space.moves(home)) == 2
    assert len(space.moves(home, whole=True)) == 4


def test_reorders_visit_every_single_shift() -> None:
    """Three loops at one level: from one order, four others are one shift away (the reverse needs two)."""
    machine = Architecture("small", Compute("MAC", 1), (Level("DRAM", keeps=TENSORS, read_energy_pj=1.0),))
    space = Mapspace(ln.Problem(matmul(p=2, c=2, k=2), machine))
    point = space.sample(np.random.default_rng(0), 1)
    orders = {tuple(order[0]) for order in space.reorders(point).order.tolist()}
    assert len(orders) == len(space.reorders(point)) == 4


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_shares_partition_the_mapspace(seed: int, of: int) -> None:
    machine = registry.load("targets", "simba").architecture()
    space = Mapspace(ln.Problem(matmul(p=24, c=36, k=8), machine))
    points = space.sample(np.random.default_rng(seed), 50)
    assert (sum(space.share(points, i, of).astype(int) for i in range(of)) == 1).all()
