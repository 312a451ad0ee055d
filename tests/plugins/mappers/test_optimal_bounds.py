"""The bound against every single mapping of small mapspaces: never above the best, and equal to it where no window slides."""

from __future__ import annotations

import itertools
from typing import get_args

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tilewright import loopnest as ln
from tilewright.loopnest.mapspace import TEMPORAL, Mapspace, Points, prime_factors
from tilewright.plugins.mappers.optimal.search import Bounds
from tilewright.protocol.architecture import Architecture, Compute, Constraints, Level, LevelConstraint
from tilewright.protocol.cost import Objective
from tilewright.protocol.workload import Operator, batched_matmul, conv2d, depthwise, matmul

W, I, O = "Weights", "Inputs", "Outputs"  # noqa: E741

OPERATORS = {
    "matmul": matmul(p=4, c=4, k=6),
    "vector": matmul(p=1, c=12, k=6),
    "heads": batched_matmul(g=2, p=2, c=4, k=2),
    "shared keys": batched_matmul(g=2, h=2, p=2, c=2, k=2),
    "window": conv2d(r=3, s=1, p=8, q=1, c=2, k=2),
    "both windows": conv2d(r=2, s=2, p=4, q=2, c=1, k=2),
    "split taps": conv2d(r=4, s=1, p=4, q=1, c=1, k=2),
    "strided": conv2d(r=3, s=1, p=4, q=1, c=2, k=2, stride=(2, 1)),
    "strided split taps": conv2d(r=4, s=1, p=4, q=1, c=1, k=2, stride=(2, 1)),
    "gaps": conv2d(r=1, s=1, p=4, q=2, c=2, k=2, stride=(2, 2)),
    "dilated": conv2d(r=3, s=1, p=4, q=1, c=2, k=2, dilation=(2, 1)),
    "depthwise": depthwise(r=3, s=1, p=4, q=1, g=4),
}


def level(name: str, words: int | None, keeps: tuple[str, ...], price: float, mesh: int = 1, **fields: float) -> Level:
    bits = None if words is None else 8 * words
    return Level(
        name,
        bits,
        instances=mesh,
        mesh_x=mesh,
        keeps=keeps,
        read_energy_pj=price,
        fill_energy_pj=1.3 * price,
        update_energy_pj=1.7 * price,
        **fields,  # type: ignore[arg-type]
    )


MACHINES = {
    "two levels": Architecture(
        "two", Compute("MAC", 1, energy_pj=0.2), (level("Buffer", 9, (W, I, O), 1.0), level("DRAM", None, (W, I, O), 30.0))
    ),
    "uneven": Architecture(
        "uneven",
        Compute("MAC", 4, 4, energy_pj=0.2),
        (
            level("Register", 2, (W,), 0.1, mesh=4),
            level("Sums", 6, (O,), 0.5, mesh=2),
            level("Buffer", 12, (I, O), 2.0, shared_bandwidth=3.0),
            level("DRAM", None, (W, I, O), 40.0, read_bandwidth=0.5, write_bandwidth=0.25),
        ),
    ),
}


#: Other tools' rules that are bounded too.
PEERS = (ln.Conventions(outputs="zigzag", latency="roofline"), ln.Conventions(outputs="accelforge", latency="roofline"))


class TooMany(Exception):
    """More mappings than a test should look at."""


