"""Gradient descent on real-valued factors, rounded to mappings: DOSA's mapping search on fixed hardware.

Source: Hong et al., "DOSA: Differentiable Model-Based One-Loop Search for DNN Accelerators", MICRO 2023, sections 4 and 5.
All factors but the outermost ones are variables (their logarithms); the outermost make the products meet the bounds. The
loss is the logarithm of the objective under the one cost model's torch namespace, plus penalties for factors below 1, tiles that do
not fit and fan-outs that are exceeded. Every so often factors are rounded to divisors, inside out, the loop order of each level is
chosen among those that keep one tensor stationary, and the mapping is scored exactly; descent goes on from there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from tilewright import loopnest as ln
from tilewright.loopnest.mapspace import TEMPORAL, Mapspace, Points, divisors, scores
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Candidate, Context, MapRequest

STARTS, STEPS, ROUNDS, RATE = 32, 25, 8, 0.05
#: Weight of the penalties against the logarithm of the objective.
PENALTY = 10.0


class Gradient:
    """The mapper plugin; it needs the extra ``torch``. One step of one start counts as one evaluation."""

    options: ClassVar[dict[str, str]] = {
        "starts": f"mappings descended at once (default {STARTS})",
        "steps": f"steps between two roundings (default {STEPS})",
        "rounds": f"roundings (default {ROUNDS})",
    }

    def search(self, request: MapRequest, ctx: Context) -> Iterator[Candidate]:
        """Yield the best start, and every improvement among the rounded mappings."""
        try:
            from tilewright.loopnest import real
        except ImportError:
            raise InvalidInput('mapper gradient: torch is not installed; install the extra: pip install "tilewright[torch]"') from None
        space = Mapspace(ln.Problem(request.operator, request.architecture, request.constraints))
        count, steps, rounds = (int(request.options.get(*item)) for item in (("starts", STARTS), ("steps", STEPS), ("rounds", ROUNDS)))
        descent = Descent(space, request, real)
        points = space.sample(ctx.rng, count)
        if request.start:
            given = space.points(ln.Batch.from_mappings(space.problem, list(request.start)))
            points = Points.concatenate([given.take(space.complete(given)), points]).take(slice(0, count))
        best = np.inf
        for at in range(rounds + 1):
            if not len(points) or ctx.cancelled:
                return
            if at:
                ctx.charge(steps * len(points))
                factors = descent.run(points, steps)
                points = self._ordered(space, request, ctx, Points(rounded(space, factors), points.order, points.keep))
            batch = space.batch(points)
            values = scores(ctx.evaluate(batch), request.objective)
            chosen = int(np.argmin(values))
            if values[chosen] < best:
                best = float(values[chosen])
                yield Candidate(batch.mapping(chosen))

    @staticmethod
    def _ordered(space: Mapspace, request: MapRequest, ctx: Context, points: Points) -> Points:
        """Each point with the best of the orders in which one tensor stays at a level, the same at all levels."""
        orders = stationary_orders(space)
        many = points.repeat(len(orders))
        order = np.tile(orders, (len(points), 1, 1))
        values = scores(ctx.evaluate(space.batch(Points(many.factors, order, many.keep))), request.objective)
        values = np.concatenate([values, np.full(len(many) - len(values), np.inf)]).reshape(len(points), len(orders))
        return Points(points.factors, orders[np.argmin(values, axis=1)], points.keep)


class Descent:
    """Adam on the logarithms of the factors."""

    def __init__(self, space: Mapspace, request: MapRequest, real: Any) -> None:
        self._space, self._objective, self._real = space, request.objective, real
        levels = space.problem.architecture.levels
        self._capacity = [level.usable_words for level in levels]

    def run(self, points: Points, steps: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """``float64[B, S, D]``: the factors after some steps."""
        import torch

        space = self._space
        inner = [slot for slot in range(len(space.slots)) if slot != space.outermost]
        logs = torch.log(torch.as_tensor(points.factors[:, inner], dtype=torch.float64)).requires_grad_()
        open_ = torch.as_tensor(space.allowed[inner])
        bounds = torch.log(torch.as_tensor(space.problem.bounds, dtype=torch.float64))
        adam = torch.optim.Adam([logs], lr=RATE)
        for _ in range(steps):
            adam.zero_grad()
            used = torch.where(open_, logs, 0.0)
            outer = bounds - used.sum(dim=1)
            loss, penalty = self._loss(torch.cat([used, outer[:, None]], dim=1), points)
            penalty = penalty + torch.relu(-used).sum(dim=(1, 2)) + torch.relu(-outer).sum(dim=1)
            (loss + PENALTY * penalty).sum().backward()
            adam.step()
        with torch.no_grad():
            used = torch.where(open_, logs, 0.0)
            factors = torch.exp(torch.cat([used, (bounds - used.sum(dim=1))[:, None]], dim=1))
        found: np.ndarray[Any, np.dtype[np.float64]] = factors.numpy()
        return found

    def _loss(self, logs: Any, points: Points) -> tuple[Any, Any]:
        """Logarithm of the objective, and penalties for what does not fit, ``[B]`` each."""
        import torch

        space = self._space
        factors = torch.exp(torch.clamp(logs, min=0.0))
        levels = range(len(space.keep))
        one = torch.ones_like(factors[:, 0])
        temporal, spatial = ([one] * len(space.keep) for _ in range(2))
        penalty = torch.zeros(len(factors), dtype=torch.float64)
        for slot, (level, kind) in enumerate(space.slots):
            if kind == TEMPORAL:
                temporal[level] = factors[:, slot]
            else:
                spatial[level] = spatial[level] * factors[:, slot]
                penalty = penalty + torch.relu(torch.log(factors[:, slot]).sum(dim=1) - math.log(int(space.side[slot])))
        found = self._real.evaluate_real(
            space.problem, torch.stack(temporal, dim=1), torch.stack(spatial, dim=1), points.order, points.keep
        )
        for level in levels:
            words = self._capacity[level]
            if words is not None:
                penalty = penalty + torch.relu(torch.log(found.kept_words[:, level].clamp(min=1.0)) - math.log(words))
        value = {"edp": found.edp, "energy": found.energy_pj, "latency": found.cycles}[self._objective]
        return torch.log(value), penalty


def rounded(space: Mapspace, factors: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """``int64[B, S, D]``: inside out, the divisor of what is left of a dim that is nearest on a logarithmic scale and within its limits.

    Spatial slots come first, so that parallelism is not lost to loops inside of it.
    """
    result = np.ones(factors.shape, dtype=np.int64)
    slots = sorted(range(len(space.slots)), key=lambda slot: (space.kind[slot] == TEMPORAL, slot))
    for row, dim in itertools.product(range(len(factors)), range(factors.shape[2])):
        left = int(space.problem.bounds[dim])
        for slot in slots:
            if slot == space.outermost or not space.allowed[slot, dim]:
                continue
            limit = int(space.limit[slot, dim])
            if space.kind[slot] != TEMPORAL:
                limit = int(space.side[slot]) // int(result[row, slot].prod())
                across = space.across[slot]
                if across >= 0 and result[row, across, dim] > 1:
                    continue
            wanted = max(1.0, float(factors[row, slot, dim]))
            choices = [d for d in divisors(left) if d <= max(1, limit)]
            result[row, slot, dim] = min(choices, key=lambda d, wanted=wanted: abs(math.log(d / wanted)))  # type: ignore[misc]
            left //= int(result[row, slot, dim])
        result[row, space.outermost, dim] = left
    return result


def stationary_orders(space: Mapspace) -> np.ndarray[Any, np.dtype[np.int8]]:
    """``int8[T, L, D]``: orders in which the loops that leave one tensor alone are innermost, one tensor at all levels."""
    relevant = space.problem.relevant
    orders = [sorted(range(relevant.shape[1]), key=lambda d: (bool(row[d]), d)) for row in relevant]
    return np.repeat(np.array(orders, dtype=np.int8)[:, None], len(space.keep), axis=1)
