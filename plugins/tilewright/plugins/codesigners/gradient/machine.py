"""Hardware with real-valued parameters: what a target's architectures cost and hold, interpolated between those that exist.

Any target is covered: its `architecture` is asked at whole parameter values, and every figure (capacity, price per word, bandwidth,
fan-out) follows a power law around them. Where a figure is a power of a parameter (all of Gemmini's nearly are) that is exact.

Symbols: ``A`` starts, ``P`` parameters, ``F`` figures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tilewright import loopnest as ln
from tilewright.protocol.architecture import Architecture, Parameter
from tilewright.protocol.plugin import Target

Tensor = torch.Tensor
Floats = NDArray[np.float64]
Hardware = tuple[int, ...]

#: Stands for what is not limited.
UNLIMITED = 1e18
#: How far (in e-folds) later starts are from the best design's parameters.
NEAR = 1.0
#: Ratio of the parameter values between which a slope is taken.
SPREAD = 1.3


class Sizes:
    """The parameters of a target within some limits, and its architectures."""

    def __init__(self, target: Target, limits: dict[str, float]) -> None:
        self._target = target
        self.parameters: tuple[Parameter, ...] = target.design_space().parameters
        self.values = [np.array([v for v in p.values if v <= limits.get(p.name, v)]) for p in self.parameters]
        self.low, self.high = (np.log([values[at] for values in self.values]) for at in (0, -1))

    def architecture(self, hardware: Hardware) -> Architecture:
        """The target with these parameter values."""
        names = (parameter.name for parameter in self.parameters)
        return self._target.architecture(**dict(zip(names, hardware, strict=True)))

    @property
    def largest(self) -> Hardware:
        """Every parameter at its highest."""
        return tuple(int(values[-1]) for values in self.values)

    def draw(self, rng: np.random.Generator, count: int, around: Floats | None) -> Floats:
        """Logarithms of random parameter values, evenly distributed over all or within `NEAR` of some, float64[A, P]."""
        low, high = self.low, self.high
        if around is not None:
            low, high = np.maximum(low, around - NEAR), np.minimum(high, around + NEAR)
        return rng.uniform(low, high, (count, len(self.parameters)))

    def nearest(self, logs: Floats) -> Hardware:
        """The parameter values nearest to some logarithms, float64[P]."""
        return tuple(int(v[np.abs(np.log(v) - log).argmin()]) for v, log in zip(self.values, logs, strict=True))


@dataclass(frozen=True)
class Figures:
    """Logarithms of an architecture's figures as functions of those of its parameters.

    Names of the columns are positions: capacity in words (L), price per word read, filled, updated (3 L), bandwidth in words per
    cycle read, written, shared (3 L), fan-out X and Y (2 L).
    """

    levels: int
    #: [A, F], [A, P], [A, F, P]: logarithms of the figures, of the parameters that they are at, and slopes.
    value: Tensor
    at: Tensor
    slope: Tensor

    def of(self, logs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Capacities [A, L], prices [A, L, 3], bandwidths [A, L, 3] and logarithms of fan-outs [A, L, 2] at log parameters [A, P]."""
        figures = self.value + (self.slope * (logs - self.at).unsqueeze(1)).sum(dim=2)
        capacity, price, bandwidth, fanout = torch.split(figures, [self.levels * n for n in (1, 3, 3, 2)], dim=1)
        shape = (len(figures), self.levels, -1)
        return capacity.exp(), price.reshape(shape).exp(), bandwidth.reshape(shape).exp(), fanout.reshape(shape)


class Machine:
    """Figures of a target's architectures, remembered."""

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes
        self._known: dict[Hardware, Floats] = {}
        self._levels = len(sizes.architecture(sizes.largest).levels)

    def around(self, logs: Floats) -> Figures:
        """Figures around log parameters, float64[A, P]."""
        spread = np.log(SPREAD) / 2
        values, at, slopes = [], [], []
        for row in logs:
            here = self._sizes.nearest(row)
            values.append(self._figures(here))
            at.append(np.log(here))
            slope = []
            for parameter in range(len(row)):
                step = spread * (np.arange(len(row)) == parameter)
                low, high = self._sizes.nearest(at[-1] - step), self._sizes.nearest(at[-1] + step)
                if low == high:
                    low, high = self._neighbours(here, parameter)
                width = np.log(high[parameter] / low[parameter])
                slope.append((self._figures(high) - self._figures(low)) / width if width else np.zeros_like(values[-1]))
            slopes.append(np.stack(slope, axis=1))
        return Figures(self._levels, *(torch.as_tensor(np.stack(each)) for each in (values, at, slopes)))

    def _neighbours(self, here: Hardware, parameter: int) -> tuple[Hardware, Hardware]:
        values = self._sizes.values[parameter]
        at = int(np.flatnonzero(values == here[parameter])[0])
        ends = (int(values[max(0, at - 1)]), int(values[min(len(values) - 1, at + 1)]))
        low, high = ((*here[:parameter], end, *here[parameter + 1 :]) for end in ends)
        return low, high

    def _figures(self, hardware: Hardware) -> Floats:
        if hardware not in self._known:
            self._known[hardware] = np.log(_figures(self._sizes.architecture(hardware)))
        return self._known[hardware]


def _figures(architecture: Architecture) -> Floats:
    """float64[F], in the order of `Figures`; free accesses cost next to nothing."""
    levels = architecture.levels
    prices = ln.Prices(architecture)
    found = [float(level.usable_words or UNLIMITED) for level in levels]
    for i, level in enumerate(levels):
        found += [max(each[i], 1e-30) / level.block_words for each in (prices.read, prices.fill, prices.update)]
    for level in levels:
        found += [float(each or UNLIMITED) for each in (level.read_bandwidth, level.write_bandwidth, level.shared_bandwidth)]
    for i in range(len(levels)):
        found += [float(side) for side in architecture.fanout(i)]
    return np.array(found)
