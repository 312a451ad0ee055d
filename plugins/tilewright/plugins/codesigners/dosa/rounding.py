"""Rounding to a legal mapping, factor by factor, inside out; spatial factors first.

A factor becomes the nearest whole number if that divides what is left of its dim, else the nearest divisor of what is left; DRAM takes
the rest. Nearest is by distance (not ratio), ties go up; a spatial factor is compared unrounded, a temporal one rounded.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from tilewright.loopnest.mapspace import divisors

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def rounded(bounds: Ints, spatial: Floats, temporal: Floats) -> tuple[Ints, Ints]:
    """Whole factors int64[..., N, 4, D], spatial and temporal, from float64[..., N, 3, D] each."""
    left = np.broadcast_to(bounds, (*spatial.shape[:-3], *bounds.shape)).copy()
    whole_spatial, whole_temporal = (np.ones((*each.shape[:-2], 4, each.shape[-1]), dtype=np.int64) for each in (spatial, temporal))
    for level in range(spatial.shape[-2]):
        whole_spatial[..., level, :] = _take(left, spatial[..., level, :], spatial[..., level, :])
    for level in range(temporal.shape[-2]):
        whole_temporal[..., level, :] = _take(left, temporal[..., level, :], np.rint(temporal[..., level, :]))
    whole_temporal[..., 3, :] = left
    return whole_spatial, whole_temporal


def _take(left: Ints, wanted: Floats, compared: Floats) -> Ints:
    """Whole factors near the wanted ones; `left` is divided by them."""
    factor = np.maximum(1, np.rint(wanted)).astype(np.int64)
    for at in np.argwhere(left % factor != 0):
        place = tuple(at)
        factor[place] = nearest(int(left[place]), float(compared[place]))
    left //= factor
    return factor


def nearest(number: int, wanted: float) -> int:
    """The divisor of a number that is nearest to the wanted value; of two, the larger."""
    choices = _divisors(number)
    return int(choices[::-1][np.argmin(np.abs(choices[::-1] - wanted))])


@cache
def _divisors(number: int) -> Ints:
    return np.array(divisors(number))
