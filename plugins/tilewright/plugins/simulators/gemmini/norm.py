"""Integer activations and normalizations of the accumulator's read path, as I-BERT defines them (arXiv 2101.01321, algorithms 1 to 4).

All values are int32 (computed in int64, wrapped); constants are integers that the host derives from the scale of the values.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, np.dtype[np.int64]]


class Constants(NamedTuple):
    """What the host sets: `qb`, `qc` of the polynomial, and ``ln 2`` and 2^16 / ln 2 in units of the scale."""

    qb: int = 0
    qc: int = 0
    qln2: int = 1
    qln2_inv: int = 0


def gelu_constants(scale: float) -> Constants:
    """Constants of the GELU of values ``q * scale``: a = -0.2888, b = -1.769 of the erf polynomial."""
    inner = scale / math.sqrt(2)
    return Constants(int(-1.769 / inner), int(1 / (-0.2888 * inner * inner)))


def exp_constants(scale: float) -> Constants:
    """Constants of the exponential of values ``q * scale``: 0.3585 (x + 1.353)^2 + 0.344 on (-ln 2, 0]."""
    qln2 = int(0.693147 / scale)
    return Constants(int(1.353 / scale), int(0.344 / (0.3585 * scale * scale)), qln2, int(65536 / qln2))


def wrap(values: Array) -> Array:
    """To int32."""
    return values.astype(np.int32).astype(np.int64)


def gelu(q: Array, constants: Constants) -> Array:
    """``q (erf(q) + 1)`` up to a constant scale."""
    clipped = np.minimum(np.abs(q), -constants.qb)
    poly = wrap(wrap((clipped + constants.qb) ** 2) + constants.qc)
    return wrap(q * (np.where(q < 0, -poly, poly) + constants.qc))


def exp(q: Array, constants: Constants, as_built: bool = False) -> Array:
    """``exp`` of values that are not positive.

    `as_built`: as the public RTL computes it since July 2024, which has the polynomial of the GELU in its place.
    """
    if as_built:
        return gelu(q, constants)
    z = (-q * constants.qln2_inv) >> 16
    rest = q + z * constants.qln2
    poly = wrap((rest + constants.qb) ** 2 + constants.qc)
    shifted: Array = poly >> np.minimum(z, 31)
    return shifted


class Statistics:
    """One statistics register: what the passes over a row leave for the last one."""

    def __init__(self, exp_as_built: bool = False) -> None:
        self._exp_as_built = exp_as_built
        self._last = ""
        self.total = self.count = self.mean = self.maximum = 0
        self.inverse = np.float32(1)

    def add(self, command: str, values: Array, constants: Constants) -> None:
        """Take part of a row into ``sum``, ``mean``, ``variance``, ``inv_stddev``, ``max``, ``sum_exp`` or ``inv_sum_exp``."""
        kind = {"mean": "sum", "inv_stddev": "variance", "inv_sum_exp": "sum_exp"}.get(command, command)
        if kind != self._last:
            self.total = self.count = 0
            if kind == "max":
                self.maximum = -(1 << 31)
            self._last = kind
        if kind == "max":
            self.maximum = max(self.maximum, int(values.max()))
            return
        amount = (
            values
            if kind == "sum"
            else (values - self.mean) ** 2
            if kind == "variance"
            else exp(values - self.maximum, constants, self._exp_as_built)
        )
        self.total += int(amount.sum())
        self.count += len(values)
        if command == "mean":
            self.mean = int(self.total / self.count)
        elif command == "inv_stddev":
            self.inverse = np.float32(1) / np.float32(math.isqrt(self.total // self.count) or 1)
        elif command == "inv_sum_exp":
            self.inverse = np.float32(127) / np.float32(self.total or 1)
        if command != kind:
            self._last = command
