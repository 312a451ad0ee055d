"""Evaluate batches: validity, traffic, cycles, energy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tilewright.protocol.cost import Objective, objective_value

from .accesses import Traffic, account
from .arrays import Array
from .batch import Batch
from .energy import block_accesses, leakage, storage_energy
from .latency import compute_cycles, first_load, level_cycles
from .nest import Nest
from .network import crossing, hops, network_cycles
from .peers import Links
from .traffic import delivered, multicast, tiles
from .validity import Validity, check
from .walk_traffic import settle, walk_traffic

#: Mappings evaluated at once: what the caches hold.
CHUNK = 2048


@dataclass(frozen=True)
class Figures:
    """All figures of some nests (either namespace)."""

    nest: Nest
    traffic: Traffic
    #: Cycles that computing takes, [B].
    computing: Array
    #: Per level, [B] each.
    level_cycles: list[Array]
    #: Of networks with a bandwidth, by level.
    network_cycles: dict[int, Array]
    #: Named cycles that a convention adds to the slowest resource.
    extra_cycles: list[tuple[str, Array]]
    #: [B].
    cycles: Array
    #: ``[level][tensor][action]``, [B] each.
    accesses: list[list[list[Array]]]
    #: Words x hops of networks with a price, by level and tensor.
    hops: dict[int, list[Array]]
    leakage: list[Array]
    #: pJ, [B].
    energy: Array


def compute(nest: Nest, keep: list[list[Array]], links: Links | None = None) -> Figures:
    """The model itself, over either namespace."""
    return charge(nest, move(nest, keep, links), keep)


def move(nest: Nest, keep: list[list[Array]], links: Links | None = None) -> Traffic:
    """What is moved: this depends on the nest alone, not on sizes, bandwidths or prices of the architecture."""
    if nest.problem.semantics == "walk":
        return walk_traffic(nest, keep)
    tile = tiles(nest)
    return account(nest, tile, delivered(nest, tile), multicast(nest), keep, links)


def charge(nest: Nest, traffic: Traffic, keep: list[list[Array]]) -> Figures:
    """What the movement costs on the architecture of ``nest.problem``."""
    xp, problem = nest.xp, nest.problem
    operator, prices = problem.operator, problem.prices
    words = crossing(nest, traffic, keep) if problem.has_networks else []
    computing = compute_cycles(nest)
    per_level = level_cycles(nest, traffic, computing)
    per_network = network_cycles(nest, traffic, words, keep) if words else {}
    apart = problem.conventions.latency == "first-load"
    cycles = computing
    for each in (*(per_level[:-1] if apart else per_level), *per_network.values()):
        cycles = xp.maximum(cycles, each)
    extra = first_load(nest, traffic, keep, cycles) if apart else []
    for _, each in extra:
        cycles = cycles + each
    accesses = block_accesses(nest, traffic)
    travelled = hops(nest, traffic, words) if words else {}
    leaked = leakage(nest, cycles)
    energy = storage_energy(nest, accesses) + (
        operator.macs * prices.compute if operator.is_contraction else operator.flops * prices.special
    )
    for each in leaked:
        energy = energy + each
    for level, row in travelled.items():
        for each in row:
            energy = energy + each * prices.hop[level]
    return Figures(nest, traffic, computing, per_level, per_network, extra, cycles, accesses, travelled, leaked, energy)


@dataclass(frozen=True)
class Evaluation:
    """Figures of a batch. Invalid mappings have infinite energy and the largest int64 as cycles."""

    validity: Validity
    #: int64[B].
    cycles: NDArray[np.int64]
    #: float64[B].
    energy_pj: NDArray[np.float64]
    #: MACs per compute unit and cycle, float64[B].
    utilization: NDArray[np.float64]
    #: int64[B, L, T]; words per instance, 0 where a level does not keep the tensor (tiles: whether or not it does).
    tile_words: NDArray[np.int64]
    reads: NDArray[np.int64]
    fills: NDArray[np.int64]
    updates: NDArray[np.int64]
    #: int64[B, L]: used instances, and cycles that each level needs.
    instances: NDArray[np.int64]
    level_cycles: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.cycles)

    @property
    def valid(self) -> NDArray[np.bool_]:
        """bool[B]."""
        return self.validity.valid

    @property
    def reasons(self) -> NDArray[np.int16]:
        """int16[B]: index into ``validity.names`` of the first violated check, -1 for valid mappings."""
        return self.validity.reasons

    @cached_property
    def edp(self) -> NDArray[np.float64]:
        """Energy-delay product, pJ x cycles, float64[B]."""
        return self.energy_pj * self.cycles

    def objective(self, name: Objective) -> NDArray[np.float64]:
        """The value to minimize as float64[B], infinite for invalid mappings."""
        energy, cycles = (np.where(self.valid, figure.astype(np.float64), 0.0) for figure in (self.energy_pj, self.cycles))
        return np.where(self.valid, objective_value(name, energy, cycles), np.inf)


def evaluate(batch: Batch) -> Evaluation:
    """Evaluate every mapping of a batch."""
    parts = [_evaluate(batch[start : start + CHUNK]) for start in range(0, len(batch), CHUNK)] or [_evaluate(batch)]
    if len(parts) == 1:
        return parts[0]
    validity = Validity(batch.problem, parts[0].validity.names, np.concatenate([part.validity.excess for part in parts], axis=1))
    names = [name for name in Evaluation.__dataclass_fields__ if name != "validity"]
    return Evaluation(validity, **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def figures(batch: Batch) -> tuple[Figures, Validity]:
    """The full figures of a batch (one chunk), for details."""
    nest = Nest.of_batch(batch)
    if batch.problem.semantics == "walk":
        nest = settle(nest)
    keep = [[np.ascontiguousarray(batch.keep[:, i, t]) for t in range(batch.keep.shape[2])] for i in range(batch.keep.shape[1])]
    links = Links(batch, nest) if batch.problem.conventions.peer_transfers else None
    validity = check(batch, nest)
    # Factors that do not meet the bounds may multiply to anything, even to 0 modulo 2**64; such figures are never shown.
    with np.errstate(all=None if validity.valid.all() else "ignore"):
        return compute(nest, keep, links), validity


def _evaluate(batch: Batch) -> Evaluation:
    result, validity = figures(batch)
    problem = batch.problem

    def by_tensor(rows: list[list[Array]]) -> NDArray[np.int64]:
        return np.moveaxis(np.array(rows, np.int64), -1, 0)

    def by_level(rows: list[Array]) -> NDArray[np.int64]:
        return np.moveaxis(np.array(rows, np.int64), -1, 0)

    traffic = result.traffic
    return Evaluation(
        validity=validity,
        cycles=np.where(validity.valid, result.cycles, np.iinfo(np.int64).max),
        energy_pj=np.where(validity.valid, result.energy, np.inf),
        utilization=problem.operator.macs / problem.architecture.compute.instances / np.where(validity.valid, result.cycles, np.inf),
        tile_words=by_tensor(traffic.tiles),
        reads=by_tensor(traffic.reads),
        fills=by_tensor(traffic.fills),
        updates=by_tensor(traffic.updates),
        instances=by_level(result.nest.used),
        level_cycles=by_level(result.level_cycles),
    )
