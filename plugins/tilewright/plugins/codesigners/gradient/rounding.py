"""From real-valued factors to mappings: divisors, inside out, spatial slots first.

Symbols: ``A`` starts, ``S`` slots, ``D`` dims.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from tilewright.loopnest.mapspace import TEMPORAL, Mapspace, divisors

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def rounded(space: Mapspace, factors: Floats) -> Ints:
    """int64[A, S, D]: the divisors of what is left of each dim that are nearest in ratio and within the limits.

    The outermost slot takes the rest.
    """
    whole = np.ones(factors.shape, dtype=np.int64)
    left = np.broadcast_to(space.problem.bounds, (len(factors), factors.shape[2])).copy()
    slots = sorted(
        (slot for slot in range(len(space.slots)) if slot != space.outermost), key=lambda slot: (space.kind[slot] == TEMPORAL, slot)
    )
    for slot in slots:
        for dim in np.argsort(-factors[:, slot].mean(axis=0), kind="stable").tolist():
            if space.allowed[slot, dim] and space.problem.bounds[dim] > 1:
                limit = np.full(len(factors), space.limit[slot, dim])
                if space.kind[slot] != TEMPORAL:
                    limit = np.minimum(limit, space.side[slot] // whole[:, slot].prod(axis=1))
                    across = space.across[slot]
                    limit = np.where((across >= 0) & (whole[:, across, dim] > 1), 1, limit)
                whole[:, slot, dim] = _nearest(left[:, dim], factors[:, slot, dim], limit)
                left[:, dim] //= whole[:, slot, dim]
    whole[:, space.outermost] = left
    return whole


def _nearest(left: Ints, wanted: Floats, limit: Ints) -> Ints:
    """The divisor of each number nearest to what is wanted, in ratio, and at most the limit."""
    found = np.ones(len(left), dtype=np.int64)
    for number in np.unique(left).tolist():
        rows = np.flatnonzero(left == number)
        choices = _divisors(number)
        apart = np.abs(np.log(choices)[None] - np.log(np.maximum(1.0, wanted[rows]))[:, None])
        apart[choices[None] > np.maximum(1, limit[rows])[:, None]] = np.inf
        found[rows] = choices[apart.argmin(axis=1)]
    return found


@cache
def _divisors(number: int) -> Ints:
    return np.array(divisors(number))
