"""Instructions as a RoCC accelerator receives them: a function number and two 64-bit operands (encoding of gemmini-rocc-tests 180c468).

A program in bytes is a sequence of 17-byte records: function, operand 1, operand 2, little endian. Addresses are those of
`lowering`: whoever runs it elsewhere relocates it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tilewright.protocol.errors import InvalidInput

from .commands import Command, Compute, ConfigExecute, ConfigLoad, ConfigNorm, ConfigStore, Mvin, Mvout, Pool, Preload
from .loop_conv import LoopConv
from .loop_matmul import LoopMatmul

RECORD = struct.Struct("<BQQ")
CONFIG, MVIN2, MVIN, MVOUT, FLIP, STAY, PRELOAD, LOOP_WS, LOOP_CONV, MVIN3 = 0, 1, 2, 3, 4, 5, 6, 8, 15, 14
LOADS = (MVIN, MVIN2, MVIN3)
#: Flush of the TLB, clock gating, counters: they change no value, and no cycle of a program from an idle machine.
SILENT = (7, 22, 126)
EX, LD, ST, NORM = range(4)
#: An accumulator scale of all ones leaves the scale as it is.
UNCHANGED = 0xFFFFFFFF


class Instruction(NamedTuple):
    """One custom instruction."""

    function: int
    rs1: int
    rs2: int


def bits_of(value: float) -> int:
    """A float32 as an integer."""
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


def float_of(bits: int) -> float:
    """The float32 with these bits."""
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])


def pack(*fields: tuple[int, int]) -> int:
    """An operand from (value, lowest bit) pairs; negative values are those of 32 bits."""
    word = 0
    for value, shift in fields:
        word |= (int(value) & 0xFFFFFFFF if value < 0 else int(value)) << shift
    return word


def encode(program: Sequence[Command | LoopMatmul | LoopConv]) -> bytes:
    """A host program as bytes."""
    return b"".join(RECORD.pack(*instruction) for command in program for instruction in instructions(command))


def instructions(command: Command | LoopMatmul | LoopConv) -> Iterator[Instruction]:
    """What the host issues for a command."""
    match command:
        case LoopMatmul():
            yield from _loop_matmul(command)
        case LoopConv():
            yield from _loop_conv(command)
        case ConfigLoad():
            fields = ((LD, 0), (command.shrink, 2), (command.state, 3), (command.pixel_repeats, 8), (command.block_stride, 16))
            yield Instruction(CONFIG, pack(*fields, (bits_of(command.scale), 32)), command.stride)
        case ConfigStore():
            pool = command.pool or Pool(0, 0, 0, 0, 0, 0, 0, 0, 0)
            rs1 = pack(
                (ST, 0), (command.activation & 3, 2), (pool.stride, 4), (pool.size, 6), (pool.upad, 8), (pool.lpad, 10), (pool.out_dim, 24),
                (pool.porows, 32), (pool.pocols, 40), (pool.orows, 48), (pool.ocols, 56),
            )  # fmt: skip
            scale = UNCHANGED if command.scale is None else bits_of(command.scale)
            yield Instruction(CONFIG, rs1, pack((command.stride, 0), (scale, 32)))
        case ConfigExecute():
            rs1 = pack(
                (EX, 0), (not command.output_stationary, 2), (command.activation, 3), (command.strides_only, 7), (command.a_transpose, 8),
                (command.b_transpose, 9), (command.a_stride, 16), (bits_of(1.0), 32),
            )  # fmt: skip
            yield Instruction(CONFIG, rs1, pack((command.shift, 0), (command.c_stride, 48)))
        case ConfigNorm():
            yield from _norm(command)
        case Mvin():
            yield Instruction(LOADS[command.state], command.dram, pack((command.local, 0), (command.cols, 32), (command.rows, 48)))
        case Mvout():
            yield Instruction(MVOUT, command.dram, pack((command.local, 0), (command.cols, 32), (command.rows, 48)))
        case Preload():
            rs1 = pack((command.local, 0), (command.cols, 32), (command.rows, 48))
            yield Instruction(PRELOAD, rs1, pack((command.c_local, 0), (command.c_cols, 32), (command.c_rows, 48)))
        case Compute():
            rs1 = pack((command.local, 0), (command.cols, 32), (command.rows, 48))
            rs2 = pack((command.bd_local, 0), (command.bd_cols, 32), (command.bd_rows, 48))
            yield Instruction(FLIP if command.flip else STAY, rs1, rs2)


def _norm(command: ConfigNorm) -> Iterator[Instruction]:
    """Constants come in two instructions: one carries ln 2, the other its inverse."""
    if command.qb is None:
        yield Instruction(CONFIG, pack((NORM, 0), (1, 17), (command.stat, 8)), 0)
        return
    constants = pack((command.qb, 0), (command.qc, 32))
    for kind, constant in enumerate((command.qln2, command.qln2_inv)):
        rs1 = pack((NORM, 0), (command.stat, 8), (kind, 18), (command.activation >> 2, 16), (constant, 32))
        yield Instruction(CONFIG, rs1, constants)


def _loop_matmul(loop: LoopMatmul) -> Iterator[Instruction]:
    yield Instruction(9, pack((loop.pad_i, 0), (loop.pad_j, 16), (loop.pad_k, 32)), pack((loop.i, 0), (loop.j, 16), (loop.k, 32)))
    yield Instruction(10, loop.a, loop.b)
    yield Instruction(11, loop.d, loop.c)
    yield Instruction(12, loop.a_stride, loop.b_stride)
    yield Instruction(13, loop.d_stride, loop.c_stride)
    rs1 = pack(
        (loop.accumulate, 0), (loop.full_c, 1), (loop.low_d, 2), (loop.activation, 8), (loop.b_half, 16), (loop.a_half, 18)
    )  # fmt: skip
    yield Instruction(LOOP_WS, rs1, pack((loop.a_transpose, 0), (loop.b_transpose, 1), (loop.resadd, 2)))


def _loop_conv(loop: LoopConv) -> Iterator[Instruction]:
    pool = loop.pool or Pool(1, 1, loop.out_cols, loop.orows, loop.ocols, loop.orows, loop.ocols, 0, 0)
    pool_rows = loop.pool_out_rows if loop.pool else loop.out_rows
    yield Instruction(
        16,
        pack((loop.batches, 0), (loop.in_rows, 16), (loop.in_channels, 32), (loop.out_stride, 48)),
        pack((loop.out_rows, 0), (pool_rows, 16), (loop.out_cols, 32), (loop.stride, 48)),
    )
    yield Instruction(
        17,
        pack((pool.stride, 8), (pool.size, 16), (pool.out_dim, 32), (loop.kernel, 48)),
        pack((loop.ochs, 0), (pool.pocols, 16), (pool.porows, 32), (loop.batches, 48)),
    )
    yield Instruction(
        18,
        pack((loop.lpad, 0), (loop.kchs, 16), (loop.kcols, 32), (loop.krows, 48)),
        pack((loop.in_cols, 0), (pool.lpad, 16), (loop.dpad, 24), (loop.upad, 32), (loop.rpad, 48)),
    )
    yield Instruction(
        19,
        pack((loop.dilation, 0), (pool.upad, 21), (loop.orows, 48)),
        pack((loop.ocols, 0), (loop.out_stride, 16), (loop.weight_stride, 32), (loop.in_stride, 48)),
    )
    yield Instruction(20, loop.weights, loop.output)
    yield Instruction(21, loop.bias, loop.input)
    yield Instruction(
        LOOP_CONV,
        pack((loop.no_bias, 0), (loop.pixels, 8), (loop.b_half, 16), (loop.a_half, 18)),
        pack((loop.pool is None, 0), (loop.downsample, 1), (loop.activation, 3)),
    )


def decode(data: bytes) -> list[Command | LoopMatmul | LoopConv]:
    """The host program of some bytes, without what is `SILENT`; `InvalidInput` names what is no instruction, and where."""
    if len(data) % RECORD.size:
        raise InvalidInput(f"program: {len(data)} bytes, expected a multiple of {RECORD.size}")
    made: list[Command | LoopMatmul | LoopConv] = []
    parts: list[Instruction] = []
    for index, record in enumerate(RECORD.iter_unpack(data)):
        instruction = Instruction(*record)
        if instruction.function in SILENT:
            continue
        if 9 <= instruction.function <= 13 or 16 <= instruction.function <= 21:
            parts.append(instruction)
            continue
        if instruction.function in (LOOP_WS, LOOP_CONV):
            first, count = (9, 5) if instruction.function == LOOP_WS else (16, 6)
            if [part.function for part in parts] != list(range(first, first + count)):
                raise InvalidInput(f"program: instruction {index} starts a loop after {[part.function for part in parts]}")
            made.append(_matmul_of(parts, instruction) if instruction.function == LOOP_WS else _conv_of(parts, instruction))
            parts = []
            continue
        command = _command(instruction)
        if command is None:
            raise InvalidInput(f"program: instruction {index}, function {instruction.function}, rs1 {instruction.rs1:#x}, is unknown")
        last = made[-1] if made else None
        if isinstance(command, ConfigNorm) and isinstance(last, ConfigNorm) and command.qln2_inv:
            made[-1] = last._replace(qln2_inv=command.qln2_inv)
        else:
            made.append(command)
    return made


def field(word: int, shift: int, width: int) -> int:
    """Bits of an operand."""
    return word >> shift & (1 << width) - 1


def signed(value: int) -> int:
    """32 bits as a signed integer."""
    return value - (1 << 32) if value >> 31 else value


def _block(word: int) -> tuple[int, int, int]:
    """Local address, rows, columns."""
    return field(word, 0, 32), field(word, 48, 16), field(word, 32, 16)


def _command(it: Instruction) -> Command | None:
    if it.function in LOADS:
        return Mvin(LOADS.index(it.function), it.rs1, *_block(it.rs2))
    if it.function == MVOUT:
        return Mvout(it.rs1, *_block(it.rs2))
    if it.function == PRELOAD:
        return Preload(*_block(it.rs1), *_block(it.rs2))
    if it.function in (FLIP, STAY):
        return Compute(*_block(it.rs1), it.function == FLIP, *_block(it.rs2))
    return _config(it) if it.function == CONFIG else None


def _config(it: Instruction) -> Command:
    kind, rs1, rs2 = it.rs1 & 3, it.rs1, it.rs2
    if kind == LD:
        scale = float_of(field(rs1, 32, 32))
        return ConfigLoad(field(rs1, 3, 2), rs2, field(rs1, 16, 16), scale, bool(field(rs1, 2, 1)), field(rs1, 8, 8))
    if kind == ST:
        scale = field(rs2, 32, 32)
        shape = [
            field(rs1, shift, width) for shift, width in ((4, 2), (6, 2), (24, 8), (32, 8), (40, 8), (48, 8), (56, 8), (8, 2), (10, 2))
        ]
        pool = Pool(*shape) if shape[0] else None
        return ConfigStore(field(rs2, 0, 32), field(rs1, 2, 2), None if scale == UNCHANGED else float_of(scale), pool)
    if kind == NORM:
        if field(rs1, 17, 1):
            return ConfigNorm(field(rs1, 8, 8))
        constant = signed(field(rs1, 32, 32))
        first = field(rs1, 18, 1) == 0
        return ConfigNorm(
            field(rs1, 8, 8), signed(field(rs2, 0, 32)), signed(field(rs2, 32, 32)), constant if first else 0, 0 if first else constant,
            field(rs1, 16, 1) << 2,
        )  # fmt: skip
    return ConfigExecute(
        field(rs1, 16, 16), field(rs2, 48, 16), bool(field(rs1, 8, 1)), bool(field(rs1, 9, 1)), field(rs1, 3, 2),
        not field(rs1, 2, 1), bool(field(rs1, 7, 1)), field(rs2, 0, 32),
    )  # fmt: skip


def _matmul_of(parts: list[Instruction], run: Instruction) -> LoopMatmul:
    bounds, ab, dc, strides, more = parts
    i, j, k = (field(bounds.rs2, shift, 16) for shift in (0, 16, 32))
    pad_i, pad_j, pad_k = (field(bounds.rs1, shift, 16) for shift in (0, 16, 32))
    a_transpose, b_transpose, resadd = (bool(field(run.rs2, at, 1)) for at in range(3))
    return LoopMatmul(
        i, j, k, pad_i, pad_j, pad_k, ab.rs1, ab.rs2, dc.rs1, dc.rs2, strides.rs1, strides.rs2, more.rs1, more.rs2,
        a_transpose, b_transpose, bool(field(run.rs1, 1, 1)), bool(field(run.rs1, 2, 1)), bool(run.rs1 & 1), field(run.rs1, 8, 8),
        field(run.rs1, 18, 2), field(run.rs1, 16, 2), resadd,
    )  # fmt: skip


def _conv_of(parts: list[Instruction], run: Instruction) -> LoopConv:
    one, two, three, four, five, six = parts
    pooled = not run.rs2 & 1
    rows, cols = field(four.rs1, 48, 16), field(four.rs2, 0, 16)
    pool = Pool(
        field(two.rs1, 8, 8), field(two.rs1, 16, 16), field(two.rs1, 32, 16), field(two.rs2, 32, 16), field(two.rs2, 16, 16), rows, cols,
        field(four.rs1, 21, 11), field(three.rs2, 16, 8),
    )  # fmt: skip
    return LoopConv(
        field(one.rs1, 16, 16), field(three.rs2, 0, 16), field(four.rs2, 48, 16), field(one.rs2, 0, 16), field(one.rs2, 32, 16),
        field(four.rs2, 16, 16), field(four.rs2, 32, 16), field(one.rs1, 32, 16), field(two.rs1, 48, 16), field(one.rs2, 48, 8),
        field(four.rs1, 0, 10), field(two.rs2, 48, 16), rows, cols, field(two.rs2, 0, 16), field(three.rs1, 48, 16),
        field(three.rs1, 32, 16), field(three.rs1, 16, 16), field(three.rs1, 0, 16), field(three.rs2, 48, 16), field(three.rs2, 32, 16),
        field(three.rs2, 24, 8), six.rs2, five.rs1, six.rs1, five.rs2, bool(run.rs1 & 1), bool(field(run.rs2, 1, 1)),
        field(run.rs1, 8, 8), field(run.rs2, 3, 3), pool if pooled else None, field(one.rs2, 16, 16) if pooled else 0,
        field(run.rs1, 18, 2), field(run.rs1, 16, 2),
    )  # fmt: skip
