"""The relaxed problem: real-valued factors with exact products, hardware as an unknown, one loss for the whole network.

* A factor is ``bound ** share``; the shares of a dim over its slots are a softmax, so products always meet the bounds.
* Hardware parameters are unknown logarithms; capacities and fan-outs are soft constraints that harden.
* Factors are drawn towards divisors, more and more.

Traffic is that of the one cost model (`tilewright.loopnest.real`), charged on each start's own hardware.
Symbols: ``A`` starts, ``S`` slots, ``D`` dims, ``L`` levels, ``T`` tensors, ``P`` parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from tilewright.loopnest.mapspace import TEMPORAL, Mapspace, Points, X, divisors
from tilewright.loopnest.real import evaluate_real
from tilewright.protocol.cost import Objective

from .machine import Figures, Tensor

#: Least share of a dim that a slot starts with: without any, it could not grow.
FLOOR = 0.02
#: Weights at the end: of what does not fit (in e-folds), and of the squared log-distance to the nearest divisor.
OVERFLOW, ATTRACTION = 4.0, 0.3

#: Exponents of energy and of cycles in each objective; of two that follow each other, the second counts a little.
EXPONENTS: dict[Objective, tuple[float, float]] = {
    "edp": (1.0, 1.0),
    "energy": (1.0, 0.0),
    "latency": (0.0, 1.0),
    "ed2p": (1.0, 2.0),
    "e2dp": (2.0, 1.0),
    "latency-then-energy": (0.01, 1.0),
    "energy-then-latency": (1.0, 0.01),
}


class Layer:
    """One operator's unknowns: logits [A, S, D] of the shares."""

    def __init__(self, space: Mapspace, points: Points, count: float) -> None:
        self.space, self.count = space, count
        self.order, self.keep = points.order, points.keep
        problem = space.problem
        self.logits = torch.zeros(points.factors.shape, dtype=torch.float64, requires_grad=True)
        self._closed = torch.as_tensor(~space.allowed)
        self._bounds = torch.as_tensor(np.log(problem.bounds), dtype=torch.float64)
        self._divisors = [torch.as_tensor(np.log(divisors(int(bound)))) for bound in problem.bounds]
        levels = problem.architecture.levels
        self._block = torch.tensor([float(level.block_words) for level in levels], dtype=torch.float64)
        self._mac_pj = problem.prices.compute * problem.operator.macs
        self.place(points)

    def place(self, points: Points) -> None:
        """Go on from these points."""
        self.order, self.keep = points.order.copy(), points.keep
        bounds = self._bounds.clamp(min=1e-9)
        share = torch.as_tensor(points.factors, dtype=torch.float64).log() / bounds
        with torch.no_grad():
            self.logits.copy_(share.clamp(min=FLOOR).log())

    def logs(self) -> Tensor:
        """Logarithms of the factors, [A, S, D]."""
        return torch.softmax(self.logits.masked_fill(self._closed, -torch.inf), dim=1) * self._bounds

    def factors(self) -> NDArray[np.float64]:
        """The factors, float64[A, S, D]."""
        found: NDArray[np.float64] = self.logs().detach().exp().numpy()
        return found

    def costs(self, logs: Tensor, hardware: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """pJ, cycles, and what does not fit (e-folds), [A] each, of factors with these logarithms, [A, S, D]."""
        capacity, price, bandwidth, fanout = hardware
        temporal, spatial, crowded = self._blocks(logs, fanout)
        found = evaluate_real(self.space.problem, temporal, spatial, self.order, self.keep)
        words = found.accesses * self._block[:, None, None]
        energy = (words.sum(dim=2) * price).sum(dim=(1, 2)) + self._mac_pj
        each = words.sum(dim=2) / found.instances.unsqueeze(2)
        ports = torch.stack([each[:, :, 0], each[:, :, 1] + each[:, :, 2], each.sum(dim=2)], dim=2)
        steps = temporal.clamp(min=1.0).log().sum(dim=(1, 2)).exp()
        cycles = torch.maximum(steps, (ports / bandwidth).amax(dim=(1, 2)))
        over = torch.relu((found.kept_words.clamp(min=1.0) / capacity).log()).sum(dim=1)
        return energy, cycles, over + crowded

    def _blocks(self, logs: Tensor, fanout: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Temporal and spatial factors [A, L, D], and by how much fan-outs are exceeded, in e-folds, [A]."""
        levels = len(self._block)
        nothing = torch.zeros_like(logs[:, 0])
        temporal, spatial = [nothing] * levels, [nothing] * levels
        crowded = torch.zeros_like(nothing[:, 0])
        for slot, (level, kind) in enumerate(self.space.slots):
            if kind == TEMPORAL:
                temporal[level] = logs[:, slot]
            else:
                spatial[level] = spatial[level] + logs[:, slot]
                crowded = crowded + torch.relu(logs[:, slot].sum(dim=1) - fanout[:, level, kind - X])
        return torch.stack(temporal, dim=1).exp(), torch.stack(spatial, dim=1).exp(), crowded

    def distance(self, logs: Tensor) -> Tensor:
        """The squared log-distance of all factors to the nearest divisors, [A]."""
        total = torch.zeros_like(logs[:, 0, 0])
        for dim, choices in enumerate(self._divisors):
            if len(choices) > 1:
                here = logs[:, :, dim]
                with torch.no_grad():
                    middles = (choices[1:] + choices[:-1]) / 2
                    goal = choices[torch.bucketize(here.contiguous(), middles)]
                total = total + torch.square(here - goal).sum(dim=1)
        return total


def loss(layers: Sequence[Layer], figures: Figures, sizes: Tensor, objective: Objective, progress: float) -> Tensor:
    """[A]: the logarithm of the network's objective and the penalties, whose weights grow with `progress` from 0 to 1."""
    hardware = figures.of(sizes)
    energy = cycles = over = distance = torch.zeros(len(sizes), dtype=torch.float64)
    for layer in layers:
        logs = layer.logs()
        each = layer.costs(logs, hardware)
        energy, cycles = energy + layer.count * each[0], cycles + layer.count * each[1]
        over, distance = over + each[2], distance + layer.distance(logs)
    power = EXPONENTS[objective]
    value = power[0] * energy.log() + power[1] * cycles.log()
    hardness = OVERFLOW * (0.25 + 0.75 * progress)
    attraction = ATTRACTION * progress**2
    return value + (hardness * over + attraction * distance) / math.sqrt(len(layers))