def every_mapping(space: Mapspace, rows: int = 60_000) -> Points:
    """All points of a mapspace: all splits, and for each all orders of the non-trivial loops of each level."""
    dims = len(space.problem.dims)
    per_dim = []
    for d, bound in enumerate(space.problem.bounds.tolist()):
        ways = [np.ones(len(space.slots), dtype=np.int64)]
        for prime, count in prime_factors(bound).items():
            slots = np.flatnonzero(space.allowed[:, d]).tolist()
            more = []
            for chosen in itertools.combinations_with_replacement(slots, count):
                for way in ways:
                    split = way.copy()
                    np.multiply.at(split, list(chosen), prime)
                    more.append(split)
            ways = more
        per_dim.append(ways)
    if np.prod([float(len(ways)) for ways in per_dim]) > rows:
        raise TooMany
    factors = np.array([np.stack(parts, axis=1) for parts in itertools.product(*per_dim)])
    keep = np.broadcast_to(space.keep, (len(factors), *space.keep.shape))
    plain = np.broadcast_to(np.arange(dims, dtype=np.int8), (len(factors), len(space.keep), dims))
    points = Points(factors, plain, keep)
    points = points.take(space.fits(points))
    temporal = [space.slots.index((at, TEMPORAL)) for at in range(len(space.keep))]
    chosen, orders = [], []
    for row, split in enumerate(points.factors):
        per_level = []
        for slot in temporal:
            loops = np.flatnonzero(split[slot] > 1).tolist()
            rest = [d for d in range(dims) if d not in loops]
            per_level.append([(*order, *rest) for order in itertools.permutations(loops)])
        for order in itertools.product(*per_level):
            chosen.append(row)
            orders.append(order)
        if len(chosen) > rows:
            raise TooMany
    return Points(points.factors[chosen], np.array(orders, dtype=np.int8), points.keep[chosen])


def best_of_all(problem: ln.Problem, objective: Objective) -> tuple[float, ln.Batch, int]:
    space = Mapspace(problem)
    batch = space.batch(every_mapping(space))
    values = ln.evaluate(batch).objective(objective)
    return float(values.min()), batch, int(values.argmin())


def least_bound(problem: ln.Problem, objective: Objective, at: ln.Batch, index: int) -> float:
    """The least bound of all configurations, aimed at the best mapping; also that rough bounds are below tight ones."""
    bounds = Bounds(problem, objective)
    bounds.aim(ln.cost(problem, at.mapping(index)))
    rough = bounds.rough(np.inf)
    tight = bounds.tight(rough.chosen, np.inf)
    below = dict(zip(map(tuple, rough.chosen.T.tolist()), rough.bounds.tolist(), strict=True))
    for configuration, bound in zip(map(tuple, tight.chosen.T.tolist()), tight.bounds.tolist(), strict=True):
        assert below[configuration] <= bound * (1 + 1e-9)
    return float(tight.bounds[0])


@pytest.mark.parametrize("objective", ["edp", "energy", "latency"])
@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_bound_is_below_every_mapping(operator: Operator, machine: Architecture, objective: Objective) -> None:
    problem = ln.Problem(operator, machine)
    best, batch, index = best_of_all(problem, objective)
    bound = least_bound(problem, objective, batch, index)
    assert bound <= best * (1 + 1e-9)
    windows = any(len([t for t in rank.terms if operator.bounds[t.dim] > 1]) > 1 for rank in operator.tensor(I).ranks)
    if objective == "energy" and not windows:
        assert bound == pytest.approx(best, rel=1e-9)
    # Windows, whole cycles and ports other than the limiting one leave something open, but not much.
    assert bound >= 0.7 * best


@pytest.mark.parametrize("objective", ["ed2p", "e2dp", "latency-then-energy", "energy-then-latency"])
@pytest.mark.parametrize("operator", [OPERATORS["matmul"], OPERATORS["strided"]], ids=["matmul", "strided"])
def test_bound_of_objectives_that_weigh_or_rank(operator: Operator, objective: Objective) -> None:
    problem = ln.Problem(operator, MACHINES["uneven"])
    best, batch, index = best_of_all(problem, objective)
    bound = least_bound(problem, objective, batch, index)
    assert 0.6 * best <= bound <= best * (1 + 1e-9)


