"""What the host issues for a tiled operator: configuration, then one loop per tile."""

from __future__ import annotations

import itertools
from typing import NamedTuple

from .commands import ACCUMULATOR, Command, ConfigExecute, ConfigLoad, ConfigStore, Mvin, Pool
from .loop_conv import LoopConv
from .loop_matmul import NONE, LoopMatmul, normalized
from .machine import Machine
from .tiling import ConvShape, ConvTiles, MatmulTiles, tile_add, tile_conv, tile_matmul, tile_norm

Program = list[Command | LoopMatmul | LoopConv]


class Matmul(NamedTuple):
    """``C[m, n] = scale(act(A[m, k] B[k, n] + D))``: sizes, addresses (0: none) and row strides in words."""

    m: int
    n: int
    k: int
    a: int
    b: int
    c: int
    d: int = 0
    a_stride: int = 0
    b_stride: int = 0
    c_stride: int = 0
    d_stride: int = 0
    a_transpose: bool = False
    b_transpose: bool = False
    #: One row of D is added to every row.
    repeating_bias: bool = False
    full_c: bool = False
    low_d: bool = False
    activation: int = NONE
    scale: float = 1.0


def matmul(task: Matmul, machine: Machine, tiles: MatmulTiles | None = None, modern: bool = True) -> Program:
    """The program of ``tiled_matmul``; without `tiles`, with the tiles of ``tiled_matmul_auto``.

    Tiles go i, j, k (k innermost). Where at most two tiles of A (or B) are needed, they stay where they are, unless
    the library is an old one (`modern`: those of 2022 did not do this, nor pack
    pixels, nor leave out the pixels that a strided 1 x 1 kernel skips).
    """
    tiles = tiles or tile_matmul(task.m, task.n, task.k, machine, task.activation)
    dim, word, wide = machine.dim, machine.input_bytes, machine.accumulator_word_bytes
    blocks = [-(-size // dim) for size in (task.m, task.n, task.k)]
    pads = [blocks[at] * dim - size for at, size in enumerate((task.m, task.n, task.k))]
    counts = [-(-blocks[at] // tiles[at]) for at in range(3)]
    a_stride, b_stride = (
        task.a_stride or (task.m if task.a_transpose else task.k),
        task.b_stride or (task.k if task.b_transpose else task.n),
    )
    c_stride, d_stride = task.c_stride or task.n, task.d_stride or task.n
    c_word, d_word = wide if task.full_c else word, word if task.low_d else wide
    program: Program = [
        ConfigExecute(a_transpose=task.a_transpose, b_transpose=task.b_transpose, activation=task.activation & 3),
        ConfigStore(c_stride * c_word, task.activation, task.scale),
        ConfigLoad(0, a_stride * word, dim),
        ConfigLoad(1, b_stride * word, dim),
        ConfigLoad(2, 0 if task.repeating_bias else d_stride * d_word, dim, shrink=task.low_d),
    ]
    keep_a, keep_b = modern and counts[0] * counts[2] <= 2, modern and counts[1] * counts[2] <= 2

    def size(axis: int, at: int) -> tuple[int, int]:
        """Blocks and padding of a tile."""
        last = at == counts[axis] - 1
        return (blocks[axis] - at * tiles[axis] if last else tiles[axis]), (pads[axis] if last else 0)

    for i0 in range(counts[0]):
        for j0 in range(counts[1]):
            for k0 in range(counts[2]):
                (i, pad_i), (j, pad_j), (k, pad_k) = size(0, i0), size(1, j0), size(2, k0)
                row, col, deep = i0 * tiles.i * dim, j0 * tiles.j * dim, k0 * tiles.k * dim
                a = task.a + (deep * a_stride + row if task.a_transpose else row * a_stride + deep) * word
                b = task.b + (col * b_stride + deep if task.b_transpose else deep * b_stride + col) * word
                bias = 0
                if task.d and k0 == 0:
                    bias = task.d + ((0 if task.repeating_bias else row * d_stride) + col) * d_word
                program.append(
                    LoopMatmul(
                        i, j, k, pad_i, pad_j, pad_k,
                        0 if keep_a and j0 else a,
                        0 if keep_b and i0 else b,
                        bias,
                        task.c + (row * c_stride + col) * c_word if k0 == counts[2] - 1 else 0,
                        a_stride, b_stride, 0 if task.repeating_bias else d_stride, c_stride,
                        task.a_transpose, task.b_transpose, task.full_c, task.low_d,
                        accumulate=bool(task.d) or k0 > 0,
                        activation=task.activation,
                        a_half=(1 if i0 + k0 == 0 else 2) if keep_a else 0,
                        b_half=(1 if j0 + k0 == 0 else 2) if keep_b else 0,
                    )
                )  # fmt: skip
    return program


class Conv(NamedTuple):
    """A convolution with its addresses (NHWC, weights HWIO; bias 0: none) and row strides in words (0: dense)."""

    shape: ConvShape
    input: int
    weights: int
    output: int
    bias: int = 0
    in_stride: int = 0
    weight_stride: int = 0
    out_stride: int = 0
    activation: int = NONE
    scale: float = 1.0


def conv(task: Conv, machine: Machine, tiles: ConvTiles | None = None, modern: bool = True) -> Program:
    """The program of ``tiled_conv``; without `tiles`, with the tiles of ``tiled_conv_auto``. `modern` as in `matmul`."""
    shape = task.shape
    downsample = modern and shape.downsample
    tiles = tiles or tile_conv(shape, machine)
    word = machine.input_bytes
    pool_size, pool_stride = (shape.pool_size, shape.pool_stride) if shape.pool_stride else (1, 1)
    in_stride, out_stride = task.in_stride or shape.in_channels, task.out_stride or shape.out_channels
    weight_stride = task.weight_stride or shape.out_channels
    pool_rows, pool_cols = shape.pooled
    program: Program = [
        ConfigStore(out_stride * word, task.activation, task.scale),
        ConfigExecute(a_stride=shape.stride >> downsample),
    ]

    def count(whole: int, part: int) -> int:
        return -(-whole // part)

    deep = count(shape.in_channels, tiles.kchs) * count(shape.kernel, tiles.krows) * count(shape.kernel, tiles.kcols)
    spread = count(shape.batch, tiles.batches) * count(pool_rows, tiles.porows) * count(pool_cols, tiles.pocols)
    keep_a, keep_b = modern and deep * spread <= 2, modern and deep * count(shape.out_channels, tiles.pochs) <= 2
    for b, porow, pocol, poch in itertools.product(
        range(0, shape.batch, tiles.batches),
        range(0, pool_rows, tiles.porows),
        range(0, pool_cols, tiles.pocols),
        range(0, shape.out_channels, tiles.pochs),
    ):
        orow, ocol = porow * pool_stride - shape.pool_padding, pocol * pool_stride - shape.pool_padding
        batches, pochs = min(tiles.batches, shape.batch - b), min(tiles.pochs, shape.out_channels - poch)
        porows, pocols = min(tiles.porows, pool_rows - porow), min(tiles.pocols, pool_cols - pocol)
        orows, ocols = porows * pool_stride + pool_size - 1, pocols * pool_stride + pool_size - 1
        pads = (max(0, -orow), max(0, -ocol), max(0, orow + orows - shape.out_rows), max(0, ocol + ocols - shape.out_cols))
        orows, ocols = orows - pads[0] - pads[2], ocols - pads[1] - pads[3]
        for krow, kcol, kch in itertools.product(
            range(0, shape.kernel, tiles.krows), range(0, shape.kernel, tiles.kcols), range(0, shape.in_channels, tiles.kchs)
        ):
            krows, kcols = min(tiles.krows, shape.kernel - krow), min(tiles.kcols, shape.kernel - kcol)
            kchs = min(tiles.kchs, shape.in_channels - kch)
            irow = max(0, orow) * shape.stride + krow * shape.dilation - shape.padding
            icol = max(0, ocol) * shape.stride + kcol * shape.dilation - shape.padding
            irows = orows * shape.stride + (krows - 1) * shape.dilation
            icols = ocols * shape.stride + (kcols - 1) * shape.dilation
            last = krow + krows == shape.kernel and kcol + kcols == shape.kernel and kch + kchs == shape.in_channels
            first = krow == kcol == kch == 0
            lines = (b * shape.in_rows + max(0, irow)) * shape.in_cols + max(0, icol)
            out = (b * pool_rows + porow) * pool_cols + pocol
            whole = not modern or downsample or shape.dilation > 1 or kchs > machine.dim
            pool = Pool(pool_stride, pool_size, pool_cols, porows, pocols, orows, ocols, pads[0], pads[1]) if shape.pool_stride else None
            program.append(
                LoopConv(
                    shape.in_rows, shape.in_cols, in_stride, shape.out_rows, shape.out_cols, out_stride, weight_stride,
                    shape.in_channels, shape.kernel, shape.stride, shape.dilation,
                    batches, orows, ocols, pochs, krows, kcols, kchs,
                    lpad=max(0, -icol), rpad=max(0, icol + icols - shape.in_cols),
                    upad=max(0, -irow), dpad=max(0, irow + irows - shape.in_rows),
                    input=0 if keep_a and poch else task.input + (lines * in_stride + kch) * word,
                    weights=0 if keep_b and b + porow + pocol else task.weights
                    + (((krow * shape.kernel + kcol) * shape.in_channels + kch) * weight_stride + poch) * word,
                    bias=(task.bias + poch * machine.accumulator_word_bytes if task.bias else 1) if first else 0,
                    output=task.output + (out * out_stride + poch) * word if last else 0,
                    no_bias=not task.bias,
                    downsample=downsample,
                    pixels=1 if whole else min(kcols, machine.dim // kchs),
                    activation=task.activation,
                    pool=pool,
                    pool_out_rows=pool_rows if pool else 0,
                    a_half=(1 if kch + krow + kcol + b + porow + pocol == 0 else 2) if keep_a else 0,
                    b_half=(1 if kch + poch + krow + kcol == 0 else 2) if keep_b else 0,
                )
            )  # fmt: skip
    return program


class Add(NamedTuple):
    """``C = act(a_scale A + b_scale B)`` of dense matrices, with their addresses."""

    m: int
    n: int
    a: int
    b: int
    c: int
    a_scale: float = 1.0
    b_scale: float = 1.0
    activation: int = NONE


def add(task: Add, machine: Machine) -> Program:
    """The program of ``tiled_resadd_auto``."""
    dim, word = machine.dim, machine.input_bytes
    i, j = tile_add(task.m, task.n, machine)
    program: Program = [
        ConfigStore(task.n * word, task.activation, 1.0),
        ConfigLoad(0, task.n * word, dim, task.a_scale, shrink=True),
        ConfigLoad(1, task.n * word, dim, task.b_scale, shrink=True),
    ]
    for row in range(0, task.m, i):
        for col in range(0, task.n, j):
            rows, cols = min(i, task.m - row), min(j, task.n - col)
            blocks = (-(-rows // dim), -(-cols // dim))
            at = (row * task.n + col) * word
            program.append(
                LoopMatmul(
                    *blocks, 0, blocks[0] * dim - rows, blocks[1] * dim - cols, 0, task.a + at, task.b + at, 0, task.c + at,
                    task.n, task.n, 0, task.n, activation=task.activation, resadd=True,
                )
            )  # fmt: skip
    return program


class Norm(NamedTuple):
    """``C = scale(act(A))`` row by row, `activation` being a softmax or a LayerNorm: A of 32 bits, C of 8, both dense, with addresses."""

    m: int
    n: int
    a: int
    c: int
    activation: int
    scale: float = 1.0


def norm(task: Norm, machine: Machine) -> Program:
    """The program of ``tiled_norm_auto``: blocks of rows go into the accumulator and leave it in three passes; no loop unit does it."""
    dim, word, wide = machine.dim, machine.input_bytes, machine.accumulator_word_bytes
    program: Program = [ConfigStore(task.n * word, task.activation, task.scale), ConfigLoad(0, task.n * wide, dim)]
    columns = machine.accumulator_block_columns * dim
    blocks = -(-task.n // dim)
    height = tile_norm(task.m, task.n, machine)
    for row in range(0, task.m, dim):
        rows = min(dim, task.m - row)
        local = ACCUMULATOR | (row % height // dim * blocks * dim)
        for col in range(0, task.n, columns):
            address = task.a + (row * task.n + col) * wide
            program.append(Mvin(0, address, local + col, rows, min(columns, task.n - col)))
        out = LoopMatmul(
            1, blocks, 0, dim - rows, blocks * dim - task.n, 0, 0, 0, 0, task.c + row * task.n * word, 0, 0, 0, task.n,
            activation=task.activation,
        )  # fmt: skip
        program += [store.command for store in normalized(out, machine, local, word, min(blocks, machine.block_columns))]
    return program
