"""How it runs: a mapping is a loop nest with a spatial and a temporal block per storage level."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

Axis = Literal["X", "Y"]


class Loop(msgspec.Struct, frozen=True, omit_defaults=True):
    """One loop of a block."""

    dim: str
    factor: int
    #: Mesh axis of a spatial loop.
    axis: Axis = "X"
    #: Trip count is ``ceil(what remains / inner step)``; the last trip may be partial.
    ragged: bool = False


class LevelMapping(msgspec.Struct, frozen=True, omit_defaults=True):
    """The blocks of one level. Loops are written innermost first; the spatial block lies inside the temporal one."""

    level: str
    spatial: tuple[Loop, ...] = ()
    temporal: tuple[Loop, ...] = ()
    #: Tensors kept at this level; others bypass it.
    keep: tuple[str, ...] = ()


class Mapping(msgspec.Struct, frozen=True):
    """A mapping: one entry per storage level, innermost first."""

    levels: tuple[LevelMapping, ...]

    @property
    def is_ragged(self) -> bool:
        """True when any loop is ragged."""
        return any(loop.ragged for level in self.levels for loop in (*level.spatial, *level.temporal))

    @property
    def spatial_size(self) -> int:
        """Compute units used."""
        return math.prod(loop.factor for level in self.levels for loop in level.spatial)

    def canonical(self) -> Mapping:
        """The same nest without factor-1 loops and with keep sets sorted: equal nests compare equal."""
        return Mapping(
            tuple(
                LevelMapping(
                    level.level,
                    tuple(loop for loop in level.spatial if loop.factor > 1),
                    tuple(msgspec.structs.replace(loop, axis="X") for loop in level.temporal if loop.factor > 1),
                    tuple(sorted(level.keep)),
                )
                for level in self.levels
            )
        )

    def __str__(self) -> str:
        """The loop nest, outermost first, one line per loop."""
        lines = []
        depth = 0
        for level in reversed(self.levels):
            lines.append(f"{level.level} [{' '.join(level.keep) or '-'}]")
            for kind, loops in (("for", level.temporal), ("parallel-for", level.spatial)):
                for loop in reversed(loops):
                    if loop.factor > 1:
                        depth += 1
                        where = f" ({loop.axis})" if kind == "parallel-for" else ""
                        lines.append("  " * depth + f"{kind} {loop.dim} in {'~' if loop.ragged else ''}{loop.factor}{where}")
        return "\n".join(lines)
