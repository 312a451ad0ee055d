"""Rows of a file of FireSim measurements, in the columns of DOSA's data (https://github.com/ucb-bar/dosa, BSD-2-Clause)."""

from __future__ import annotations

import csv
import math
import re
from typing import NamedTuple

from tilewright.protocol.errors import InvalidInput

DIMS = "CKNPQRS"
COLUMNS = (
    "mapping.mapping",
    "arch.mem1_entries",
    "arch.mem2_entries",
    "prob.Wstride",
    "target.gemmini_cycle",
    *(f"prob.{d}" for d in DIMS),
)
LEVEL = re.compile(r"L([0-3])\[\w*\]((?: [A-Z]\d+X?)+)")
FACTOR = re.compile(r"([A-Z])(\d+)(X?)")
#: Side of the array that ran: a larger spatial factor cannot have.
SIDE = 16
#: Order of the sizes in the text of a library tiling.
TILING = "RSPQCKN"


class Layer(NamedTuple):
    """Bounds of a layer, and its stride."""

    C: int
    K: int
    N: int
    P: int
    Q: int
    R: int
    S: int
    stride: int

    @property
    def is_matmul(self) -> bool:
        """One line of results, no window."""
        return self.Q == 1 and self.R == self.S == 1

    @property
    def padding(self) -> int:
        """Half a window."""
        return (self.R - 1) // 2

    @property
    def image(self) -> tuple[int, int]:
        """Rows and columns of the input."""
        return tuple(  # type: ignore[return-value]
            max(size * self.stride, (size - 1) * self.stride + self.R - 2 * self.padding) for size in (self.Q, self.P)
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes in the order of a convolution on Gemmini."""
        return (self.N, *self.image, self.C, self.K, self.Q, self.P, self.R, self.stride, self.padding)

    @property
    def inputs(self) -> int:
        """Words of the input."""
        return self.N * self.C * (self.P if self.is_matmul else math.prod(self.image))

    @property
    def weights(self) -> int:
        """Words of the weights."""
        return self.R * self.S * self.C * self.K


class Row(NamedTuple):
    """A measurement: cycles of the given mapping, and of the library's tiling where the file has it."""

    layer: Layer
    #: The layer as the given mapping ran it, and the extents that it held on chip.
    mapped: Layer
    tile: dict[str, int]
    #: No spatial factor exceeds the array.
    clean: bool
    #: Words of the scratchpad, rows of the accumulator.
    scratchpad: int
    accumulator: int
    given: float
    tiling: dict[str, int]
    auto: float | None

    @property
    def tiles(self) -> int:
        """Tiles that the mapping cuts the layer into."""
        return math.prod(-(-bound // self.tile.get(dim, 1)) for dim, bound in zip(DIMS, self.mapped, strict=False))


def parse(name: str, data: bytes) -> list[Row]:
    """All rows of a file; `InvalidInput` says which line or column is wrong."""
    try:
        lines = [line for line in data.decode().splitlines() if line and not line.startswith("#")]
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{name}: {error}, expected text") from None
    rows = list(csv.DictReader(lines))
    missing = [column for column in COLUMNS if not rows or column not in rows[0]]
    if missing:
        raise InvalidInput(f"{name}: columns {', '.join(missing)} are missing, expected those of DOSA's FireSim data")
    made = []
    for index, row in enumerate(rows):
        try:
            made.append(_row(row))
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"{name}: row {index}: {error}") from None
    return made


def _row(row: dict[str, str]) -> Row:
    layer = _squared(Layer(**{dim: int(row[f"prob.{dim}"]) for dim in DIMS}, stride=int(row["prob.Wstride"])))
    if layer.R != layer.S:
        raise ValueError(f"a window of {layer.S} x {layer.R}, expected a square one")
    tile, across = _extents(row["mapping.mapping"])
    auto, tiling = row.get("target.gemmini_auto_cycle"), {}
    if auto:
        tiling = dict(zip(TILING, map(int, row["dse.auto_tiling"].split("_")), strict=True))
    clean = all(factor <= SIDE for factor in across.values())
    mapped = layer
    for dim, factor in across.items() if clean else ():
        # whole rows and columns of the array, whatever share of them the mapping means to use
        mapped = mapped._replace(**{dim: -(-getattr(layer, dim) // factor) * SIDE})
        tile[dim] = tile[dim] // factor * SIDE
    measured = float(row["target.gemmini_cycle"])
    sizes = int(row["arch.mem2_entries"]), int(row["arch.mem1_entries"])
    return Row(layer, mapped, tile, clean, *sizes, measured, tiling, float(auto) if auto else None)


def _squared(layer: Layer) -> Layer:
    """What ran: the library of 2022 knows one size of an image, so that of 60 x 6 results has 60 x 60 (and takes ten times as long)."""
    side = max(layer.P, layer.Q)
    return layer if layer.is_matmul else layer._replace(P=side, Q=side)


def _extents(text: str) -> tuple[dict[str, int], dict[str, int]]:
    """Extent of each dim below DRAM, and across the array."""
    levels = LEVEL.findall(text)
    if len(levels) != 4:
        raise ValueError(f"mapping {text!r}, expected four levels L3 to L0")
    extents: dict[str, int] = {}
    across: dict[str, int] = {}
    for level, factors in levels:
        for dim, factor, spatial in FACTOR.findall(factors):
            if level != "3":
                extents[dim] = extents.get(dim, 1) * int(factor)
            if spatial:
                across[dim] = across.get(dim, 1) * int(factor)
    return extents, across
