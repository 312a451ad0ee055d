"""The co-designer `dosa`: its formulas by hand and against Timeloop's rows, its draws, its roundings, its published results."""

from __future__ import annotations

import itertools
import math
from typing import Any, ClassVar

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from tilewright import loopnest as ln
from tilewright.plugins.codesigners.dosa import starts
from tilewright.plugins.codesigners.dosa.descent import Descent
from tilewright.plugins.codesigners.dosa.layers import DIMS, INNER_ORDER, C, K, Layers, N, P, Q, R, S
from tilewright.plugins.codesigners.dosa.model import DATAFLOWS, Factors, Hardware, Model, Orders
from tilewright.plugins.codesigners.dosa.rounding import nearest, rounded
from tilewright.plugins.codesigners.dosa.settings import Settings
from tilewright.plugins.validations.timeloop_gemmini import rows as reference
from tilewright.protocol import registry
from tilewright.protocol.context import HostContext
from tilewright.protocol.cost import Objective
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Budget, BudgetExhausted, DesignCandidate, DesignRequest, Option, Options, WeightedWorkload
from tilewright.protocol.workload import Operator, Workload, batched_matmul, conv2d, matmul
from tilewright.testing import CodesignerConformance, samples

#: DOSA's BERT: (rows, contraction, columns, count) of each distinct product (ucb-bar/dosa, BSD-2-Clause).
BERT = [(128, 768, 768, 2), (128, 64, 128, 1), (128, 128, 64, 1), (128, 768, 3072, 1), (128, 3072, 768, 1)]
#: The first ten draws of start hardware of each published seed: array, KiB of scratchpad, KiB of accumulator.
DRAWS = {
    0: "128 64 1, 32 128 64, 16 32 512, 32 4 16, 128 2 512, 32 2048 512, 8 2 2048, 128 1024 32, 32 2 32, 8 512 1024",
    100: "16 128 4, 16 2048 32, 32 2 256, 2 2048 128, 2 1024 1024, 8 8 16, 4 4 8, 8 1024 64, 16 128 256, 128 64 4",
    1111: "4 32 1024, 8 128 2, 32 4 2, 8 1024 1024, 16 4 1024, 4 16 1, 16 16 32, 4 4 1024, 32 128 32, 2 128 512",
    8888: "128 32 16, 8 32 16, 32 2 512, 128 4 256, 8 64 4, 2 32 64, 128 32 16, 8 32 2, 32 32 128, 64 256 8",
    99999: "8 256 1024, 4 32 64, 8 64 2048, 32 256 8, 64 32 256, 64 512 16, 32 4 2048, 4 2048 32, 128 8 2048, 2 1024 4",
}


class TestDosa(CodesignerConformance):
    name = "dosa"
    options: ClassVar[Options] = {"starts": 3}
    evaluations = 300


def workload(*operators: Operator, name: str = "some", counts: tuple[int, ...] = ()) -> Workload:
    return Workload.build(name, [(f"l{i}", op) for i, op in enumerate(operators) for _ in range(counts[i] if counts else 1)])


def bert() -> Workload:
    return workload(*(matmul(p=p, c=c, k=k) for p, c, k, _ in BERT), name="bert", counts=tuple(n for *_, n in BERT))


def layers_of(*operators: Operator) -> Layers:
    return Layers.of((WeightedWorkload(workload(*operators)),))


def search(
    network: Workload,
    *,
    seed: int = 0,
    evaluations: int | None = None,
    objective: Objective = "edp",
    limits: dict[str, float] | None = None,
    **options: Option,
) -> tuple[list[DesignCandidate], HostContext]:
    ctx = HostContext("codesigners", "dosa", Budget(evaluations=evaluations), seed, granted=("targets:gemmini",))
    request = DesignRequest((WeightedWorkload(network),), "gemmini", objective, limits or {}, options=options)
    found = []
    try:
        for candidate in registry.load("codesigners", "dosa").search(request, ctx):
            found.append(candidate)
    except BudgetExhausted:
        pass
    return found, ctx


def totals(network: Workload, candidate: DesignCandidate) -> tuple[float, int]:
    """uJ and cycles by the one cost model."""
    target = registry.load("targets", "gemmini")
    problems = [ln.Problem(task.operator, target.architecture(**candidate.parameters), target.constraints()) for task in network.tasks]
    each = [(task.count, ln.cost(p, m)) for task, p, m in zip(network.tasks, problems, candidate.mappings, strict=True)]
    return math.fsum(n * cost.energy_pj for n, cost in each) * 1e-6, sum(n * cost.cycles for n, cost in each)


