"""The torch namespace: equal to numpy on integer factors, right gradients in between."""

from __future__ import annotations

import nests
import numpy as np
import pytest

from tilewright import loopnest as ln
from tilewright.loopnest.evaluate import figures
from tilewright.protocol.architecture import Architecture, Compute, Level
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS, Operator, conv2d, depthwise, matmul

torch = pytest.importorskip("torch")

from tilewright.loopnest.real import evaluate_real  # noqa: E402

OPERATORS = {
    "matmul": matmul(p=48, c=36, k=60),
    "conv": conv2d(r=3, s=3, p=14, q=12, c=8, k=16, stride=(2, 1)),
    "depthwise": depthwise(r=5, s=3, p=12, q=8, g=6),
    "diagonal": nests.diagonal(12, 4, 6, 2),
    "cascade": nests.cascade(12, 4, 3, 6, 2),
}


def simba_like() -> Architecture:
    """Six levels with blocks, clusters, leakage and bandwidths, so that every rounding of the model is met."""
    tensors = (WEIGHTS, INPUTS, OUTPUTS)
    sizes = ((64, 1, 8), (16, 1, 2), (16, 4, 1), (4, 4, 1), (1, 8, 1), (1, 16, 1))
    return Architecture(
        "six",
        Compute("MAC", 64, 8, 8, energy_pj=0.3),
        tuple(
            Level(
                f"L{i}",
                None if i == 5 else 2**30,
                block_words=block,
                instances=instances,
                mesh_x=int(instances**0.5),
                mesh_y=int(instances**0.5),
                cluster_size=cluster,
                read_bandwidth=3.0 + i,
                write_bandwidth=2.0 + i,
                shared_bandwidth=6.0 if i % 2 else None,
                keeps=tensors if i in (2, 4, 5) else (tensors[i % 3],),
                read_energy_pj=1.0 + i,
                fill_energy_pj=1.5 + i,
                update_energy_pj=1.7 + i,
                leakage_pj_per_cycle=0.01 * i,
            )
            for i, (instances, block, cluster) in enumerate(sizes)
        ),
    )


def tensors_of(batch: ln.Batch) -> tuple[torch.Tensor, torch.Tensor]:
    return (
        torch.tensor(batch.temporal, dtype=torch.float64, requires_grad=True),
        torch.tensor(batch.spatial, dtype=torch.float64, requires_grad=True),
    )


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("semantics", ["timeloop", "walk"])
def test_integer_factors_equal_numpy(name: str, semantics: ln.Semantics) -> None:
    problem = ln.Problem(OPERATORS[name], simba_like(), semantics=semantics)
    batch = nests.batch(problem, 200)
    exact, _ = figures(batch)
    temporal, spatial = tensors_of(batch)
    real = evaluate_real(problem, temporal, spatial, batch.order, batch.keep)
    np.testing.assert_allclose(real.energy_pj.detach(), exact.energy, rtol=1e-12)
    np.testing.assert_allclose(real.cycles.detach(), exact.cycles, rtol=1e-12)
    np.testing.assert_allclose(real.level_cycles.detach(), np.stack(exact.level_cycles, axis=1), rtol=1e-12)
    np.testing.assert_allclose(real.tile_words.detach(), np.moveaxis(np.array(exact.traffic.tiles), -1, 0), rtol=1e-12)
    np.testing.assert_allclose(real.accesses.detach(), np.moveaxis(np.array(exact.accesses), -1, 0), rtol=1e-12)


@pytest.mark.parametrize("name", ["matmul", "conv", "depthwise"])
@pytest.mark.parametrize("semantics", ["timeloop", "walk"])
def test_gradients_equal_finite_differences(name: str, semantics: ln.Semantics) -> None:
    """At points a little off the integers, where no comparison is about to change."""
    problem = ln.Problem(OPERATORS[name], simba_like(), semantics=semantics)
    batch = nests.batch(problem, 24, seed=3)
    rng = np.random.default_rng(5)
    # Trivial loops stay trivial: whether a loop is present has no gradient.
    shift = [np.where(factors > 1, rng.uniform(0.11, 0.37, factors.shape), 0.0) for factors in (batch.temporal, batch.spatial)]
    temporal, spatial = (factors.detach() + torch.tensor(by) for factors, by in zip(tensors_of(batch), shift, strict=True))

    def objective(t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        result = evaluate_real(problem, t, s, batch.order, batch.keep)
        return torch.log(result.energy_pj) + torch.log(result.cycles)

    temporal.requires_grad_()
    spatial.requires_grad_()
    objective(temporal, spatial).sum().backward()
    step = 1e-6
    checked = 0
    for which, factors in enumerate((temporal, spatial)):
        places = sorted({tuple(index[1:]) for index in np.argwhere(factors.detach().numpy() > 1).tolist()})
        for level, dim in rng.permutation(places)[:8].tolist():
            present = factors.detach()[:, level, dim] > 1
            moved = []
            for sign in (1, -1):
                pair = [temporal.detach().clone(), spatial.detach().clone()]
                pair[which][:, level, dim] += sign * step * present
                moved.append(objective(*pair))
            numeric = (moved[0] - moved[1]) / (2 * step)
            assert factors.grad is not None
            analytic = factors.grad[:, level, dim]
            np.testing.assert_allclose(analytic[present], numeric[present], rtol=1e-5, atol=1e-7)
            checked += int(present.sum())
    assert checked > 30


def test_factors_below_one_count_as_one() -> None:
    problem = ln.Problem(OPERATORS["matmul"], simba_like())
    batch = nests.batch(problem, 4)
    temporal, spatial = tensors_of(batch)
    less = torch.where(temporal == 1, 0.4, temporal.detach())
    expected = evaluate_real(problem, temporal, spatial, batch.order, batch.keep)
    found = evaluate_real(problem, less, spatial, batch.order, batch.keep)
    np.testing.assert_allclose(found.energy_pj.detach(), expected.energy_pj.detach(), rtol=0.01)


def test_dims_of_one_are_left_out() -> None:
    op: Operator = conv2d(r=1, s=1, p=12, q=1, c=8, k=4)
    problem = ln.Problem(op, simba_like())
    batch = nests.batch(problem, 30)
    exact, _ = figures(batch)
    real = evaluate_real(problem, *tensors_of(batch), batch.order, batch.keep)
    np.testing.assert_allclose(real.energy_pj.detach(), exact.energy, rtol=1e-12)


def test_rules_that_need_exact_mappings_are_refused() -> None:
    problem = ln.Problem(OPERATORS["matmul"], simba_like(), conventions=ln.Conventions(peer_transfers=True))
    batch = nests.batch(problem, 2)
    with pytest.raises(InvalidInput, match="evaluate_real: peer transfers"):
        evaluate_real(problem, *tensors_of(batch), batch.order, batch.keep)