@pytest.mark.parametrize("rules", PEERS, ids=["zigzag", "accelforge"])
@pytest.mark.parametrize("operator", [OPERATORS["matmul"], OPERATORS["heads"], OPERATORS["strided"]], ids=["matmul", "heads", "strided"])
def test_bound_under_the_conventions_of_other_tools(operator: Operator, rules: ln.Conventions) -> None:
    """Exact for energies without windows: every access is charged as the convention counts it."""
    problem = ln.Problem(operator, MACHINES["uneven"], conventions=rules)
    for objective in ("energy", "edp"):
        best, batch, index = best_of_all(problem, objective)
        bound = least_bound(problem, objective, batch, index)
        assert 0.7 * best <= bound <= best * (1 + 1e-9)
        if objective == "energy" and operator is not OPERATORS["strided"]:
            assert bound == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_nests_cost_what_their_plan_says(operator: Operator) -> None:
    """Without the credit for related loops, the value of a plan is the energy of the nest read back from it (or a little more)."""
    problem = ln.Problem(operator, MACHINES["uneven"])
    bounds = Bounds(problem, "energy")
    for configuration in bounds.rough(np.inf).chosen.T[:40, :, None]:
        claimed, nest = bounds.surely(configuration)
        if nest is not None:
            cost = ln.cost(problem, nest).energy_pj
            windows = any(len([t for t in rank.terms if operator.bounds[t.dim] > 1]) > 1 for rank in operator.tensor(I).ranks)
            assert cost <= claimed * (1 + 1e-9)
            assert windows or cost == pytest.approx(claimed, rel=1e-9)


def test_bound_honours_constraints() -> None:
    limits = Constraints(
        (
            LevelConstraint("Sums", spatial_dims=("C",), temporal_dims=("P", "K")),
            LevelConstraint("Buffer", spatial_dims=("K",), temporal_dims=()),
        )
    )
    problem = ln.Problem(matmul(p=4, c=4, k=6), MACHINES["uneven"], limits)
    best, batch, index = best_of_all(problem, "energy")
    assert least_bound(problem, "energy", batch, index) == pytest.approx(best, rel=1e-9)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_bound_is_below_every_mapping_of_drawn_problems(data: st.DataObject) -> None:
    """Operators with windows of all kinds on machines that keep tensors anywhere, with any bandwidths."""
    draw = data.draw
    stride, dilation = draw(st.sampled_from([1, 1, 2, 3])), draw(st.sampled_from([1, 1, 2]))
    operator = draw(
        st.sampled_from(
            [
                conv2d(r=r, s=s, p=p, q=2 if s > 1 else 1, c=c, k=2, stride=(stride, 1), dilation=(dilation, 1))
                for r in (2, 3, 4)
                for s in (1, 2)
                for p in (2, 4, 6)
                for c in (1, 2)
            ]
            + [depthwise(r=r, s=1, p=p, q=1, g=2, stride=(stride, 1)) for r in (2, 3, 4) for p in (4, 6)]
        )
    )
    meshes = [1]
    for _ in range(draw(st.integers(2, 3))):
        meshes.append(meshes[-1] * draw(st.sampled_from([1, 1, 2, 4])))
    meshes.reverse()
    levels = []
    for at, mesh in enumerate(meshes[1:-1]):
        keeps = tuple(t for t in (W, I, O) if draw(st.booleans()))
        port = draw(st.sampled_from(["read_bandwidth", "write_bandwidth", "shared_bandwidth"]))
        bandwidth = draw(st.sampled_from([0.5, 2.0, 1000.0]))
        levels.append(level(f"L{at}", draw(st.sampled_from([4, 8, 12, 40])), keeps, 0.3 * 4**at, mesh=mesh, **{port: bandwidth}))
    levels.append(level("DRAM", None, (W, I, O), 40.0, shared_bandwidth=draw(st.sampled_from([0.25, 1.0, 1000.0]))))
    machine = Architecture("drawn", Compute("MAC", meshes[0], meshes[0], energy_pj=0.2), tuple(levels))
    objective: Objective = draw(st.sampled_from(get_args(Objective)))
    rules = draw(st.sampled_from([ln.TIMELOOP, ln.TIMELOOP, *PEERS]))
    problem = ln.Problem(operator, machine, conventions=rules)
    try:
        best, batch, index = best_of_all(problem, objective)
    except TooMany:
        assume(False)
    assume(np.isfinite(best))
    assert least_bound(problem, objective, batch, index) <= best * (1 + 1e-9)