def point(bounds: dict[int, int], spatial: dict[tuple[int, int], float], temporal: dict[tuple[int, int], float]) -> Factors:
    """One layer's factors, float64[1, 3 or 4, 7], from those given as (level, dim); DRAM takes the rest."""
    s, t = torch.ones(1, 3, 7, dtype=torch.float64), torch.ones(1, 4, 7, dtype=torch.float64)
    for block, factors in ((s, spatial), (t, temporal)):
        for (level, dim), factor in factors.items():
            block[0, level, dim] = factor
    for dim, bound in bounds.items():
        t[0, 3, dim] = bound / (s[0, :, dim].prod() * t[0, :3, dim].prod())
    return Factors(s, t)


def orders(*dims: tuple[int, ...]) -> Orders:
    return Orders(np.array(dims))


def test_accesses_by_hand() -> None:
    """A 1x1 convolution: C = 256 as 8 rows, 4 inside, 8 outside; K = 128 as 4 columns, 2 inside, 16 outside; P, Q as 7 x 1 and 1 x 7."""
    model = Model(layers_of(conv2d(r=1, s=1, p=7, q=7, c=256, k=128)))
    factors = point({P: 7, Q: 7, C: 256, K: 128}, {(1, C): 8, (2, K): 4}, {(1, P): 7, (1, K): 2, (1, C): 4})
    prepared = model.prepare(factors)
    array, weights, inputs, outputs = (float(each) for each in prepared.needs)
    # W: 32 channels x 8 filters; I: 32 channels x 7 rows; O: 7 rows x 2 filters per column.
    assert (array, weights, inputs, outputs) == pytest.approx((8, 32 * 8, 32 * 7, 7 * 2))
    # K outermost, then Q, then C innermost: partial sums stay while C runs, inputs and weights do not.
    mac, register, accumulator, scratchpad, dram = (float(each) for each in prepared.accesses(orders((C, Q, K, R, S, P, N))))
    macs, size = 7 * 7 * 256 * 128, 7 * 7 * 128
    weight_fills = 256 * 8 * 7 * 16  # per register tile: all of C, Q and K outside, for 32 x 4 registers and C, K inside
    assert mac == pytest.approx(macs)
    assert register == pytest.approx(macs + 32 * 8 * 8 * 7 * 16)
    output_fills = 4 * 14 * 7 * 16  # C is innermost and leaves O alone
    assert accumulator == pytest.approx(2 * macs / 8 - size + output_fills)
    input_fills = 32 * 7 * 8 * 7 * 16
    assert scratchpad == pytest.approx(32 * 8 * 8 * 7 * 16 + weight_fills + macs / 4 + input_fills)
    assert dram == pytest.approx(weight_fills + input_fills + 2 * output_fills - size)


def test_sliding_window_by_hand() -> None:
    """3 taps, P in tiles of 4 that slide innermost with stride 2: each further tile brings what is new in its window."""
    layer = conv2d(r=3, s=1, p=16, q=1, c=4, k=1, stride=(2, 1))
    factors = point({P: 16, R: 3, C: 4}, {}, {(1, P): 4, (1, R): 3})
    model = Model(layers_of(layer))
    dram = float(model.prepare(factors).accesses(orders((P, C, R, S, Q, K, N)))[4])
    first, further = (4 - 1) * 2 + 3, (4 - 1) * 2 + 2
    inputs = (first + 3 * further) * 4
    weights, outputs, size = 3 * 4, 4 * 4 * 4, 16
    assert dram == pytest.approx(weights + inputs + 2 * outputs - size)


@pytest.mark.parametrize(("extent", "new"), [(1, 3), (2, 2), (3, 2), (4, 3)])
def test_taps_just_inside_of_the_sliding_loop(extent: int, new: int) -> None:
    """R innermost at DRAM and P next to it: a new position brings r words, r - 1 or max(stride, r)."""
    layer = conv2d(r=3, s=1, p=4 * extent, q=1, c=1, k=1)
    factors = point({P: 4 * extent, R: 3}, {}, {(1, P): extent})
    dram = float(Model(layers_of(layer)).prepare(factors).accesses(orders((R, P, Q, S, C, K, N)))[4])
    inputs = extent - 1 + 3 + 3 * (extent - 1 + new)
    # Weights come anew with every loop around; partial sums stay while the taps run.
    assert dram == pytest.approx(3 * 4 + inputs + 2 * 4 * extent - 4 * extent)


