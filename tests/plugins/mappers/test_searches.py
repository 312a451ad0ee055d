"""The published searches: what is particular to each."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest

from tilewright import loopnest as ln
from tilewright.loopnest.mapspace import TEMPORAL, Mapspace, Points
from tilewright.plugins.mappers.hybrid import pruned_orders
from tilewright.protocol import registry
from tilewright.protocol.context import HostContext
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Budget, BudgetExhausted, Candidate, MapRequest, Options
from tilewright.protocol.workload import Operator, batched_matmul, conv2d, elementwise, matmul

SIMBA = registry.load("targets", "simba").architecture()
LAYER = conv2d(r=3, s=3, p=14, q=14, c=64, k=64)


def search(mapper: str, operator: Operator, evaluations: int, options: Options | None = None) -> tuple[list[Candidate], HostContext]:
    ctx = HostContext("mappers", mapper, Budget(evaluations=evaluations), 0)
    found = []
    try:
        for candidate in registry.load("mappers", mapper).search(MapRequest(operator, SIMBA, options=options or {}), ctx):
            found.append(candidate)
    except BudgetExhausted:
        pass
    return found, ctx


def edp(operator: Operator, candidates: list[Candidate]) -> float:
    return ln.cost(ln.Problem(operator, SIMBA), candidates[-1].mapping).edp


def test_hybrid_ends_by_its_victory_condition() -> None:
    found, ctx = search("hybrid", LAYER, 100_000, {"victory": 300})
    assert found
    assert ctx.evaluations < 100_000


def test_pruned_orders_are_complete_for_products_without_windows() -> None:
    """For one tiling, the best of the pruned orders is the best of all orders."""
    from itertools import permutations, product

    problem = ln.Problem(batched_matmul(g=4, h=2, p=4, c=8, k=8), SIMBA)
    space = Mapspace(problem)
    tilings = space.sample(np.random.default_rng(5), 6)
    for row in range(len(tilings)):
        tiling = tilings.take([row])
        pruned = min(float(ln.evaluate(space.batch(points)).edp.min()) for points in pruned_orders(space, tiling))
        loops = [np.flatnonzero(tiling.factors[0, space.slots.index((at, TEMPORAL))] > 1).tolist() for at in range(len(space.keep))]
        every = product(*([(*o, *(d for d in range(len(problem.dims)) if d not in o)) for o in permutations(level)] for level in loops))
        orders = np.array(list(every), dtype=np.int8)
        many = tiling.repeat(len(orders))
        assert math.isclose(pruned, float(ln.evaluate(space.batch(Points(many.factors, orders, many.keep))).edp.min()))


def test_genetic_beats_random_at_equal_evaluations() -> None:
    """By geometric mean over a few layers; the margin is that of the seed."""
    layers = [LAYER, matmul(p=128, c=768, k=768), conv2d(r=1, s=1, p=28, q=28, c=256, k=512)]
    ratios = [edp(layer, search("genetic", layer, 4000)[0]) / edp(layer, search("random", layer, 4000)[0]) for layer in layers]
    assert math.prod(ratios) < 1


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs the extra torch")
def test_gradient_descends() -> None:
    """It starts from CoSA's mapping and improves on it."""
    found, _ = search("gradient", LAYER, 1500)
    start, _ = search("cosa", LAYER, 10)
    assert edp(LAYER, found[:1]) <= edp(LAYER, start)
    assert edp(LAYER, found) < edp(LAYER, start)


def test_gradient_without_torch_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tilewright.loopnest.real", None)
    monkeypatch.delattr("tilewright.loopnest.real", raising=False)
    with pytest.raises(InvalidInput, match=r"tilewright\[torch\]"):
        search("gradient", LAYER, 100)


def test_portfolio_is_never_worse_than_its_members_and_keeps_the_proof() -> None:
    found, _ = search("portfolio", LAYER, 20_000)
    alone, _ = search("optimal", LAYER, 20_000)
    assert edp(LAYER, found) <= edp(LAYER, alone) * (1 + 1e-12)
    assert found[-1].claim.lower_bound is not None
    assert found[-1].claim.lower_bound == pytest.approx(alone[-1].claim.lower_bound)


def test_portfolio_goes_on_where_nothing_can_be_proven() -> None:
    """A sum of two tensors has no bound; other members than the first improve on it or end."""
    operator = elementwise("add", {"P": 64, "K": 64}, operands=2)
    found, _ = search("portfolio", operator, 3000, {"members": "optimal,genetic"})
    assert found
    assert all(candidate.claim.lower_bound is None for candidate in found)


def test_portfolio_refuses_unknown_members() -> None:
    with pytest.raises(InvalidInput, match=r"options\.members: 'annealing', expected some of cosa"):
        search("portfolio", LAYER, 100, {"members": "cosa,annealing"})


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs the extra torch")
def test_gradients_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the same search with steps of length 0: rounding by chance alone."""
    from tilewright.plugins.mappers import gradient

    layer = matmul(p=128, c=768, k=768)
    found = edp(layer, search("gradient", layer, 1500)[0])
    monkeypatch.setattr(gradient, "RATE", 0.0)
    assert found < edp(layer, search("gradient", layer, 1500)[0])


def test_rounding_takes_what_is_whole_already_and_fits_what_is_not() -> None:
    """Integer factors that fit round to themselves; any others round to factors that fit, near them where they can."""
    from tilewright.plugins.mappers.gradient import rounded

    space = Mapspace(ln.Problem(LAYER, SIMBA))
    points = space.sample(np.random.default_rng(3), 40)
    assert (rounded(space, points.factors.astype(float), points.keep) == points.factors).all()
    noisy = points.factors * np.exp(np.random.default_rng(4).standard_normal(points.factors.shape))
    factors = rounded(space, noisy, points.keep)
    assert space.fits(Points(factors, points.order, points.keep)).all()
    assert (factors.prod(axis=1) == space.problem.bounds).all()
