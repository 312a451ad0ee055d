"""Energy and bandwidth as linear functions of what is refetched, for N spatial configurations at once.

Let F(i, t) be the words of tensor t that all instances of level i together fetch over the run. Every other count of the cost
model follows from these, the configuration, and constants: a parent is read ``F / shared`` words, where `shared` is how many
units share a word on the way; the compute asks for one word per iteration; partial sums are written back as often as they
are fetched, less the first visit.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilewright import loopnest as ln

from .spatial import Units

Floats = NDArray[np.float64]
#: (level, tensor) of a refetch count.
Fetch = tuple[int, int]


class Linear:
    """``constant + sum over (i, t) of weight x F(i, t)``, ``[N]`` each."""

    def __init__(self, size: int) -> None:
        self.constant = np.zeros(size)
        self.weights: dict[Fetch, Floats] = defaultdict(lambda: np.zeros(size))

    def add(self, fetch: Fetch, weight: Floats | float) -> None:
        """Add a weight."""
        self.weights[fetch] = self.weights[fetch] + weight


class Charges(NamedTuple):
    """What N configurations cost."""

    energy: Linear
    #: Compute cycles.
    steps: Floats
    #: (level, port) -> cycles that the port needs; ports are ``read``, ``write`` and ``shared``.
    ports: dict[tuple[int, str], Linear]


def kept_levels(problem: ln.Problem) -> list[list[int]]:
    """Per tensor, the levels that keep it, innermost first."""
    keep = ln.default_keep(problem)
    return [[i for i in range(len(problem.levels)) if keep[i, t]] for t in range(len(problem.tensors))]


def charges(problem: ln.Problem, units: Units, elements: list[float]) -> Charges:
    """The charges of some configurations; `elements` are the words of each whole tensor."""
    size = units.units.shape[1]
    iterations = float(problem.operator.iterations)
    used, levels, prices = units.used, problem.architecture.levels, problem.prices
    rule = problem.conventions.outputs
    energy = Linear(size)
    reads, writes = ([Linear(size) for _ in levels] for _ in range(2))
    # Instances of a cluster share an access as far as more are used than there are clusters.
    together = [np.minimum(used[i], level.instances // level.cluster_size) / used[i] / level.block_words for i, level in enumerate(levels)]

    def count(row: list[Linear], level: int, price: float, fetch: Fetch | None, words: Floats | float) -> None:
        """`words` (per refetched word, when `fetch` is given) of one action at one level."""
        per_instance = words / used[level]
        priced = price * together[level] * words
        if fetch is None:
            row[level].constant += per_instance
            energy.constant += priced
        else:
            row[level].add(fetch, per_instance)
            energy.add(fetch, priced)

    for t, kept in enumerate(kept_levels(problem)):
        written = t == problem.output
        for child, parent in zip([-1, *kept], kept, strict=False):
            shared = units.between(t, child, parent)
            fetch = None if child < 0 else (child, t)
            asked = (iterations if child < 0 else 1.0) / shared
            count(reads, parent, prices.read[parent], fetch, asked)
            if fetch is not None:
                count(writes, child, prices.fill[child], fetch, np.ones(size))
            if written:
                if fetch is not None or rule != "accelforge":
                    count(writes, parent, prices.update[parent], fetch, asked)
                if fetch is not None or rule != "zigzag":
                    first = elements[t] * units.alike[parent + 1 :, t].prod(axis=0)
                    count(reads, parent, prices.read[parent], None, -first)
                if fetch is not None:
                    if rule != "timeloop":
                        # Words that go up are read.
                        count(reads, child, prices.read[child], fetch, np.ones(size))
                    own = elements[t] * units.alike[child + 1 :, t].prod(axis=0)
                    count(writes, child, prices.fill[child], None, -own)
    steps = iterations / units.units.prod(axis=0)
    energy.constant += problem.operator.macs * prices.compute
    for i, leak in enumerate(prices.leakage):
        energy.constant += leak * used[i] * steps
    return Charges(energy, steps, _ports(problem, reads, writes))


def _ports(problem: ln.Problem, reads: list[Linear], writes: list[Linear]) -> dict[tuple[int, str], Linear]:
    ports = {}
    for i, level in enumerate(problem.architecture.levels):
        limits = {"read": level.read_bandwidth, "write": level.write_bandwidth, "shared": level.shared_bandwidth}
        rows = {"read": [reads[i]], "write": [writes[i]], "shared": [reads[i], writes[i]]}
        for port, bandwidth in limits.items():
            if bandwidth is not None:
                total = Linear(len(reads[i].constant))
                for row in rows[port]:
                    total.constant += row.constant / bandwidth
                    for fetch, weight in row.weights.items():
                        total.add(fetch, weight / bandwidth)
                ports[i, port] = total
    return ports