def test_energy_and_latency_from_accesses() -> None:
    factors = point({P: 8, C: 64, K: 32}, {(1, C): 16, (2, K): 8}, {(1, P): 8, (1, C): 2})
    model = Model(layers_of(matmul(p=8, c=64, k=32)))
    prepared = model.prepare(factors)
    mac, register, accumulator, scratchpad, dram = (float(each) for each in prepared.accesses(orders(DATAFLOWS[2])))
    costs = model.costs(prepared, orders(DATAFLOWS[2]), Hardware(*(torch.tensor(x, dtype=torch.float64) for x in (16.0, 12.0, 32.0))))
    sram = (1.94 + 0.1005 * 2) * accumulator + (0.49 + 0.02513 * 12) * scratchpad
    assert float(costs.energy) == pytest.approx(1e-6 * (0.5608 * mac + 0.48746172 * register + sram + 100 * dram))
    assert float(costs.cycles) == pytest.approx(max(mac / 128, register / 1e4, accumulator / 16, scratchpad / 32, dram / 8))


def test_hardware_is_what_the_layers_need_most() -> None:
    model = Model(layers_of(matmul(p=64, c=64, k=64), matmul(p=64, c=64, k=32)))
    large = point({P: 64, C: 64, K: 64}, {(1, C): 4, (2, K): 16}, {(1, P): 64, (1, C): 16, (1, K): 4})
    small = point({P: 64, C: 64, K: 32}, {(1, C): 32, (2, K): 8}, {})
    both = Factors(*(torch.cat(pair) for pair in zip(large, small, strict=True)))
    found = model.hardware(model.prepare(both).needs)
    assert float(found.array) == 32
    assert float(found.scratchpad) == pytest.approx((64 * 64 + 64 * 64) / 1024)
    assert float(found.accumulator) == pytest.approx(32 * 64 * 4 * 4 / 1024)
    assert [float(each) for each in found.whole()] == [32, 8, 32]
    assert Hardware(*(torch.tensor(x) for x in (5.7, 5.2, 0.1))).whole() == Hardware(*(torch.tensor(x) for x in (5.0, 6.0, 1.0)))


def test_against_timeloop() -> None:
    """On the reference rows as exact as published: cycles 0.005 %, energy 0.16 % off on average."""
    rows = reference.read(reference.DATA)[::20]
    layers = Layers.of((WeightedWorkload(Workload.build("rows", [("row", reference.layer(row.layer)) for row in rows])),))
    at = {operator: i for i, operator in enumerate(layers.operators)}
    energy_errors, cycle_errors = [], []
    for row in rows:
        operator = reference.layer(row.layer)
        model = Model(Layers.of((WeightedWorkload(workload(operator)),)))
        spatial, temporal = layers.factors(at[operator], row.mapping)
        given = [DIMS.index(loop.dim) for loop in row.mapping.levels[3].temporal]
        order = np.array([[*given, *(d for d in range(7) if d not in given)]])
        columns, accumulator, scratchpad = row.hardware[:3]
        sizes = (float(columns), scratchpad / 1024, accumulator * columns * 4 / 1024)
        factors = Factors(*(torch.as_tensor(each[None], dtype=torch.float64) for each in (spatial[:3], temporal)))
        costs = model.costs(model.prepare(factors), Orders(order), Hardware(*(torch.tensor(x, dtype=torch.float64) for x in sizes)))
        energy_errors.append(abs(float(costs.energy) / row.energy - 1))
        cycle_errors.append(abs(math.ceil(float(costs.cycles) - 1e-6) / row.cycles - 1))
    assert np.mean(energy_errors) < 0.0025
    assert np.mean(cycle_errors) < 0.0005
    assert np.median(energy_errors) < 0.0005


@pytest.mark.parametrize("strategy", ["iterative", "softmax"])
def test_gradient_of_the_loss(strategy: str) -> None:
    """Finite differences where all factors are above 1 and none is at a kink: only the objective counts there."""
    layers = layers_of(matmul(p=640, c=960, k=480), conv2d(r=12, s=12, p=140, q=140, c=320, k=640))
    model = Model(layers, published=True)
    descent = Descent(model, "edp", Settings.of({"strategy": strategy, "as_published": True}, "edp", ("x",)), math.inf, 0)
    order = Orders(np.tile(np.array(DATAFLOWS[0]), (1, 2, 1)))
    drawn = 1 + 0.3 * np.random.default_rng(1).random((2, 1, 2, 3, 7))
    start = [torch.as_tensor(np.where(layers.bounds[:, None] > 1, each, 1.0)).requires_grad_() for each in drawn]

    def objective(spatial: Any, temporal: Any) -> Any:
        return descent.loss(model.complete(spatial, temporal), order)[0]

    objective(*start).backward()
    for block, at in itertools.product((0, 1), [(0, 0, 1, C), (0, 1, 1, K), (0, 1, 2, P), (0, 0, 0, K)]):
        moved = []
        for step in (1e-6, -1e-6):
            shifted = [each.detach().clone() for each in start]
            shifted[block][at] += step
            moved.append(float(objective(*shifted)))
        assert float(start[block].grad[at]) == pytest.approx((moved[0] - moved[1]) / 2e-6, rel=1e-4, abs=1e-7 * abs(moved[0]))


