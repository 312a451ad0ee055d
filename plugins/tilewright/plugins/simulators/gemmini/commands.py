"""Commands as the controllers see them: what a host writes directly, and what the loop units unroll into."""

from __future__ import annotations

from typing import NamedTuple

#: Flags of a local address: in the accumulator, add to what is there, read all 32 bits, command of the normalizer.
ACCUMULATOR, ACCUMULATE, FULL = 1 << 31, 1 << 30, 1 << 29
NORM_SHIFT, NORM_MASK = 26, 7 << 26
GARBAGE = (1 << 32) - 1
#: Bits of a local address that name a row.
ROW_MASK = (1 << 26) - 1


class ConfigLoad(NamedTuple):
    """How mvins of one state walk memory."""

    state: int
    #: Bytes from one row to the next in memory; 0: one row repeated.
    stride: int
    #: Local rows from one block of columns to the next.
    block_stride: int
    scale: float = 1.0
    #: Rows for the accumulator hold inputs, not partial sums.
    shrink: bool = False
    #: Copies of a row, each one pixel further (first layers).
    pixel_repeats: int = 1


class ConfigStore(NamedTuple):
    """How mvouts walk memory, and what they do on the way."""

    stride: int
    activation: int = 0
    #: None: unchanged.
    scale: float | None = None
    pool: Pool | None = None


class Pool(NamedTuple):
    """Max-pooling in the DMA."""

    stride: int
    size: int
    out_dim: int
    porows: int
    pocols: int
    orows: int
    ocols: int
    upad: int
    lpad: int


class ConfigExecute(NamedTuple):
    """State of the array."""

    a_stride: int = 1
    c_stride: int = 1
    a_transpose: bool = False
    b_transpose: bool = False
    activation: int = 0
    output_stationary: bool = False
    strides_only: bool = False
    shift: int = 0


class ConfigNorm(NamedTuple):
    """Constants and statistics register of the normalizer."""

    stat: int
    #: None: only the register is chosen.
    qb: int | None = None
    qc: int = 0
    qln2: int = 0
    qln2_inv: int = 0
    activation: int = 0


class Mvin(NamedTuple):
    """Memory to scratchpad or accumulator."""

    state: int
    dram: int
    local: int
    rows: int
    cols: int


class Mvout(NamedTuple):
    """Scratchpad or accumulator to memory."""

    dram: int
    local: int
    rows: int
    cols: int


class Preload(NamedTuple):
    """What stays in the array (B, or D when output-stationary), and where results go."""

    local: int
    rows: int
    cols: int
    c_local: int
    c_rows: int
    c_cols: int


class Compute(NamedTuple):
    """One pass of A through the array; `flip` takes the preloaded operand into use."""

    local: int
    rows: int
    cols: int
    flip: bool
    bd_local: int = GARBAGE
    bd_rows: int = 0
    bd_cols: int = 0


Command = ConfigLoad | ConfigStore | ConfigExecute | ConfigNorm | Mvin | Mvout | Preload | Compute
