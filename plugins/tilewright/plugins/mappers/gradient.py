"""Gradient descent on real-valued factors, rounded to mappings: DOSA's mapping search on fixed hardware.

Source: Hong et al., "DOSA: Differentiable Model-Based One-Loop Search for DNN Accelerators", MICRO 2023, sections 4 and 5.
All factors but the outermost ones are variables (their logarithms); the outermost make the products meet the bounds. The
loss is the logarithm of the objective under the one cost model's torch namespace, plus penalties for factors below 1, tiles that do
not fit and fan-outs that are exceeded. Every so often factors are rounded to divisors, each level's loop order is chosen among
those that keep one tensor stationary, and the mapping is scored exactly; descent goes on from there. It starts from CoSA's
mapping and from random ones, as published, and refuses starts ten times worse than the best.

Other than published, because it finds better mappings (`ROUNDS` and the like say what was tried): logarithms of factors instead
of factors over maxima of a data set; only loops that are there, and a random few others, are variables between two roundings;
each point is rounded in several ways, knowing the capacities (hardware does not grow with the mapping here), and goes on from
the best of them if that improves; orders are chosen at every level instead of at DRAM only; a start at rest gives way to a new one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tilewright import loopnest as ln
from tilewright.loopnest.mapspace import TEMPORAL, Mapspace, Points, divisors, scores
from tilewright.protocol.cost import objective_value
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Candidate, Context, MapRequest

#: Ten steps find what twenty do in half of the time; with a rate of 0 (rounding by chance alone) results are up to 1.4 times worse.
STARTS, STEPS, ROUNDS, RATE = 8, 10, 60, 0.05
#: Chance that a loop that is not there may come into being between two roundings. The model sees a loop as soon as its factor exceeds 1,
#: at once and in full, so a step that lets all of them grow a little is no small step.
OPENED = 0.2
#: Ways in which each point is rounded: to the nearest divisors, and after noise of this size on the logarithms.
WAYS, NOISE = 16, 0.6
#: Rounds without improvement after which a start is drawn anew.
REST = 6
#: Adam's decay of the first and the second moment, and what keeps it from dividing by nothing.
DECAYS, TINY = (0.9, 0.999), 1e-8
#: Weight of the penalties against the logarithm of the objective.
PENALTY = 10.0
#: A start that is worse than the best one by more than this factor is drawn again.
POOR = 10.0


class Gradient:
    """The mapper plugin; it needs the extra ``torch``. One step of one start counts as one evaluation."""

    uses: ClassVar[tuple[str, ...]] = ("mappers:cosa",)
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
        scorer = Scorer(space, request, ctx)
        points, values = scorer.starts(count)
        idle = np.where(values > POOR * values.min(initial=np.inf), REST, 0)
        best = np.inf
        for _ in range(rounds + 1):
            chosen = int(np.argmin(values)) if len(values) else 0
            if len(values) and values[chosen] < best:
                best = float(values[chosen])
                yield Candidate(space.batch(points).mapping(chosen))
            if not len(points) or ctx.cancelled:
                return
            points, values = scorer.replaced(points, values, idle >= REST)
            idle[idle >= REST] = 0
            ctx.charge(steps * len(points))
            found, reached = scorer.rounded(points, descent.run(points, steps, ctx.rng))
            better = reached < values
            idle = np.where(better, 0, idle + 1)
            values = np.where(better, reached, values)
            here = better[:, None, None]
            points = Points(np.where(here, found.factors, points.factors), np.where(here, found.order, points.order), points.keep)


class Scorer:
    """Starts and loop orders, judged exactly."""

    def __init__(self, space: Mapspace, request: MapRequest, ctx: Context) -> None:
        self._space, self._request, self._ctx = space, request, ctx
        self._orders = stationary_orders(space)

    def starts(self, count: int) -> tuple[Points, NDArray[np.float64]]:
        """`count` points with their values: the request's mappings, else CoSA's, and random ones."""
        mappings = list(self._request.start)
        if not mappings:
            request = self._request
            asked = MapRequest(request.operator, request.architecture, request.constraints, request.objective)
            mappings = [candidate.mapping for candidate in self._ctx.plugin("mappers", "cosa").search(asked, self._ctx)]
        points = self._drawn(count)
        if mappings:
            given = self._space.points(ln.Batch.from_mappings(self._space.problem, mappings))
            points = Points.concatenate([given.take(self._space.fits(given) & self._space.complete(given)), points]).take(slice(0, count))
        values = self._values(points)
        return points.take(slice(0, len(values))), values

    def replaced(self, points: Points, values: NDArray[np.float64], which: NDArray[np.bool_]) -> tuple[Points, NDArray[np.float64]]:
        """The points with some of them drawn anew."""
        drawn = self._drawn(int(which.sum())) if which.any() else points.take([])
        if not len(drawn):
            return points, values
        found = self._values(drawn)
        rows = np.flatnonzero(which)[: len(found)]
        factors, order, values = points.factors.copy(), points.order.copy(), values.copy()
        factors[rows], order[rows], values[rows] = drawn.factors[: len(rows)], drawn.order[: len(rows)], found
        return Points(factors, order, points.keep), values

    def _drawn(self, count: int) -> Points:
        drawn = self._space.sample(self._ctx.rng, count)
        return drawn if len(drawn) else self._space.sample(self._ctx.rng, count, fit=False)

    def _values(self, points: Points) -> NDArray[np.float64]:
        return scores(self._ctx.evaluate(self._space.batch(points)), self._request.objective)

    def rounded(self, points: Points, factors: NDArray[np.float64]) -> tuple[Points, NDArray[np.float64]]:
        """``float64[B, S, D]`` factors reached from `points`, each as the best of its roundings with its best orders, and the values."""
        many = points.repeat(WAYS)
        noise = np.exp(NOISE * self._ctx.rng.standard_normal((len(many), *factors.shape[1:])))
        noise[::WAYS] = 1.0
        wanted = np.repeat(factors, WAYS, axis=0)
        many = Points(rounded(self._space, np.where(wanted > 1, wanted * noise, wanted), many.keep), many.order, many.keep)
        values = np.full(len(many), np.inf)
        found = self._values(many)
        values[: len(found)] = found
        chosen = np.argmin(values.reshape(-1, WAYS), axis=1) + WAYS * np.arange(len(points))
        return self.ordered(many.take(chosen), values[chosen])

    def ordered(self, points: Points, values: NDArray[np.float64]) -> tuple[Points, NDArray[np.float64]]:
        """Points of these values, each with the best of the orders in which one tensor stays, level by level from the outermost."""
        for level in reversed(range(len(self._space.keep))):
            loops = (points.factors[:, self._space.slots.index((level, TEMPORAL))] > 1).sum(axis=1)
            rows = np.flatnonzero(loops > 1)
            if not len(rows):
                continue
            count = len(self._orders)
            many = points.take(rows).repeat(count)
            many.order[:, level] = np.tile(self._orders, (len(rows), 1))
            found = self._values(many)
            table = np.concatenate([found, np.full(len(many) - len(found), np.inf)]).reshape(len(rows), count)
            better = table.min(axis=1) < values[rows]
            order = points.order.copy()
            order[rows[better], level] = self._orders[table.argmin(axis=1)[better]]
            values[rows] = np.minimum(values[rows], table.min(axis=1))
            points = Points(points.factors, order, points.keep)
        return points, values


class Descent:
    """Adam on the logarithms of the factors.

    Adam is written out: torch's own costs seconds of imports before the first step.
    """

    def __init__(self, space: Mapspace, request: MapRequest, real: Any) -> None:
        self._space, self._objective, self._real = space, request.objective, real
        levels = space.problem.architecture.levels
        self._capacity = [level.usable_words for level in levels]

    def run(self, points: Points, steps: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """``float64[B, S, D]``: the factors after some steps. Loops that are not there stay so, except for a random few."""
        import torch

        space = self._space
        inner = [slot for slot in range(len(space.slots)) if slot != space.outermost]
        logs = torch.log(torch.as_tensor(points.factors[:, inner], dtype=torch.float64)).requires_grad_()
        there = points.factors[:, inner] > 1
        open_ = torch.as_tensor(space.allowed[inner] & (there | (rng.random(there.shape) < OPENED)))
        bounds = torch.log(torch.as_tensor(space.problem.bounds, dtype=torch.float64))
        first = second = torch.zeros_like(logs)
        for step in range(1, steps + 1):
            used = torch.where(open_, logs, 0.0)
            outer = bounds - used.sum(dim=1)
            loss, penalty = self._loss(torch.cat([used, outer[:, None]], dim=1), points)
            penalty = penalty + torch.relu(-used).sum(dim=(1, 2)) + torch.relu(-outer).sum(dim=1)
            (slope,) = torch.autograd.grad((loss + PENALTY * penalty).sum(), logs)
            first = DECAYS[0] * first + (1 - DECAYS[0]) * slope
            second = DECAYS[1] * second + (1 - DECAYS[1]) * slope**2
            with torch.no_grad():
                logs -= RATE * first / (1 - DECAYS[0] ** step) / ((second / (1 - DECAYS[1] ** step)).sqrt() + TINY)
        with torch.no_grad():
            used = torch.where(open_, logs, 0.0)
            factors = torch.exp(torch.cat([used, (bounds - used.sum(dim=1))[:, None]], dim=1))
        found: NDArray[np.float64] = factors.numpy()
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
        return torch.log(objective_value(self._objective, found.energy_pj, found.cycles)), penalty


def rounded(space: Mapspace, factors: NDArray[np.float64], keep: NDArray[np.bool_]) -> NDArray[np.int64]:
    """``int64[B, S, D]``: slot by slot, the divisor of what is left of a dim that is nearest on a logarithmic scale, within its
    limits and with tiles that fit.

    Spatial slots come first, so that parallelism is not lost to loops inside of it; the others inside out. `keep`: ``bool[B, L, T]``.
    """
    result = np.ones(factors.shape, dtype=np.int64)
    left = np.tile(space.problem.bounds, (len(factors), 1))
    for slot in sorted(range(len(space.slots)), key=lambda slot: (space.kind[slot] == TEMPORAL, slot)):
        if slot == space.outermost:
            continue
        for dim in np.flatnonzero(space.allowed[slot] & (space.problem.bounds > 1)).tolist():
            chosen = _nearest(space, factors[:, slot, dim], result, left[:, dim], slot, dim, keep)
            result[:, slot, dim] = chosen
            left[:, dim] //= chosen
    result[:, space.outermost] = left
    return result


def _nearest(
    space: Mapspace,
    wanted: NDArray[np.float64],
    result: NDArray[np.int64],
    left: NDArray[np.int64],
    slot: int,
    dim: int,
    keep: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """``int64[B]``: the factor of a dim in a slot, for every point."""
    choices = np.array(divisors(int(space.problem.bounds[dim])), dtype=np.int64)
    room = np.full(len(left), space.limit[slot, dim])
    if space.kind[slot] != TEMPORAL:
        room = np.minimum(room, space.side[slot] // result[:, slot].prod(axis=1))
        if space.across[slot] >= 0:
            room = np.where(result[:, space.across[slot], dim] > 1, 1, room)
    distance = np.abs(np.log(choices) - np.log(np.maximum(wanted, 1.0))[:, None])
    distance[(left[:, None] % choices != 0) | (choices > np.maximum(room, 1)[:, None])] = np.inf
    rows = np.arange(len(left))
    order = np.empty((len(left), 0, 0), dtype=np.int8)  # sizes do not depend on it
    while True:
        nearest = np.argmin(distance, axis=1)
        tried = result.copy()
        tried[:, slot, dim] = choices[nearest]
        over = (space.overflow(Points(tried, order, keep)) > 0).any(axis=1) & (nearest > 0)
        if not over.any():
            found: NDArray[np.int64] = choices[nearest]
            return found
        distance[rows[over], nearest[over]] = np.inf


def stationary_orders(space: Mapspace) -> NDArray[np.int8]:
    """``int8[T, D]``: orders of a level in which the loops that leave one tensor alone are innermost."""
    relevant = space.problem.relevant
    return np.array([sorted(range(relevant.shape[1]), key=lambda d: (bool(row[d]), d)) for row in relevant], dtype=np.int8)