def test_softmax_as_published_counts_repetitions_twice() -> None:
    layers = Layers.of((WeightedWorkload(workload(matmul(p=64, c=64, k=64), counts=(3,))),))
    factors = point({P: 64, C: 64, K: 64}, {(1, C): 8}, {(1, P): 8})
    found = []
    for published in (False, True):
        settings = Settings.of({"strategy": "softmax", "as_published": published}, "energy", ("x",))
        descent = Descent(Model(layers, published=published), "energy", settings, math.inf, 0)
        found.append(float(descent.loss(Factors(*(each[None] for each in factors)), orders(DATAFLOWS[0]))))
    assert found[1] == pytest.approx(3 * found[0])


def test_published_model_undercounts_what_the_repaired_one_counts() -> None:
    factors = point({P: 8, C: 16, K: 8, N: 4}, {}, {})
    layers = layers_of(conv2d(r=1, s=1, p=8, q=1, c=16, k=8, n=4))
    macs = [float(Model(layers, published=p).prepare(factors).accesses(orders((N, P, Q, R, S, C, K)))[0]) for p in (False, True)]
    assert macs == [pytest.approx(8 * 16 * 8 * 4), pytest.approx(16 * 8)]


@pytest.mark.parametrize("seed", DRAWS)
def test_start_hardware(seed: int) -> None:
    wanted = [tuple(int(size) for size in each.split()) for each in DRAWS[seed].split(", ")]
    assert list(itertools.islice(starts.hardware(seed), 10)) == wanted


def test_nearest_divisor() -> None:
    assert nearest(12, 5.0) == 6  # 4 and 6 are equally near: up
    assert nearest(12, 4.9) == 4
    assert nearest(7, 3.9) == 1
    assert nearest(1, 9.0) == 1


def test_rounding() -> None:
    """Spatial first, inside out, divisors by distance to the unrounded value; temporal by that to the rounded one; DRAM the rest."""
    bounds = np.array([[1, 1, 1, 1, 20, 12, 1]])
    spatial, temporal = np.ones((1, 3, 7)), np.ones((1, 3, 7))
    spatial[0, 1, C] = 2.6  # rounds to 3, which does not divide 20: 2 is nearer to 2.6 than 4
    temporal[0, 0, C] = 1.5  # half to even: 2
    temporal[0, 1, C] = 3.4  # rounds to 3, which does not divide 5: of 1 and 5 the larger
    spatial[0, 2, K] = 4.4  # 4
    temporal[0, 1, K] = 0.2  # at least 1
    s, t = rounded(bounds, spatial, temporal)
    assert (s[0, 1, C], t[0, 0, C], t[0, 1, C], t[0, 3, C]) == (2, 2, 5, 1)
    assert (s[0, 2, K], t[0, 1, K], t[0, 3, K]) == (4, 1, 3)
    assert ((s * t).prod(axis=1) == bounds).all()


def test_mappings_survive_the_round_trip() -> None:
    """A mapping made of factors is valid, says the same factors again, and costs what the model says."""
    target = registry.load("targets", "gemmini")
    architecture = target.architecture(pe=64, scratchpad_kib=2048, accumulator_kib=2048)
    for operator in (matmul(p=64, c=96, k=48), batched_matmul(g=3, p=16, c=16, k=8), batched_matmul(g=2, h=4, p=16, c=16, k=8)):
        layers = layers_of(operator)
        problem = ln.Problem(operator, architecture, target.constraints())
        spatial, temporal = np.ones((4, 7), dtype=np.int64), np.ones((4, 7), dtype=np.int64)
        spatial[1, C], spatial[2, K], temporal[1, P] = 8, 4, 8
        temporal[3] = layers.bounds[0] // (spatial * temporal).prod(axis=0)
        mapping = layers.mapping(0, architecture, spatial, temporal, np.array(DATAFLOWS[0]))
        again = layers.factors(0, mapping)
        assert (again[0] == spatial).all()
        assert (again[1] == temporal).all()
        exact = ln.cost(problem, mapping)
        model = Model(layers)
        factors = Factors(*(torch.as_tensor(each[None], dtype=torch.float64) for each in (spatial[:3], temporal)))
        sizes = Hardware(*(torch.tensor(x, dtype=torch.float64) for x in (64.0, 2048.0, 2048.0)))
        costs = model.costs(model.prepare(factors), orders(DATAFLOWS[0]), sizes)
        assert float(layers.counts[0] * costs.energy) * 1e6 == pytest.approx(exact.energy_pj, rel=0.01)
        assert float(layers.counts[0] * costs.cycles) == pytest.approx(exact.cycles, rel=0.01)


