"""The lower bound of `pareto` against every mapping of the named mapspace on every hardware of small boxes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tilewright import loopnest as ln
from tilewright.loopnest.mapspace import divisors
from tilewright.plugins.codesigners.pareto.bound import Bound, Box
from tilewright.plugins.codesigners.pareto.tiles import ACCUMULATOR, ACCUMULATOR_ORDER, DRAM, SCRATCHPAD, tiles_of
from tilewright.plugins.targets.gemmini import Gemmini
from tilewright.protocol.cost import Objective
from tilewright.protocol.workload import Operator, conv2d, matmul

LARGEST = Gemmini().architecture(pe=128, scratchpad_kib=2048, accumulator_kib=2048)
#: Two layers each, with counts; sizes at which memories of a few KiB bind.
NETWORKS: dict[str, list[tuple[Operator, int]]] = {
    "products": [(matmul(p=12, c=64, k=32), 2), (matmul(p=64, c=16, k=30), 1)],
    "windows": [(conv2d(r=3, s=1, p=20, q=1, c=16, k=14), 1), (conv2d(r=1, s=1, p=9, q=5, c=49, k=9), 3)],
    "strided": [(conv2d(r=3, s=3, p=6, q=4, c=2, k=3, stride=(2, 1)), 1), (conv2d(r=2, s=1, p=25, q=1, c=25, k=49, stride=(2, 2)), 1)],
}


def every_mapping(operator: Operator) -> ln.Pool:
    """The whole named mapspace: all splits over array, accumulator and DRAM, all DRAM orders of the loops above 1."""
    problem = ln.Problem(operator, LARGEST, Gemmini().constraints())
    dims = problem.dims
    inner = sorted(range(len(dims)), key=lambda d: ACCUMULATOR_ORDER.index(dims[d]))
    per_dim = []
    for name, bound in zip(dims, problem.bounds.tolist(), strict=True):
        spread = divisors(bound) if name in "CK" else [1]
        per_dim.append([(s, t // s, bound // t) for t in divisors(bound) for s in spread if t % s == 0])
    temporal, spatial, order = [], [], []
    for split in itertools.product(*per_dim):
        active = [d for d in range(len(dims)) if split[d][2] > 1]
        blocks = np.ones((2, 4, len(dims)), np.int64)
        for d, (array, accumulator, dram) in enumerate(split):
            blocks[0, ACCUMULATOR, d], blocks[0, DRAM, d] = accumulator, dram
            blocks[1, SCRATCHPAD if dims[d] == "K" else ACCUMULATOR, d] = array
        for outer in itertools.permutations(active):
            temporal.append(blocks[0])
            spatial.append(blocks[1])
            order.append([*outer, *(d for d in range(len(dims)) if d not in active)])
    orders = np.tile(np.array(inner, np.int8), (len(order), 4, 1))
    orders[:, DRAM] = order
    keep = np.broadcast_to(ln.default_keep(problem), (len(order), 4, 3)).copy()
    return ln.Pool(ln.Batch(problem, np.array(temporal), np.array(spatial), np.zeros_like(orders), orders, keep))


@pytest.fixture(scope="module", params=sorted(NETWORKS))
def network(request: pytest.FixtureRequest) -> tuple[list[ln.Pool], list[int]]:
    return [every_mapping(operator) for operator, _ in NETWORKS[request.param]], [count for _, count in NETWORKS[request.param]]


def optimum(pools: list[ln.Pool], counts: list[int], box: Box, objective: Objective) -> float:
    """The least objective over all hardware of the box and all pairs of mappings."""
    best = math.inf
    for pe, scratchpad, accumulator in itertools.product(*(range(low, high + 1) for low, high in box)):
        architecture = Gemmini().architecture(pe=pe, scratchpad_kib=scratchpad, accumulator_kib=accumulator)
        fronts = []
        for pool, count in zip(pools, counts, strict=True):
            cycles, energy = pool.on(architecture)
            points = sorted({(float(e) * count, int(c) * count) for e, c in zip(energy, cycles, strict=True) if np.isfinite(e)})
            least = math.inf
            fronts.append([])
            for e, c in points:
                if c < least:
                    least = c
                    fronts[-1].append((e, c))
        for one, other in itertools.product(*fronts):
            energy_sum, cycles_sum = one[0] + other[0], one[1] + other[1]
            best = min(best, {"edp": energy_sum * cycles_sum, "energy": energy_sum, "latency": cycles_sum}[objective])
    return best


def bound_of(pools: list[ln.Pool], counts: list[int], box: Box, objective: Objective = "edp") -> Bound:
    return Bound([tiles_of(pool.batch.problem) for pool in pools], counts, Gemmini().architecture, box, objective)


@pytest.mark.parametrize("objective", ["edp", "energy", "latency"])
def test_never_above_the_optimum_and_meets_it(network: tuple[list[ln.Pool], list[int]], objective: Objective) -> None:
    pools, counts = network
    space: Box = ((3, 7), (1, 3), (1, 1))
    least = optimum(pools, counts, space, objective)
    bound = bound_of(pools, counts, space, objective)
    seen = [bound.lower]
    bound.upper = least
    while bound.split():
        seen.append(bound.lower)
    assert all(each <= least for each in seen)
    assert seen == sorted(seen)
    # What is left between them: words rounded up to blocks, and cycles to whole ones; much in layers as small as these.
    assert bound.lower >= 0.93 * least
    assert bound.lower > seen[0] or seen[0] >= 0.98 * least


def test_holds_in_single_boxes(network: tuple[list[ln.Pool], list[int]]) -> None:
    pools, counts = network
    for box in (((2, 2), (1, 1), (1, 1)), ((5, 7), (2, 2), (1, 2)), ((15, 16), (1, 1), (1, 2))):
        assert bound_of(pools, counts, box).lower <= optimum(pools, counts, box, "edp")


def test_area_excludes_boxes() -> None:
    problem = ln.Problem(matmul(p=12, c=64, k=32), LARGEST, Gemmini().constraints())
    roomy, tight = (
        Bound([tiles_of(problem)], [1], Gemmini().architecture, ((2, 64), (1, 64), (1, 64)), "edp", area) for area in (math.inf, 0.2)
    )
    for each in (roomy, tight):
        each.upper = 1e30
        for _ in range(40):
            each.split()
    assert tight.lower > roomy.lower
