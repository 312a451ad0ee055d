"""The convolution loop unit: an implicit matrix product over taps, without im2col."""

from __future__ import annotations

from typing import NamedTuple

from .commands import ACCUMULATE, ACCUMULATOR, GARBAGE, Command, Compute, ConfigLoad, ConfigStore, Mvin, Mvout, Pool, Preload
from .loop_matmul import NONE, Step, Store, Streams
from .machine import Machine


class LoopConv(NamedTuple):
    """One tile of a convolution (NHWC, weights HWIO); sizes in elements, address 0: nothing."""

    #: Whole layer.
    in_rows: int
    in_cols: int
    in_stride: int
    out_rows: int
    out_cols: int
    out_stride: int
    weight_stride: int
    in_channels: int
    kernel: int
    stride: int
    dilation: int
    #: This tile.
    batches: int
    orows: int
    ocols: int
    ochs: int
    krows: int
    kcols: int
    kchs: int
    lpad: int
    rpad: int
    upad: int
    dpad: int
    input: int
    weights: int
    bias: int
    output: int
    no_bias: bool = False
    #: 1 x 1 kernels with stride 2 load only the pixels they use.
    downsample: bool = False
    #: Taps of a row that share one step, when channels are few.
    pixels: int = 1
    activation: int = NONE
    pool: Pool | None = None
    pool_out_rows: int = 0
    a_half: int = 0
    b_half: int = 0


class _Sizes(NamedTuple):
    """Derived sizes of a tile."""

    irows: int
    icols: int
    #: Without padding.
    irows_real: int
    icols_real: int
    #: Rows of one block of input channels, of one image, of one line.
    plane: int
    image: int
    line: int
    #: Rows of one block of output channels of the weights, of the results.
    taps: int
    results: int


def sizes(loop: LoopConv) -> _Sizes:
    """Rows and columns of the input tile, and strides of the local layouts."""
    irows = loop.orows * loop.stride + (loop.krows - 1) * loop.dilation
    icols = loop.ocols * loop.stride + (loop.kcols - 1) * loop.dilation
    down = int(loop.downsample)
    image = (irows >> down) * (icols >> down)
    return _Sizes(
        irows,
        icols,
        irows - loop.upad - loop.dpad,
        icols - loop.lpad - loop.rpad,
        loop.batches * image,
        image,
        icols >> down,
        loop.krows * loop.kcols * loop.kchs,
        loop.batches * loop.orows * loop.ocols,
    )