def test_first_orders_and_dataflows() -> None:
    assert INNER_ORDER == (P, Q, N, C, R, S, K)
    assert DATAFLOWS == ((P, Q, N, R, S, C, K), (K, R, S, P, Q, C, N), (R, S, C, K, P, Q, N))


@pytest.mark.parametrize(("seed", "published", "hardware"), [(0, 1.858e9, None), (1111, 1.797e9, (32, 192, 32))])
def test_published_result_without_gradient(seed: int, published: float, hardware: tuple[int, ...] | None) -> None:
    """CoSA's mappings and the choice of orders: figures of an independent implementation of the published search."""
    found, _ = search(bert(), seed=seed, steps=0, as_published=True)
    energy, cycles = totals(bert(), found[-1])
    assert energy * cycles == pytest.approx(published, rel=0.005)
    assert hardware is None or tuple(found[-1].parameters.values()) == hardware


def test_published_result() -> None:
    """The whole search at the published budget, on the seed whose figure does not hang on ties in CoSA's program."""
    found, ctx = search(bert(), seed=1111, as_published=True, evaluations=10_500 * len(BERT))
    energy, cycles = totals(bert(), found[-1])
    assert energy * cycles == pytest.approx(1.828e9, rel=0.005)
    assert 10_400 * len(BERT) < ctx.evaluations <= 10_500 * len(BERT)


@pytest.mark.parametrize("strategy", ["none", "iterative", "softmax", "gumbel"])
@pytest.mark.parametrize("objective", ["edp", "energy"])
def test_strategies(strategy: str, objective: Objective) -> None:
    network = workload(conv2d(r=3, s=3, p=14, q=14, c=64, k=64), matmul(p=32, c=64, k=48))
    found, _ = search(network, objective=objective, strategy=strategy, starts=2, steps=6, rounding=3, rate=0.01)
    energy, cycles = totals(network, found[-1])
    assert energy * cycles > 0
    first = totals(network, found[0])
    assert (energy if objective == "energy" else energy * cycles) <= 1.05 * (first[0] if objective == "energy" else first[0] * first[1])


def test_limits_are_kept() -> None:
    network = workload(matmul(p=64, c=128, k=128))
    found, _ = search(network, starts=3, steps=3, limits={"pe": 8, "scratchpad_kib": 64, "area_mm2": 1.0})
    assert found
    target = registry.load("targets", "gemmini")
    for candidate in found:
        assert candidate.parameters["pe"] <= 8
        assert candidate.parameters["scratchpad_kib"] <= 64
        prices = ln.Prices(target.architecture(**candidate.parameters))
        assert prices.compute_area + sum(prices.area) <= 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "best"}, "options.strategy: 'best', expected one of none, iterative, softmax, gumbel"),
        ({"as_published": "maybe"}, "options.as_published: 'maybe', expected true or false"),
        ({"starts": 0}, "options.starts: 0, expected a whole number of at least 1"),
        ({"rate": -1.0}, "options.rate: -1.0, expected a number above 0"),
    ],
)
def test_wrong_options(options: dict[str, Option], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        search(bert(), **options)


def test_what_it_does_not_cover() -> None:
    with pytest.raises(InvalidInput, match="objective: 'latency', expected edp or energy"):
        search(bert(), objective="latency")
    with pytest.raises(InvalidInput, match="dim R of its inputs has the step 2, expected 1"):
        search(workload(conv2d(r=3, s=1, p=8, q=1, c=4, k=4, dilation=(2, 1))))
    with pytest.raises(InvalidInput, match="limits: 'volts' is unknown"):
        search(bert(), limits={"volts": 1})
    ctx = HostContext("codesigners", "dosa", Budget(), granted=("targets:eyeriss",))
    with pytest.raises(InvalidInput, match=r"target 'eyeriss': its parameters are .*, expected Gemmini's"):
        list(registry.load("codesigners", "dosa").search(DesignRequest((WeightedWorkload(samples.workload()),), "eyeriss"), ctx))
