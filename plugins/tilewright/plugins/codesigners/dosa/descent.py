"""Adam on the normalised factors of all starts; its moments survive the roundings.

Symbols: ``A`` starts, ``N`` layers, ``D`` = 7 dims.
"""

from __future__ import annotations

import numpy as np
import torch

from tilewright.loopnest.adam import Adam
from tilewright.protocol.cost import Objective

from .layers import Ints
from .model import DATAFLOWS, Costs, Factors, Hardware, Model, Orders, Prepared, Tensor
from .normalise import ENERGY, LATENCY, maxima
from .settings import Settings

#: Weight of the square of what the array exceeds its limit by.
ARRAY_PENALTY = 10.0
#: The three orders, with axes for starts and layers.
EVERY = Orders(np.array(DATAFLOWS)[:, None, None])


class Descent:
    """The descent of some starts. Factors are unknown, divided by `maxima`; those at DRAM follow."""

    def __init__(self, model: Model, objective: Objective, settings: Settings, largest_array: float, seed: int) -> None:
        self._model, self._objective, self._settings, self._largest_array = model, objective, settings, largest_array
        self._scales = [torch.as_tensor(each) for each in maxima()]
        self._noise = torch.Generator().manual_seed(seed)
        self._unknown: list[Tensor] = []
        self._adam: Adam | None = None

    def place(self, spatial: Ints, temporal: Ints) -> None:
        """Go on from these factors, int64[A, N, 4, D] each."""
        values = [torch.as_tensor(block[..., :3, :]) / scale for block, scale in zip((spatial, temporal), self._scales, strict=True)]
        if self._adam is None:
            self._unknown = [value.requires_grad_() for value in values]
            self._adam = Adam(self._unknown, self._settings.rate)
        with torch.no_grad():
            for unknown, value in zip(self._unknown, values, strict=True):
                unknown.copy_(value)

    def step(self, orders: Orders) -> None:
        """One step of all starts."""
        assert self._adam is not None
        self._adam.step(self.loss(self.factors(), orders).sum())

    def factors(self) -> Factors:
        """The factors as they are."""
        spatial, temporal = (unknown * scale for unknown, scale in zip(self._unknown, self._scales, strict=True))
        return self._model.complete(spatial, temporal)

    def loss(self, factors: Factors, orders: Orders) -> Tensor:
        """The loss of every start, [A]: the objective, and penalties in proportion to it."""
        prepared = self._model.prepare(factors)
        needed = self._model.hardware(prepared.needs)
        if self._settings.strategy in ("softmax", "gumbel"):
            totals = self._mixed(prepared, needed)
        else:
            totals = self._model.totals(self._model.costs(prepared, orders, needed))
        value = normalised(totals, self._objective)
        below = [torch.square(torch.clamp(1 - each, min=0)).sum(dim=(1, 2, 3)) for each in factors]
        beyond = ARRAY_PENALTY * torch.square(torch.clamp(needed.array - self._largest_array, min=0))
        return value + value.detach() * (below[0] + below[1] + beyond)

    def _mixed(self, prepared: Prepared, needed: Hardware) -> Costs:
        """Totals with every layer a mixture of the three orders."""
        counts = self._model.counts
        energy, cycles = (counts * each for each in self._model.costs(prepared, EVERY, needed))
        value = normalised(Costs(energy, cycles), self._objective)
        if self._settings.strategy == "softmax":
            weights = torch.softmax(1 / value, dim=0)
        else:
            waits = torch.empty_like(value).exponential_(generator=self._noise)
            weights = torch.softmax(-torch.log(value) - torch.log(waits), dim=0)
        energy, cycles = (weights * energy).sum(dim=0), (weights * cycles).sum(dim=0)
        if self._settings.as_published:
            energy, cycles = counts * energy, counts * cycles
        return Costs(energy.sum(dim=-1), cycles.sum(dim=-1))


def normalised(totals: Costs, objective: Objective) -> Tensor:
    """The objective, divided by what DOSA divides it by."""
    energy = totals.energy / (ENERGY / 100)
    return energy if objective == "energy" else energy * totals.cycles / LATENCY
