"""Batches of mappings as arrays, and the way from and to single mappings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.protocol.errors import InvalidMapping, suggest
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping

from .problem import Problem

AXES = ("X", "Y")
_INT64 = np.iinfo(np.int64).max


class Batch:
    """B mappings of one problem. Levels are innermost first; within a level the spatial block lies inside the temporal one.

    ==============  ===============  ==========================================================================
    temporal        int64[B, L, D]   loop factors
    spatial         int64[B, L, D]   factors of the block between a level and its child
    axis            int8[B, L, D]    mesh axis of the spatial loop: 0 = X, 1 = Y
    order           int8[B, L, D]    ``order[b, l, k]``: dim at position k of the temporal block, innermost first
    keep            bool[B, L, T]    tensors kept; others bypass the level
    ragged          bool[B, D]       the dim's loops may overrun its bound and are cut there (optional, default none)
    spatial_order   int8[B, L, D]    as `order`, of the spatial block; matters to peer transfers only (optional, default dim order)
    ==============  ===============  ==========================================================================

    Factors may be anything (evaluation says what is wrong with them); wrong shapes and orders that are no permutations
    raise `InvalidMapping`.
    """

    __slots__ = ("axis", "keep", "order", "problem", "ragged", "spatial", "spatial_order", "temporal")

    def __init__(
        self,
        problem: Problem,
        temporal: NDArray[np.int64],
        spatial: NDArray[np.int64],
        axis: NDArray[np.int8],
        order: NDArray[np.int8],
        keep: NDArray[np.bool_],
        ragged: NDArray[np.bool_] | None = None,
        spatial_order: NDArray[np.int8] | None = None,
    ) -> None:
        self.problem = problem
        size = len(temporal)
        levels, dims, tensors = len(problem.levels), len(problem.dims), len(problem.tensors)
        nest = (size, levels, dims)
        self.temporal: NDArray[np.int64] = _shaped("temporal", temporal, np.int64, nest)
        self.spatial: NDArray[np.int64] = _shaped("spatial", spatial, np.int64, nest)
        self.axis: NDArray[np.int8] = _shaped("axis", axis, np.int8, nest)
        self.order: NDArray[np.int8] = _permutations("order", order, nest)
        self.keep: NDArray[np.bool_] = _shaped("keep", keep, np.bool_, (size, levels, tensors))
        self.ragged: NDArray[np.bool_] | None = None if ragged is None else _shaped("ragged", ragged, np.bool_, (size, dims))
        self.spatial_order: NDArray[np.int8] | None = None if spatial_order is None else _permutations("spatial_order", spatial_order, nest)

    def __len__(self) -> int:
        return len(self.temporal)

    def __getitem__(self, index: slice | NDArray[Any] | Sequence[int]) -> Batch:
        """The mappings of a slice, an index array or a boolean mask."""
        part: Batch = object.__new__(Batch)
        part.problem = self.problem
        for name in self.__slots__:
            if name != "problem":
                value = getattr(self, name)
                setattr(part, name, None if value is None else value[index])
        return part

    @classmethod
    def concatenate(cls, batches: Sequence[Batch]) -> Batch:
        """One batch of all mappings; the batches must be of equal problems, at least one."""
        first = batches[0]
        if any(batch.problem != first.problem for batch in batches):
            raise InvalidMapping("batches of different problems cannot be concatenated")

        def joined(name: str) -> Any:
            return np.concatenate([getattr(batch, name) for batch in batches])

        def optional(name: str, default: Any) -> Any:
            parts = [getattr(batch, name) for batch in batches]
            if all(part is None for part in parts):
                return None
            return np.concatenate([default(batch) if part is None else part for batch, part in zip(batches, parts, strict=True)])

        dims = len(first.problem.dims)
        return cls(
            first.problem,
            joined("temporal"),
            joined("spatial"),
            joined("axis"),
            joined("order"),
            joined("keep"),
            ragged=optional("ragged", lambda batch: np.zeros((len(batch), dims), bool)),
            spatial_order=optional("spatial_order", lambda batch: np.broadcast_to(np.arange(dims, dtype=np.int8), batch.order.shape)),
        )

    @classmethod
    def from_mappings(cls, problem: Problem, mappings: Sequence[Mapping]) -> Batch:
        """A batch of these mappings.

        Raises `InvalidMapping` naming mapping, level and loop for unknown dims, levels or tensors, levels that are missing or out of
        order, a dim twice in one block, a factor that is no integer of at least 1, or an axis other than X and Y.
        """
        levels, dims, tensors = len(problem.levels), len(problem.dims), len(problem.tensors)
        shape = (len(mappings), levels, dims)
        temporal, spatial = np.ones(shape, np.int64), np.ones(shape, np.int64)
        axis, order, spatial_order = (np.zeros(shape, np.int8) for _ in range(3))
        keep = np.zeros((len(mappings), levels, tensors), bool)
        ragged = np.zeros((len(mappings), dims), bool)
        dim_index = {name: i for i, name in enumerate(problem.dims)}
        for b, mapping in enumerate(mappings):
            try:
                names = tuple(level.level for level in mapping.levels)
                if names != problem.levels:
                    raise InvalidMapping(f"levels: {list(names)}, expected {list(problem.levels)} (innermost first)")
                for at, level in enumerate(mapping.levels):
                    order[b, at] = _fill(level.level, level.temporal, dim_index, temporal[b, at], ragged[b])
                    spatial_order[b, at] = _fill(level.level, level.spatial, dim_index, spatial[b, at], ragged[b])
                    for loop in level.spatial:
                        axis[b, at, dim_index[loop.dim]] = AXES.index(loop.axis)
                    for tensor in level.keep:
                        if tensor not in problem.tensors:
                            raise InvalidMapping(f"{level.level}.keep: tensor {tensor!r} is unknown{suggest(tensor, problem.tensors)}")
                        keep[b, at, problem.index(tensor)] = True
            except InvalidMapping as error:
                raise InvalidMapping(f"mapping {b}: {error}") if len(mappings) > 1 else error from None
        return cls(problem, temporal, spatial, axis, order, keep, ragged if ragged.any() else None, spatial_order)

    def mapping(self, index: int) -> Mapping:
        """One mapping of the batch, without trivial loops; loops that are cut short are marked ragged."""
        problem = self.problem
        spatial_order = range(len(problem.dims)) if self.spatial_order is None else None
        cut = self._cut(index)
        levels = []
        for at, name in enumerate(problem.levels):
            inner = spatial_order if spatial_order is not None else self.spatial_order[index, at].tolist()  # type: ignore[index]
            levels.append(
                LevelMapping(
                    level=name,
                    spatial=tuple(
                        Loop(problem.dims[d], int(self.spatial[index, at, d]), AXES[self.axis[index, at, d]], (at, 0, d) in cut)  # type: ignore[arg-type]
                        for d in inner
                        if self.spatial[index, at, d] != 1
                    ),
                    temporal=tuple(
                        Loop(problem.dims[d], int(self.temporal[index, at, d]), ragged=(at, 1, d) in cut)
                        for d in self.order[index, at].tolist()
                        if self.temporal[index, at, d] != 1
                    ),
                    keep=tuple(tensor for t, tensor in enumerate(problem.tensors) if self.keep[index, at, t]),
                )
            )
        return Mapping(tuple(levels))

    def _cut(self, index: int) -> set[tuple[int, int, int]]:
        """(level, 0 = spatial or 1 = temporal, dim) of the loops whose last trip is cut short."""
        if self.ragged is None:
            return set()
        cut = set()
        for d in np.flatnonzero(self.ragged[index]).tolist():
            step, bound = 1, int(self.problem.bounds[d])
            for at in range(len(self.problem.levels)):
                for kind, factors in enumerate((self.spatial, self.temporal)):
                    factor = int(factors[index, at, d])
                    step *= factor
                    if factor > 1 and bound % step:
                        cut.add((at, kind, d))
        return cut


def _fill(level: str, loops: Sequence[Loop], dims: dict[str, int], factors: NDArray[np.int64], ragged: NDArray[np.bool_]) -> list[int]:
    """Write the factors of one block; answers its order, absent dims last."""
    order: list[int] = []
    for loop in loops:
        if loop.dim not in dims:
            raise InvalidMapping(f"{level}: dim {loop.dim!r} is unknown{suggest(loop.dim, dims)}")
        at = dims[loop.dim]
        if at in order:
            raise InvalidMapping(f"{level}: dim {loop.dim!r} has two loops in one block, expected one")
        if isinstance(loop.factor, bool) or not isinstance(loop.factor, int | np.integer):
            raise InvalidMapping(f"{level}.{loop.dim}: factor {loop.factor!r}, expected an integer")
        if not 1 <= loop.factor <= _INT64:
            raise InvalidMapping(f"{level}.{loop.dim}: factor {loop.factor}, expected at least 1 and at most {_INT64}")
        if loop.axis not in AXES:
            raise InvalidMapping(f"{level}.{loop.dim}: axis {loop.axis!r}, expected X or Y")
        factors[at] = loop.factor
        ragged[at] |= loop.ragged
        order.append(at)
    return order + [at for at in range(len(dims)) if at not in order]


def _shaped(name: str, value: Any, dtype: Any, shape: tuple[int, ...]) -> Any:
    array = np.asarray(value)
    if array.shape != shape:
        raise InvalidMapping(f"{name}: shape {array.shape}, expected {shape}")
    if array.dtype == dtype:
        return array
    with np.errstate(invalid="ignore"):
        cast = array.astype(dtype)
    if not (cast == array).all():
        raise InvalidMapping(f"{name}: {array[cast != array][0]!r}, expected what {np.dtype(dtype)} holds")
    return cast


def _permutations(name: str, value: Any, shape: tuple[int, ...]) -> NDArray[np.int8]:
    array: NDArray[np.int8] = _shaped(name, value, np.int8, shape)
    seen = np.bitwise_or.reduce(np.left_shift(1, array.astype(np.int64)), axis=-1, initial=0)
    if not (seen == (1 << shape[-1]) - 1).all():
        worst = tuple(np.argwhere(seen != (1 << shape[-1]) - 1)[0].tolist())
        raise InvalidMapping(f"{name}[{worst[0]}, {worst[1]}]: {array[worst].tolist()}, expected a permutation of 0..{shape[-1] - 1}")
    return array
