"""Gemmini's own tilings (the heuristics of its C library), and the loops that a tiled operator issues."""

from __future__ import annotations

import math
from typing import NamedTuple

from .loop_matmul import LAYERNORM, NONE, SOFTMAX
from .machine import Machine


class MatmulTiles(NamedTuple):
    """Blocks per tile."""

    i: int
    j: int
    k: int


def tile_matmul(m: int, n: int, k: int, machine: Machine, activation: int = NONE) -> MatmulTiles:
    """Tiles of ``tiled_matmul_auto``: a cube that fits half of each memory, then grown along j, i, k while that fits."""
    dim = machine.dim
    blocks = MatmulTiles(-(-m // dim), -(-n // dim), -(-k // dim))
    scratchpad, accumulator = machine.scratchpad_rows // 2, machine.accumulator_rows // 2
    side = math.isqrt(accumulator // dim)
    depth = (scratchpad // 2 // dim) // side
    if activation in (LAYERNORM, SOFTMAX):
        i, j, deep = 1, blocks.j, 1
    else:
        i, j, deep = min(blocks.i, side), min(blocks.j, side), min(blocks.k, depth)

    def fits(i: int, j: int, deep: int) -> bool:
        return (i * deep + deep * j) * dim <= scratchpad and i * j * dim <= accumulator

    while True:
        before = (i, j, deep)
        if j < blocks.j and fits(i, j + 1, deep):
            j += 1
        if i < blocks.i and fits(i + 1, j, deep):
            i += 1
        if deep < blocks.k and fits(i, j, deep + 1):
            deep += 1
        if before == (i, j, deep):
            return MatmulTiles(i, j, deep)


class ConvShape(NamedTuple):
    """A convolution on NHWC images with square strides: sizes in elements; `pool_size` 0: no pooling."""

    batch: int
    in_rows: int
    in_cols: int
    in_channels: int
    out_channels: int
    out_rows: int
    out_cols: int
    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    pool_size: int = 0
    pool_stride: int = 0
    pool_padding: int = 0

    @property
    def pooled(self) -> tuple[int, int]:
        """Rows and columns of the result."""
        if not self.pool_stride:
            return self.out_rows, self.out_cols
        return tuple(  # type: ignore[return-value]
            (size + 2 * self.pool_padding - self.pool_size) // self.pool_stride + 1 for size in (self.out_rows, self.out_cols)
        )

    @property
    def downsample(self) -> bool:
        """Only the pixels that a strided 1 x 1 kernel uses are loaded."""
        even = self.in_rows % 2 == 0 and self.in_cols % 2 == 0
        return self.stride == 2 and self.kernel == 1 and self.padding == 0 and not self.pool_stride and even


class ConvTiles(NamedTuple):
    """Elements per tile; rows and columns after pooling."""

    batches: int
    porows: int
    pocols: int
    pochs: int
    krows: int
    kcols: int
    kchs: int


def conv_rows(shape: ConvShape, tiles: ConvTiles, machine: Machine) -> tuple[int, int]:
    """Rows of the scratchpad and of the accumulator that a tile takes."""
    pool_size, pool_stride = (shape.pool_size, shape.pool_stride) if shape.pool_stride else (1, 1)
    orows, ocols = tiles.porows * pool_stride + pool_size - 1, tiles.pocols * pool_stride + pool_size - 1
    irows = orows * shape.stride + (tiles.krows - 1) * shape.dilation
    icols = ocols * shape.stride + (tiles.kcols - 1) * shape.dilation
    down = int(shape.downsample)
    dim = machine.dim
    a = -(-tiles.kchs // dim) * tiles.batches * (irows >> down) * (icols >> down)
    b = -(-tiles.pochs // dim) * tiles.kcols * tiles.krows * tiles.kchs
    return a + b, -(-tiles.pochs // dim) * tiles.batches * orows * ocols


def tile_conv(shape: ConvShape, machine: Machine) -> ConvTiles:
    """Tiles of ``tiled_conv_auto``: the whole layer, shrunk along the largest size until it fits half of each memory, then grown."""
    dim = machine.dim
    scratchpad, accumulator = machine.scratchpad_rows // 2, machine.accumulator_rows // 2
    most = [shape.batch, *shape.pooled, shape.out_channels, shape.kernel, shape.kernel, shape.in_channels]
    args = list(most)
    rows, cols, ochs, kchs = 1, 2, 3, 6

    def fits(values: list[int]) -> bool:
        used = conv_rows(shape, ConvTiles(*values), machine)
        return used[0] <= scratchpad and used[1] <= accumulator

    while not fits(args):
        largest, at = -1, -1
        for index, value in enumerate(args):
            if value > largest and not (index == cols and args[index] <= dim and args[rows] > 1):
                largest, at = value, index
        if at in (ochs, kchs):
            args[at] = args[at] // dim * dim if args[at] % dim else args[at] - dim
            args[at] = args[at] or 1
        else:
            args[at] -= 1
        if args[at] < 1:
            args[at] = 1
    while args[cols] < most[cols] and fits([*args[:cols], args[cols] + 1, *args[cols + 1 :]]):
        args[cols] += 1
    grown = True
    while grown:
        grown = False
        for at, value in enumerate(args):
            if value < most[at] and fits([*args[:at], value + 1, *args[at + 1 :]]):
                args[at] += 1
                grown = True
    return ConvTiles(*args)


def tile_add(m: int, n: int, machine: Machine) -> tuple[int, int]:
    """Rows and columns per tile of ``tiled_resadd_auto``: halved (or cut by a block of columns) until they fit half of the accumulator."""
    dim = machine.dim
    i, j = m, n
    while -(-i // dim) * dim * -(-j // dim) > machine.accumulator_rows // 2:
        if i >= j or j <= dim:
            i = -(-i // 2)
        else:
            j -= dim
    return i, j


def tile_norm(m: int, n: int, machine: Machine) -> int:
    """Rows per tile of ``tiled_norm_auto``: whole rows, fewer until they fit half of the accumulator."""
    dim = machine.dim
    blocks = -(-m // dim)
    while blocks > 1 and blocks * dim * -(-n // dim) > machine.accumulator_rows // 2:
        blocks -= 1
    return min(m, blocks * dim)
