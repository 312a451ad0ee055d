"""The predictors, as a few dozen numbers in ``weights.npz``: fitted by `train`, applied by `Predictor`.

* `calibrated`: a roofline whose resources take learned shares and overlap by a learned degree, ``(sum (a m)^p)^(1/p)`` over
  the mechanisms m.
* `residual`: the analytical roofline times the exponential of a ridge regression on logarithms of all features.
* `learned`: a ridge regression of the logarithm of the cycles on what the mapping says, without analytical latency.

The combined predictor is the geometric mean of the first two. Rows are weighed by the share of the array that they use:
searches end where that is large, random mappings mostly have little of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from .features import ALL, MECHANISMS, PLAIN, Features

Floats = NDArray[np.float64]

WEIGHTS_FILE = Path(__file__).with_name("weights.npz")
#: Ridge penalty on standardized features.
PENALTY = 10.0
#: Width of the smooth absolute value that is minimized.
SMOOTH = 1e-3


@dataclass(frozen=True)
class Predictor:
    """Fitted numbers by name."""

    numbers: Mapping[str, Floats]

    @classmethod
    def load(cls, path: Path = WEIGHTS_FILE) -> Predictor:
        """From a file; nothing in it is executed."""
        with np.load(path, allow_pickle=False) as stored:
            return cls({name: stored[name] for name in stored.files})

    def analytical(self, features: Features) -> Floats:
        """The roofline of the cost model."""
        return features.columns["roofline"]

    def learned(self, features: Features) -> Floats:
        """Without analytical latency."""
        return np.asarray(np.exp(_linear(self.numbers, "learned", _logs(features, PLAIN))))

    def both(self, features: Features) -> Floats:
        """Roofline and learning together."""
        calibrated = _overlapped(self.numbers["shares"], float(self.numbers["degree"]), features.table(MECHANISMS))
        residual = features.columns["roofline"] * np.exp(_linear(self.numbers, "residual", _logs(features, ALL)))
        return np.asarray(np.sqrt(calibrated * residual))


def fit(features: Features, cycles: Floats, side: int) -> Predictor:
    """Fit all predictors to measured ``cycles[B]`` on an array of `side`."""
    columns = features.columns
    weights = columns["down"] * columns["across"] / side**2
    shares, degree = _calibrated(features.table(MECHANISMS), cycles, weights)
    return Predictor(
        {
            "shares": shares,
            "degree": np.array(degree),
            **_ridge("residual", _logs(features, ALL), np.log(cycles / columns["roofline"]), weights),
            **_ridge("learned", _logs(features, PLAIN), np.log(cycles), weights),
        }
    )


def _logs(features: Features, names: tuple[str, ...]) -> Floats:
    return np.asarray(np.log(np.maximum(features.table(names), 1.0)))


def _overlapped(shares: Floats, degree: float, mechanisms: Floats) -> Floats:
    scaled = np.log(np.maximum(shares * mechanisms, 1e-12))
    return np.asarray(np.exp(np.logaddexp.reduce(degree * scaled, axis=1) / degree))


def _calibrated(mechanisms: Floats, cycles: Floats, weights: Floats) -> tuple[Floats, float]:
    """Shares and degree of overlap with the least weighted absolute error of logarithms."""
    logs, target = np.log(np.maximum(mechanisms, 1e-12)), np.log(cycles)

    def loss(numbers: Floats) -> tuple[float, Floats]:
        degree = np.exp(numbers[-1])
        scaled = degree * (logs + numbers[:-1])
        total = np.logaddexp.reduce(scaled, axis=1)
        share = np.exp(scaled - total[:, None])
        error = total / degree - target
        size = np.sqrt(error**2 + SMOOTH**2)
        slope = weights * error / size / weights.sum()
        by_degree = (share * scaled).sum(axis=1) / degree - total / degree
        return float((weights * size).sum() / weights.sum()), np.append(slope @ share, (slope * by_degree).sum())

    start = np.append(np.full(logs.shape[1], -1.0), 0.0)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(-12.0, 6.0)] * logs.shape[1] + [(-1.5, 2.0)])
    return np.asarray(np.exp(found.x[:-1])), float(np.exp(found.x[-1]))


def _ridge(name: str, points: Floats, values: Floats, weights: Floats) -> dict[str, Floats]:
    mean, scale = points.mean(axis=0), points.std(axis=0) + 1e-9
    table = np.column_stack([(points - mean) / scale, np.ones(len(points))])
    weighed = table * weights[:, None]
    solved = np.linalg.solve(table.T @ weighed + PENALTY * np.eye(table.shape[1]), weighed.T @ values)
    return {f"{name} mean": mean, f"{name} scale": scale, f"{name} slopes": solved}


def _linear(numbers: Mapping[str, Floats], name: str, points: Floats) -> Floats:
    table = (points - numbers[f"{name} mean"]) / numbers[f"{name} scale"]
    slopes = numbers[f"{name} slopes"]
    return np.asarray(table @ slopes[:-1] + slopes[-1])
