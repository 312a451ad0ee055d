"""The same model on torch: real-valued factors, gradients. Import this module only where torch is wanted.

The relaxation: a loop is present when its factor exceeds 1 (otherwise it counts as 1), orders are fixed, comparisons see
detached values, division is real and rounding up is the identity. For a mapping whose factors are all integers the
roundings are added back as constants, so that the figures equal those of `evaluate`; gradients are the same either way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tilewright.protocol.errors import InvalidInput

from .arrays import NUMPY, Namespace
from .evaluate import compute
from .nest import Nest
from .problem import Problem

Tensor = torch.Tensor


class _RealNamespace(Namespace):
    """Torch in double precision, with the relaxation of the module."""

    real = True
    where = staticmethod(torch.where)
    maximum = staticmethod(torch.maximum)
    minimum = staticmethod(torch.minimum)

    def __init__(self, integral: Tensor) -> None:
        #: bool[B]: mappings with integer factors only.
        self.integral = integral

    def values(self, x: Tensor) -> Tensor:
        return x.detach()

    def floats(self, x: Tensor) -> Tensor:
        return x

    def full(self, value: float, like: Tensor) -> Tensor:
        return torch.full_like(like, value, requires_grad=False)

    def floor_divide(self, a: Tensor, b: Tensor) -> Tensor:
        return a / b

    def blocks(self, words: Tensor, block: int) -> Tensor:
        return words if block == 1 else self.ceil(words / block)

    def ceil(self, x: Tensor) -> Tensor:
        value = x.detach()
        return x + torch.where(self.integral, torch.ceil(value) - value, 0.0)

    def take_rows(self, table: Tensor, order: Tensor) -> Tensor:
        return torch.gather(table, 0, order)

    def places(self, order: Tensor) -> Tensor:
        return torch.argsort(order, dim=0)

    def table(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    def members(self, chosen: list[int], size: int) -> Tensor:
        return torch.from_numpy(NUMPY.members(chosen, size))

    def ratio(self, limit: float, demand: Tensor) -> Tensor:
        asked = demand > 0
        # A number over a tensor would be multiplied by the reciprocal, which rounds differently.
        return torch.where(asked, torch.full_like(demand, limit) / torch.where(asked, demand, 1.0), torch.inf)

    def distinct_sums(self, count_a: Tensor, step_a: Tensor, count_b: Tensor, step_b: Tensor) -> Tensor:
        a, b = (torch.clamp(torch.round(step.detach()), min=1).to(torch.int64) for step in (step_a, step_b))
        divisor = torch.gcd(a, b)
        return count_a * count_b - torch.clamp(count_a - b // divisor, min=0) * torch.clamp(count_b - a // divisor, min=0)

    def distinct_vectors(self, counts: list[Tensor], steps: list[list[Any]]) -> Tensor:
        """Counted at the nearest integers, scaled with the product of the counts."""
        whole = [_whole(count) for count in counts]
        vectors = NUMPY.distinct_vectors(whole, [[_whole(step) for step in row] for row in steps])
        product = torch.stack(counts).prod(dim=0)
        return torch.from_numpy(vectors) * product / torch.from_numpy(np.prod(whole, axis=0))


def _whole(x: Any) -> Any:
    return np.rint(x.detach().numpy()).astype(np.int64) if isinstance(x, Tensor) else x


@dataclass(frozen=True)
class RealEvaluation:
    """Figures of a batch with gradients; validity is not judged."""

    #: float64[B].
    cycles: Tensor
    energy_pj: Tensor
    #: float64[B, L, T]: words of each tile, and (kept ones only) of all tiles of a level, float64[B, L].
    tile_words: Tensor
    kept_words: Tensor
    #: float64[B, L, T, 3]: block accesses of the machine by read, fill, update.
    accesses: Tensor
    #: float64[B, L]: used instances, and cycles that each level needs.
    instances: Tensor
    level_cycles: Tensor

    @property
    def edp(self) -> Tensor:
        """Energy-delay product, pJ x cycles, float64[B]."""
        return self.energy_pj * self.cycles


def evaluate_real(problem: Problem, temporal: Tensor, spatial: Tensor, order: Any, keep: Any) -> RealEvaluation:
    """Evaluate mappings with real factors.

    `temporal` and `spatial` are float64[B, L, D] (with gradients where wanted), `order` and `keep` as in `Batch`, of numpy or torch.
    The outermost level's factors must make the products meet the bounds: nothing is checked here. Raises `InvalidInput` under
    conventions that see more than factors, orders and keep sets.
    """
    if problem.conventions.peer_transfers or problem.needs_mesh:
        what = "peer transfers, first-load latency, priced and routed networks"
        raise InvalidInput(f"evaluate_real: {what} need exact mappings; use evaluate")
    active = problem.active
    order = torch.as_tensor(order).to(torch.int64)
    keep = torch.as_tensor(keep)
    if len(active) < len(problem.dims):
        place = torch.full((len(problem.dims),), -1)
        place[torch.tensor(active)] = torch.arange(len(active))
        order = place[order]
        order = order[order >= 0].reshape(*order.shape[:2], len(active))
    rows = []
    integral = torch.ones(len(temporal), dtype=torch.bool)
    for factors in (temporal, spatial):
        chosen = factors[:, :, active]
        integral &= (chosen.detach() == chosen.detach().round()).all(dim=2).all(dim=1)
        rows.append(torch.where(chosen.detach() > 1, chosen, 1.0).permute(1, 2, 0).contiguous())
    nest = Nest.of(_RealNamespace(integral), problem, rows[0], rows[1], order.permute(1, 2, 0).contiguous())
    levels, tensors = range(len(problem.levels)), range(len(problem.tensors))
    kept = [[keep[:, i, t].contiguous() for t in tensors] for i in levels]
    figures = compute(nest, kept)
    tile = torch.stack([torch.stack(row, dim=-1) for row in figures.traffic.tiles], dim=1)
    accesses = [torch.stack([torch.stack(counts, dim=-1) for counts in row], dim=1) for row in figures.accesses]
    return RealEvaluation(
        cycles=figures.cycles,
        energy_pj=figures.energy,
        tile_words=tile,
        kept_words=(tile * keep).sum(dim=2),
        accesses=torch.stack(accesses, dim=1),
        instances=torch.stack(nest.used, dim=1),
        level_cycles=torch.stack(figures.level_cycles, dim=1),
    )
