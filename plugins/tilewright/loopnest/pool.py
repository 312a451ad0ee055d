"""Mappings whose traffic is known, charged on one architecture after another.

What a mapping moves does not depend on capacities, bandwidths or prices; so a search over hardware counts the traffic of
its mappings once and asks only what it costs on each candidate (DOSA-like searches call this a shared pool).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from tilewright.protocol.architecture import Architecture

from .batch import Batch
from .evaluate import charge, move
from .nest import Nest
from .validity import Needs, check


class Pool:
    """A batch with its traffic."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._nest = Nest.of_batch(batch)
        self._keep = [[np.ascontiguousarray(batch.keep[:, i, t]) for t in range(batch.keep.shape[2])] for i in range(batch.keep.shape[1])]
        self._traffic = move(self._nest, self._keep)
        self._needs = Needs.of(batch, self._nest)
        # What is wrong whatever the sizes: products, constraints, residence.
        sizes = ("fan-out", "capacity")
        checked = check(batch, self._nest)
        others = [row for name, row in zip(checked.names, checked.excess, strict=True) if not name.startswith(sizes)]
        self._sound = np.all(np.array(others) <= 0, axis=0)

    def __len__(self) -> int:
        return len(self.batch)

    def on(self, architecture: Architecture) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Cycles (int64[B]) and pJ (float64[B]) of every mapping on an architecture with the same levels.

        As `evaluate` says: a mapping that is invalid there has infinite energy and the largest int64 as cycles.
        Raises `InvalidArchitecture` when the levels have other names.
        """
        problem = self.batch.problem.on(architecture)
        valid = self._sound & self._needs.met(problem)
        figures = charge(dataclasses.replace(self._nest, problem=problem), self._traffic, self._keep)
        return np.where(valid, figures.cycles, np.iinfo(np.int64).max), np.where(valid, figures.energy, np.inf)
