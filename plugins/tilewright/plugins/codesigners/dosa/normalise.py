"""What DOSA's unknowns and objective are divided by: maxima over ten rows of its data set.

The released code shuffles its 72,700 rows with seed 0 and takes ten as its training set. The maxima matter: Adam moves a normalised
factor by about the learning rate per step, so a factor moves by at most rate x steps x maximum between two roundings.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .layers import DIMS, C, K

#: Cycles, and uJ (the objective is divided by a hundredth of it).
LATENCY, ENERGY = 109_132_800.0, 29_161.75326
#: Temporal factors at the registers and the accumulator, in the order of `DIMS`; all others are 1.
TEMPORAL = ((1, 1, 30, 1, 1, 1, 1), (3, 3, 14, 14, 64, 128, 1))
ROWS, COLUMNS = 16, 8


def maxima() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of the spatial and of the temporal factors of the inner three levels, float64[3, D] each."""
    spatial, temporal = np.ones((3, len(DIMS))), np.ones((3, len(DIMS)))
    spatial[1, C], spatial[2, K] = ROWS, COLUMNS
    temporal[:2] = TEMPORAL
    return spatial, temporal