def streams(loop: LoopConv, machine: Machine, half: int, acc_half: int) -> Streams:
    """The streams of a loop that runs in `half` of the scratchpad and `acc_half` of the accumulator."""
    rows = machine.scratchpad_rows // 2
    size = sizes(loop)
    a_start = ((loop.a_half - 1) if loop.a_half else half) * rows
    blocks = -(-loop.ochs // machine.dim)
    b_start = ((loop.b_half if loop.b_half else half + 1) * rows - blocks * size.taps) % machine.scratchpad_rows
    c_start = ACCUMULATOR | (acc_half * (machine.accumulator_rows // 2))
    a, b = _inputs(loop, size, machine, a_start), _weights(loop, size, machine, b_start)
    steps = _steps(loop, size, machine, (a_start, b_start, c_start), (len(a), len(b)))
    return Streams(a, b, _bias(loop, size, machine, c_start), steps, _stores(loop, size, machine, c_start, len(steps)), [], [])


def _bias(loop: LoopConv, size: _Sizes, machine: Machine, start: int) -> list[Command]:
    if not loop.bias:
        return []
    dim = machine.dim
    wide = machine.accumulator_block_columns * dim
    made: list[Command] = [ConfigLoad(2, 0, size.results)]
    for b in range(loop.batches):
        for orow in range(loop.orows):
            for ocol in range(0, loop.ocols, dim):
                for och in range(0, loop.ochs, wide):
                    made.append(
                        Mvin(
                            2,
                            0 if loop.no_bias else loop.bias + och * machine.accumulator_word_bytes,
                            start + och // dim * size.results + (b * loop.orows + orow) * loop.ocols + ocol,
                            min(dim, loop.ocols - ocol),
                            min(wide, loop.ochs - och),
                        )
                    )
    return made


def _inputs(loop: LoopConv, size: _Sizes, machine: Machine, start: int) -> list[Command]:
    if not loop.input:
        return []
    dim, word, down = machine.dim, machine.input_bytes, int(loop.downsample)
    wide = machine.block_columns * dim
    made: list[Command] = [
        ConfigLoad(0, loop.in_stride * word << down, size.plane, pixel_repeats=loop.pixels),
    ]
    for b in range(loop.batches):
        for irow in range(-loop.upad, size.irows_real + loop.dpad, 1 << down):
            icol = -loop.lpad
            while icol < size.icols_real + loop.rpad:
                if icol < 0:
                    width = min(dim, -icol)
                elif icol >= size.icols_real:
                    width = min(dim, size.icols_real + loop.rpad - icol)
                else:
                    width = min(dim << down, size.icols_real - icol)
                zeros = not (0 <= irow < size.irows_real and 0 <= icol < size.icols_real)
                pixel = b * size.image + ((irow + loop.upad) >> down) * size.line + ((icol + loop.lpad) >> down)
                for ich in range(0, loop.kchs, wide):
                    address = loop.input + (((b * loop.in_rows + irow) * loop.in_cols + icol) * loop.in_stride + ich) * word
                    made.append(
                        Mvin(0, 0 if zeros else address, start + ich // dim * size.plane + pixel, width >> down, min(wide, loop.kchs - ich))
                    )
                icol += width
    return made


def _weights(loop: LoopConv, size: _Sizes, machine: Machine, start: int) -> list[Command]:
    if not loop.weights:
        return []
    dim, word = machine.dim, machine.input_bytes
    wide = machine.block_columns * dim
    made: list[Command] = [ConfigLoad(1, loop.weight_stride * word, size.taps)]
    for och in range(0, loop.ochs, wide):
        for krow in range(loop.krows):
            for kcol in range(loop.kcols):
                for kch in range(0, loop.kchs, dim):
                    tap = (krow * loop.kernel + kcol) * loop.in_channels + kch
                    made.append(
                        Mvin(
                            1,
                            loop.weights + (tap * loop.weight_stride + och) * word,
                            start + och // dim * size.taps + (krow * loop.kcols + kcol) * loop.kchs + kch,
                            min(dim, loop.kchs - kch),
                            min(wide, loop.ochs - och),
                        )
                    )
    return made


def _steps(loop: LoopConv, size: _Sizes, machine: Machine, starts: tuple[int, int, int], needs: tuple[int, int]) -> list[Step]:
    """Weights stay in the array while all pixels of the tile pass."""
    dim, down = machine.dim, int(loop.downsample)
    a_start, b_start, c_start = starts
    made = []
    for och in range(0, loop.ochs, dim):
        cols = min(dim, loop.ochs - och)
        for krow in range(loop.krows):
            for kcol in range(0, loop.kcols, loop.pixels):
                pixels = min(loop.pixels, loop.kcols - kcol)
                for kch in range(0, loop.kchs, dim):
                    inner = pixels * min(dim, loop.kchs - kch)
                    weights = b_start + och // dim * size.taps + (krow * loop.kcols + kcol) * loop.kchs + kch
                    for b in range(loop.batches):
                        for orow in range(loop.orows):
                            irow = (orow * loop.stride + krow * loop.dilation) >> down
                            line = a_start + kch // dim * size.plane + b * size.image + irow * size.line
                            out = c_start + och // dim * size.results + (b * loop.orows + orow) * loop.ocols
                            for ocol in range(0, loop.ocols, dim):
                                rows = min(dim, loop.ocols - ocol)
                                pixel = line + ((ocol * loop.stride + kcol * loop.dilation) >> down)
                                fresh = weights != GARBAGE
                                made.append(
                                    Step(
                                        Preload(weights, inner, cols, (out + ocol) | ACCUMULATE, rows, cols),
                                        Compute(pixel, rows, inner, fresh, GARBAGE, rows, cols),
                                        *needs,
                                    )
                                )
                                weights = GARBAGE
    return made


def _stores(loop: LoopConv, size: _Sizes, machine: Machine, start: int, need: int) -> list[Store]:
    if not loop.output:
        return []
    dim, word = machine.dim, machine.input_bytes
    made = []
    if loop.pool is not None:
        made.append(Store(ConfigStore(loop.out_stride * word, loop.activation, None, loop.pool), need))
        for b in range(loop.batches):
            for och in range(0, loop.ochs, dim):
                address = loop.output + (b * loop.pool_out_rows * loop.pool.out_dim * loop.out_stride + och) * word
                local = start + och // dim * size.results + b * loop.orows * loop.ocols
                made.append(Store(Mvout(address, local, 0, min(dim, loop.ochs - och)), need))
        made.append(Store(ConfigStore(loop.out_stride * word, loop.activation), need))
        return made
    for b in range(loop.batches):
        for orow in range(loop.orows):
            for ocol in range(0, loop.ocols, dim):
                for och in range(0, loop.ochs, dim):
                    address = loop.output + (((b * loop.out_rows + orow) * loop.out_cols + ocol) * loop.out_stride + och) * word
                    local = start + och // dim * size.results + (b * loop.orows + orow) * loop.ocols + ocol
                    made.append(Store(Mvout(address, local, min(dim, loop.ocols - ocol), min(dim, loop.ochs - och)), need))
    return made
