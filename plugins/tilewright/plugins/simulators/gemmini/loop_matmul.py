"""The matmul loop unit: one `LoopMatmul` command becomes streams of mvins, array steps and mvouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .commands import ACCUMULATE, ACCUMULATOR, FULL, GARBAGE, NORM_SHIFT, Command, Compute, ConfigNorm, Mvin, Mvout, Preload
from .machine import Machine

#: Activations.
NONE, RELU, LAYERNORM, IGELU, SOFTMAX = range(5)
#: Commands of the normalizer, in bits of a local address.
RESET, SUM, MEAN, VARIANCE, INV_STDDEV, MAX, SUM_EXP, INV_SUM_EXP = range(8)
#: Statistics registers that passes alternate between.
STATISTICS = 2


class LoopMatmul(NamedTuple):
    """``C = A B + D`` on one tile, or with `resadd` ``C = A + B``; sizes in blocks, strides in words, address 0: nothing."""

    i: int
    j: int
    k: int
    pad_i: int
    pad_j: int
    pad_k: int
    a: int
    b: int
    d: int
    c: int
    a_stride: int
    b_stride: int
    d_stride: int
    c_stride: int
    a_transpose: bool = False
    b_transpose: bool = False
    full_c: bool = False
    low_d: bool = False
    accumulate: bool = False
    activation: int = NONE
    #: Half of the scratchpad that holds A (B): 1 or 2; 0: that of the loop's own.
    a_half: int = 0
    b_half: int = 0
    resadd: bool = False


class Step(NamedTuple):
    """One preload and compute, and how much of A and B must have been asked for before."""

    preload: Preload
    compute: Compute
    need_a: int
    need_b: int


class Store(NamedTuple):
    """A command of the store stream, and how many steps must have been issued before."""

    command: Command
    need: int


class Streams(NamedTuple):
    """What the generators of a loop unit emit, each in its own order."""

    a: Sequence[Command]
    b: Sequence[Command]
    d: Sequence[Command]
    steps: list[Step]
    stores: list[Store]
    #: Block of the contraction that each load of A and B is about, for the arbiter between them.
    a_k: list[int]
    b_k: list[int]


def streams(loop: LoopMatmul, machine: Machine, half: int, acc_half: int) -> Streams:
    """The streams of a loop that runs in `half` of the scratchpad and `acc_half` of the accumulator."""
    rows = machine.scratchpad_rows // 2
    a_start = ((loop.a_half - 1) if loop.a_half else half) * rows
    b_end = (loop.b_half if loop.b_half else half + 1) * rows
    b_start = (b_end - loop.k * loop.j * machine.dim) % machine.scratchpad_rows
    c_start = acc_half * (machine.accumulator_rows // 2)
    if loop.resadd:
        return _resadd(loop, machine, c_start)
    a, a_k = _load_a(loop, machine, a_start)
    b, b_k = _load_b(loop, machine, b_start)
    steps = _steps(loop, machine, a_start, b_start, c_start)
    return Streams(a, b, _load_d(loop, machine, c_start), steps, _stores(loop, machine, c_start), a_k, b_k)


def _extent(block: int, blocks: int, pad: int, dim: int, width: int = 1) -> int:
    """Rows or columns of `width` blocks from `block` on."""
    return width * dim - (pad if block + width >= blocks else 0)


def _load_a(loop: LoopMatmul, machine: Machine, start: int) -> tuple[list[Mvin], list[int]]:
    if not loop.a:
        return [], []
    dim, word = machine.dim, machine.input_bytes
    rows, cols, row_pad, col_pad = (loop.i, loop.k, loop.pad_i, loop.pad_k)
    if loop.a_transpose:
        rows, cols, row_pad, col_pad = cols, rows, col_pad, row_pad
    wide = min(cols, machine.block_columns)
    order = (
        [(row, col) for row in range(rows) for col in range(0, cols, wide)]
        if loop.a_transpose
        else [(row, col) for col in range(0, cols, wide) for row in range(rows)]
    )
    made = []
    for row, col in order:
        width = min(wide, cols - col)
        made.append(
            Mvin(
                0,
                loop.a + (row * loop.a_stride + col) * dim * word,
                start + (row * cols + col) * dim,
                _extent(row, rows, row_pad, dim),
                _extent(col, cols, col_pad, dim, width),
            )
        )
    return made, [row if loop.a_transpose else col for row, col in order]


def _load_b(loop: LoopMatmul, machine: Machine, start: int) -> tuple[list[Mvin], list[int]]:
    """Whole blocks of rows, whatever the padding: so does the hardware; what is beyond B is not used."""
    if not loop.b:
        return [], []
    dim, word = machine.dim, machine.input_bytes
    rows, cols, col_pad = loop.k, loop.j, loop.pad_j
    if loop.b_transpose:
        rows, cols, col_pad = loop.j, loop.k, loop.pad_k
    wide = min(cols, machine.block_columns)
    order = (
        [(row, col) for col in range(0, cols, wide) for row in range(rows)]
        if loop.b_transpose
        else [(row, col) for row in range(rows) for col in range(0, cols, wide)]
    )
    made = []
    for row, col in order:
        width = min(wide, cols - col)
        made.append(
            Mvin(
                1,
                loop.b + (row * loop.b_stride + col) * dim * word,
                start + (row * cols + col) * dim,
                dim,
                _extent(col, cols, col_pad, dim, width),
            )
        )
    return made, [col if loop.b_transpose else row for row, col in order]


def _load_d(loop: LoopMatmul, machine: Machine, start: int) -> list[Command]:
    if not loop.d:
        return []
    dim = machine.dim
    word = machine.input_bytes if loop.low_d else machine.accumulator_word_bytes
    wide = min(loop.j, machine.block_columns if loop.low_d else machine.accumulator_block_columns)
    return [
        Mvin(
            2,
            loop.d + (i * loop.d_stride + j) * dim * word,
            ACCUMULATOR | (start + (i * loop.j + j) * dim),
            _extent(i, loop.i, loop.pad_i, dim),
            _extent(j, loop.j, loop.pad_j, dim, min(wide, loop.j - j)),
        )
        for j in range(0, loop.j, wide)
        for i in range(loop.i)
    ]


def _needed(row: int, k: int, rows: int, wide: int, transposed: bool, k_blocks: int) -> int:
    """Loads of A (rows = I) that must be out before block (row, k) is used; the generator's position counts whole groups of k."""
    if transposed:
        groups = -(-rows // wide)
        return k * groups + row // wide + 1
    group = k // wide
    return group * rows + row + 1 if k % wide == 0 else min((group + 1) * rows, -(-k_blocks // wide) * rows)


def _steps(loop: LoopMatmul, machine: Machine, a_start: int, b_start: int, c_start: int) -> list[Step]:
    dim = machine.dim
    a_wide = min(loop.i if loop.a_transpose else loop.k, machine.block_columns)
    b_wide = min(loop.k if loop.b_transpose else loop.j, machine.block_columns)
    made = []
    for k in range(loop.k):
        inner = _extent(k, loop.k, loop.pad_k, dim)
        for j in range(loop.j):
            cols = _extent(j, loop.j, loop.pad_j, dim)
            b_at = b_start + ((j * loop.k + k) if loop.b_transpose else (k * loop.j + j)) * dim
            need_b = (
                (_needed(j, k, loop.j, b_wide, False, loop.k) if loop.b_transpose else k * -(-loop.j // b_wide) + j // b_wide + 1)
                if loop.b
                else 0
            )
            for i in range(loop.i):
                rows = _extent(i, loop.i, loop.pad_i, dim)
                a_at = a_start + ((k * loop.i + i) if loop.a_transpose else (i * loop.k + k)) * dim
                c_at = ACCUMULATOR | (c_start + (i * loop.j + j) * dim)
                if loop.accumulate or k:
                    c_at |= ACCUMULATE
                made.append(
                    Step(
                        Preload(b_at if i == 0 else GARBAGE, inner, cols, c_at, rows, cols),
                        Compute(a_at, rows, inner, i == 0, GARBAGE, dim, dim),
                        _needed(i, k, loop.i, a_wide, loop.a_transpose, loop.k) if loop.a else 0,
                        need_b,
                    )
                )
    return made


def _stores(loop: LoopMatmul, machine: Machine, c_start: int) -> list[Store]:
    if not loop.c:
        return []
    dim = machine.dim
    word = machine.accumulator_word_bytes if loop.full_c else machine.input_bytes
    wide = 1 if loop.full_c else min(loop.j, machine.block_columns)
    start = ACCUMULATOR | (FULL if loop.full_c else 0) | c_start
    if loop.activation in (LAYERNORM, SOFTMAX):
        return normalized(loop, machine, start, word, wide)
    made = []
    for j in range(0, loop.j, wide):
        width = min(wide, loop.j - j)
        for i in range(loop.i):
            command = Mvout(
                loop.c + (i * loop.c_stride + j) * dim * word,
                start + (i * loop.j + j) * dim,
                _extent(i, loop.i, loop.pad_i, dim),
                _extent(j, loop.j, loop.pad_j, dim, width),
            )
            made.append(Store(command, ((loop.k - 1) * loop.j + j + width - 1) * loop.i + i + 1))
    return made


def normalized(loop: LoopMatmul, machine: Machine, start: int, word: int, wide: int) -> list[Store]:
    """Three passes over each row: two statistics, then the row itself; `STATISTICS` rows take turns, `wide` blocks per mvout."""
    dim = machine.dim
    need = loop.i * loop.j * loop.k
    passes = ((SUM, MEAN), (VARIANCE, INV_STDDEV), (RESET, RESET))
    if loop.activation == SOFTMAX:
        passes = ((MAX, MAX), (SUM_EXP, INV_SUM_EXP), (RESET, RESET))
    made = []
    for i in range(loop.i):
        rows = _extent(i, loop.i, loop.pad_i, dim)
        for row in range(0, rows, STATISTICS):
            for first, last in passes:
                for stat in range(min(STATISTICS, rows - row)):
                    made.append(Store(ConfigNorm(stat), need))
                    for j in range(0, loop.j, wide):
                        width = min(wide, loop.j - j)
                        norm = last if j + width >= loop.j else first
                        command = Mvout(
                            loop.c + ((i * dim + row + stat) * loop.c_stride + j * dim) * word,
                            (start + (i * loop.j + j) * dim + row + stat) | norm << NORM_SHIFT,
                            1,
                            _extent(j, loop.j, loop.pad_j, dim, width),
                        )
                        made.append(Store(command, need))
    return made


def _resadd(loop: LoopMatmul, machine: Machine, c_start: int) -> Streams:
    """A and B are added in the accumulator: no array step."""
    dim, word = machine.dim, machine.input_bytes
    wide = min(loop.j, machine.block_columns)
    loads: dict[int, list[Mvin]] = {0: [], 1: []}
    stores = []
    for i in range(loop.i):
        for j in range(0, loop.j, wide):
            width = min(wide, loop.j - j)
            rows, cols = _extent(i, loop.i, loop.pad_i, dim), _extent(j, loop.j, loop.pad_j, dim, width)
            at = ACCUMULATOR | (c_start + (i * loop.j + j) * dim)
            loads[0].append(Mvin(0, loop.a + (i * loop.a_stride + j) * dim * word, at, rows, cols))
            loads[1].append(Mvin(1, loop.b + (i * loop.b_stride + j) * dim * word, at | ACCUMULATE, rows, cols))
            stores.append(Store(Mvout(loop.c + (i * loop.c_stride + j) * dim * word, at, rows, cols), len(loads[1])))
    return Streams(loads[0], loads[1], [], [], stores, [0] * len(loads[0]), [0] * len(loads[1]))
