"""Is a mapping valid? Every check states an excess: how far a mapping is beyond the limit, at most 0 when it is fine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tilewright.protocol.cost import Violation

from .batch import AXES, Batch
from .nest import Nest
from .problem import Problem, base_name
from .traffic import tiles


@dataclass(frozen=True)
class Validity:
    """What is wrong with each mapping of a batch."""

    problem: Problem
    #: Names of the checks, C of them.
    names: tuple[str, ...]
    #: int64[C, B]; above 0 means violated, by that much (words, units, loops, as the name says).
    excess: NDArray[np.int64]

    @property
    def validity(self) -> Validity:
        """Itself."""
        return self

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """bool[B]."""
        valid: NDArray[np.bool_] = np.all(self.excess <= 0, axis=0)
        return valid

    @cached_property
    def reasons(self) -> NDArray[np.int16]:
        """int16[B]: index into `names` of the first violated check, -1 for a valid mapping."""
        broken = self.excess > 0
        return np.where(self.valid, -1, broken.argmax(axis=0)).astype(np.int16)

    def describe(self, index: int) -> str:
        """All that is wrong with one mapping, with the excess; empty when it is valid."""
        return "; ".join(f"{self.names[c]} exceeded by {self.excess[c, index]}" for c in np.flatnonzero(self.excess[:, index] > 0).tolist())


def check(batch: Batch, nest: Nest | None = None) -> Validity:
    """Check every mapping of a batch; much cheaper than evaluating it."""
    nest = nest or Nest.of_batch(batch)
    results = list(_checks(batch, nest))
    excess = np.empty((len(results), len(batch)), np.int64)
    for row, (_, over) in enumerate(results):
        excess[row] = over
    return Validity(batch.problem, tuple(name for name, _ in results), excess)


class Checked(Protocol):
    """Anything that was checked: an `Evaluation`, or a `Validity` itself."""

    @property
    def validity(self) -> Validity:
        """What is wrong with each mapping."""


def reasons(checked: Checked) -> list[str]:
    """What is wrong with each mapping, with the excess; empty for valid ones."""
    validity = checked.validity
    return [validity.describe(b) for b in range(validity.excess.shape[1])]


def violations(checked: Checked) -> tuple[Violation, ...]:
    """For each violated check, how many mappings it rejects and the least excess among them, most frequent first."""
    validity = checked.validity
    found = []
    for name, excess in zip(validity.names, validity.excess, strict=True):
        over = excess[excess > 0]
        if over.size:
            found.append(Violation(name, int(over.size), float(over.min())))
    return tuple(sorted(found, key=lambda each: (-each.rejected, each.constraint)))


Excess = NDArray[np.int64] | NDArray[np.bool_]


def _checks(batch: Batch, nest: Nest) -> Iterator[tuple[str, Excess]]:
    problem = batch.problem
    yield from _factors(batch)
    needs = Needs.of(batch, nest)
    yield "axis beyond Y: axis", np.maximum(batch.axis.max(axis=(1, 2), initial=0) - 1, -batch.axis.min(axis=(1, 2), initial=0))
    yield from _fanout(problem, needs)
    yield from _capacity(problem, needs)
    yield from _residence(batch)
    yield from _constraints(batch)
    if problem.semantics == "walk" and batch.ragged is not None:
        yield from _coincidences(batch, nest)
    if not problem.operator.is_contraction:
        yield "special-function unit: spatial loops", batch.spatial.max(axis=(1, 2)) - 1


def _factors(batch: Batch) -> Iterator[tuple[str, Excess]]:
    """Factors are at least 1 and multiply to the bound; in a ragged dim of the walk they may overrun it."""
    problem = batch.problem
    least = np.minimum(batch.temporal.min(axis=(1, 2), initial=1), batch.spatial.min(axis=(1, 2), initial=1))
    yield "factor below 1: factor", 1 - least
    # In float64, so that a product beyond int64 cannot wrap round to the bound; exact where it matters.
    total = batch.temporal.astype(float).prod(axis=1) * batch.spatial.astype(float).prod(axis=1)
    ragged = batch.ragged if batch.ragged is not None and problem.semantics == "walk" else np.zeros(total.shape, bool)
    for d, name in enumerate(problem.dims):
        bound = int(problem.bounds[d])
        short = np.clip(bound - total[:, d], 0, 2**62)
        over = np.where(ragged[:, d], 0, np.clip(total[:, d] - bound, 0, 2**62))
        yield f"factors of {name} below its bound {bound}: product", short.astype(np.int64)
        yield f"factors of {name} above its bound {bound}: product", over.astype(np.int64)


@dataclass(frozen=True)
class Needs:
    """What mappings need of sizes, whatever the sizes are. Lists are over levels."""

    #: Units along X and along Y of each spatial block, int64[B] each.
    along: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]
    #: Words of the kept tiles, int64[B] each.
    words: list[NDArray[np.int64]]

    @classmethod
    def of(cls, batch: Batch, nest: Nest) -> Needs:
        """The needs of a batch."""
        on_y = batch.axis != 0
        axes = (np.where(on_y, 1, batch.spatial).prod(axis=2), np.where(on_y, batch.spatial, 1).prod(axis=2))
        kept = [
            sum((tile * batch.keep[:, i, t] for t, tile in enumerate(row)), np.zeros(len(batch), np.int64))
            for i, row in enumerate(tiles(nest))
        ]
        return cls((list(axes[0].T.copy()), list(axes[1].T.copy())), kept)

    def met(self, problem: Problem) -> NDArray[np.bool_]:
        """bool[B]: every block fits its fan-out and every tile its memory."""
        fine = np.ones(len(self.words[0]), bool)
        for _, excess in (*_fanout(problem, self), *_capacity(problem, self)):
            fine &= excess <= 0
        return fine


def _fanout(problem: Problem, needs: Needs) -> Iterator[tuple[str, Excess]]:
    """Each spatial block fits its own fan-out along X and along Y."""
    for i, name in enumerate(problem.levels):
        for axis, limit in enumerate(problem.architecture.fanout(i)):
            yield f"fan-out of {name} along {AXES[axis]} ({limit}): units", needs.along[axis][i] - limit


def _capacity(problem: Problem, needs: Needs) -> Iterator[tuple[str, Excess]]:
    """The kept tiles of a level fit its usable words; those of a pool fit its memory together."""
    pools: dict[str, NDArray[np.int64]] = {}
    for level, kept in zip(problem.architecture.levels, needs.words, strict=True):
        if level.usable_words is None:
            continue
        yield f"capacity of {level.name} ({level.usable_words} words): words", kept - level.usable_words
        if level.pool:
            pools[level.pool] = pools.get(level.pool, 0) + kept * level.word_bits * level.multiple_buffering
    for pool, bits in pools.items():
        limit = min(level.capacity_bits for level in problem.architecture.levels if level.pool == pool and level.capacity_bits)
        yield f"capacity of pool {pool} ({limit} bits): bits", bits - limit


def _residence(batch: Batch) -> Iterator[tuple[str, Excess]]:
    """Tensors live only where they may, and each lives somewhere."""
    problem = batch.problem
    for t, tensor in enumerate(problem.tensors):
        yield f"{tensor} is kept at no level: levels", 1 - batch.keep[:, :, t].sum(axis=1)
    for i, level in enumerate(problem.architecture.levels):
        for t, tensor in enumerate(problem.tensors):
            if level.may_keep and not {tensor, base_name(tensor)} & set(level.may_keep):
                yield f"{level.name} may not keep {tensor}: tensors", batch.keep[:, i, t]


def _coincidences(batch: Batch, nest: Nest) -> Iterator[tuple[str, Excess]]:
    """Windows of neighbours coincide when two dims of one rank are spatial in one block; with ragged loops that is not counted."""
    problem = batch.problem
    for t, shape in enumerate(problem.shapes):
        if not shape.mixed:
            continue
        for i, name in enumerate(problem.levels):
            over = np.zeros(len(batch), np.int64)
            for group in shape.groups():
                several = sum((nest.spatial[i][dim] > 1).astype(np.int64) for dim in group) > 1
                ragged = sum(nest.below[-1][dim] != problem.active_bounds[dim] for dim in group) > 0
                over = over | (several & ragged)
            yield f"ragged spatial loops along one window of {problem.tensors[t]} below {name}: blocks", over


def _constraints(batch: Batch) -> Iterator[tuple[str, Excess]]:
    """The mapspace that the target honours."""
    problem = batch.problem
    for i, name in enumerate(problem.levels):
        rule = problem.constraints.level(name)
        for d, dim in enumerate(problem.dims):
            if rule.spatial_dims is not None and dim not in rule.spatial_dims:
                yield f"spatial {dim} below {name}: factor over 1", batch.spatial[:, i, d] - 1
            if rule.temporal_dims is not None and dim not in rule.temporal_dims:
                yield f"temporal {dim} at {name}: factor over 1", batch.temporal[:, i, d] - 1
            if dim in rule.max_factors:
                yield f"temporal {dim} at {name}: factor over {rule.max_factors[dim]}", batch.temporal[:, i, d] - rule.max_factors[dim]
        if rule.keep is not None:
            wanted = np.array([tensor in rule.keep or base_name(tensor) in rule.keep for tensor in problem.tensors])
            yield f"{name} must keep {' '.join(rule.keep) or 'nothing'}: tensors", (batch.keep[:, i] != wanted).sum(axis=1)
