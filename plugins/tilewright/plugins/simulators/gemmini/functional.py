"""Values: runs a host program on memory, scratchpad and accumulator, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tilewright.protocol.errors import InvalidInput

from . import loop_conv, loop_matmul, norm
from .check import check
from .commands import (
    ACCUMULATE,
    ACCUMULATOR,
    FULL,
    GARBAGE,
    NORM_MASK,
    NORM_SHIFT,
    ROW_MASK,
    Command,
    Compute,
    ConfigExecute,
    ConfigLoad,
    ConfigNorm,
    ConfigStore,
    Mvin,
    Mvout,
    Preload,
)
from .loop_conv import LoopConv
from .loop_matmul import IGELU, LAYERNORM, RELU, SOFTMAX, LoopMatmul, Streams
from .machine import Machine

Array = np.ndarray[Any, np.dtype[Any]]
#: Commands of the normalizer by number.
NORM_COMMANDS = ("reset", "sum", "mean", "variance", "inv_stddev", "max", "sum_exp", "inv_sum_exp")


def unroll(program: Sequence[Command | LoopMatmul | LoopConv], machine: Machine, first_half: int = 0) -> Iterator[Command]:
    """All commands in an order that the machine's hazards allow: of each loop the loads, then the steps, then the stores."""
    half, acc_half = first_half, 0
    for command in program:
        if isinstance(command, LoopMatmul):
            made = loop_matmul.streams(command, machine, half, acc_half)
            written = command.c
        elif isinstance(command, LoopConv):
            made = loop_conv.streams(command, machine, half, acc_half)
            written = command.output
        else:
            yield command
            continue
        yield from _in_order(made)
        half ^= 1
        acc_half ^= bool(written)


def _in_order(made: Streams) -> Iterator[Command]:
    yield from made.d
    yield from made.a
    yield from made.b
    for step in made.steps:
        yield step.preload
        yield step.compute
    for store in made.stores:
        yield store.command


class Values:
    """The state that commands change. `memory` is bytes, addressed from 0; `exp_as_built`: see `norm.exp`."""

    def __init__(self, machine: Machine, memory: Array, exp_as_built: bool = False) -> None:
        if machine.input_bytes != 1 or machine.accumulator_word_bytes != 4:
            raise InvalidInput(
                f"machine: {machine.input_bytes}-byte inputs, {machine.accumulator_word_bytes}-byte sums; values need 1 and 4"
            )
        self.machine = machine
        self.memory = memory
        self.scratchpad = np.zeros((machine.scratchpad_rows, machine.dim), np.int8)
        self.accumulator = np.zeros((machine.accumulator_rows, machine.dim), np.int32)
        #: Rows that something was written to: what is in the others is not known.
        self._written = {False: np.zeros(machine.scratchpad_rows, bool), True: np.zeros(machine.accumulator_rows, bool)}
        self._loads = [ConfigLoad(state, 0, machine.dim) for state in range(3)]
        self._store = ConfigStore(0)
        self._scale = np.float32(1)
        self._execute = ConfigExecute()
        self._weights = np.zeros((machine.dim, machine.dim), np.int32)
        self._preload: Preload | None = None
        self._stationary: Array | None = None
        self._constants = norm.Constants()
        self._exp_as_built = exp_as_built
        self._statistics = [norm.Statistics(exp_as_built) for _ in range(loop_matmul.STATISTICS)]
        self._stat = 0

    def run(self, program: Sequence[Command | LoopMatmul | LoopConv], first_half: int = 0) -> None:
        """Execute a program.

        Raises `InvalidInput` with index and operands of a command that the hardware does not have, that reads or writes outside of
        a memory, or that reads rows which nothing was written to.
        """
        check(program, self.machine)
        for index, command in enumerate(unroll(program, self.machine, first_half)):
            try:
                self.step(command)
            except (IndexError, ValueError) as error:
                raise InvalidInput(f"command {index}, {command}: {error}") from None
        self._flush()

    def step(self, command: Command) -> None:
        """Execute one command."""
        match command:
            case Mvin():
                self._mvin(command)
            case Preload():
                self._begin(command)
            case Compute():
                self._compute(command)
            case Mvout():
                self._mvout(command)
            case ConfigLoad():
                self._loads[command.state] = command
            case ConfigStore():
                self._store = command
                if command.scale is not None:
                    self._scale = np.float32(command.scale)
            case ConfigExecute():
                self._flush()
                self._execute = (
                    self._execute._replace(a_stride=command.a_stride, c_stride=command.c_stride) if command.strides_only else command
                )
            case ConfigNorm():
                self._stat = command.stat
                if command.qb is not None:
                    self._constants = norm.Constants(command.qb, command.qc, command.qln2 or 1, command.qln2_inv)

    def _rows(self, local: int, rows: int, stride: int = 1) -> slice:
        """Rows of a local memory, checked."""
        start, stop = local & ROW_MASK, (local & ROW_MASK) + (rows - 1) * stride + 1
        size = len(self.accumulator if local & ACCUMULATOR else self.scratchpad)
        if stop > size:
            raise IndexError(f"rows {start} to {stop - 1} of {size} in the {'accumulator' if local & ACCUMULATOR else 'scratchpad'}")
        return slice(start, stop, stride)

    def _read(self, local: int, rows: slice) -> Array:
        """Rows of a local memory that must have been written."""
        accumulator = bool(local & ACCUMULATOR)
        unknown = np.flatnonzero(~self._written[accumulator][rows])
        if len(unknown):
            row, name = rows.start + int(unknown[0]) * rows.step, "accumulator" if accumulator else "scratchpad"
            raise ValueError(f"reads row {row} of the {name}, which nothing was written to")
        return (self.accumulator if accumulator else self.scratchpad)[rows]

    def _bytes(self, address: int, count: int) -> Array:
        if address < 0 or address + count > len(self.memory):
            raise IndexError(f"bytes {address} to {address + count - 1} of a memory of {len(self.memory)}")
        return self.memory[address : address + count]

    def _mvin(self, command: Mvin) -> None:
        state, dim = self._loads[command.state], self.machine.dim
        to_accumulator = bool(command.local & ACCUMULATOR)
        wide = to_accumulator and not state.shrink
        word = 4 if wide else 1
        for row in range(command.rows):
            if command.dram:
                data = self._bytes(command.dram + row * state.stride, command.cols * word).view(np.int32 if wide else np.int8)
                if state.scale != 1.0 and not wide:
                    data = saturate(data, state.scale)
            else:
                data = np.zeros(command.cols, np.int32 if wide else np.int8)
            for block in range(0, command.cols, dim):
                part = data[block : block + dim]
                at = self._rows(command.local + row + block // dim * state.block_stride, 1).start
                if to_accumulator:
                    if command.local & ACCUMULATE:
                        target = self._read(command.local, slice(at, at + 1, 1))[0, : len(part)]
                        np.add(target, part, out=target, casting="unsafe")
                    else:
                        self.accumulator[at, : len(part)] = part
                    self._written[True][at] = True
                else:
                    self._place(at, part, state.pixel_repeats)

    def _place(self, at: int, part: Array, copies: int) -> None:
        """A row, and copies of it one row further up and one pixel further right; they stay in their half."""
        floor = 0 if at < len(self.scratchpad) // 2 else len(self.scratchpad) // 2
        for copy in range(copies):
            if at - copy >= floor:
                left = copy * len(part)
                self._written[False][at - copy] = True
                self.scratchpad[at - copy, left : left + len(part)] = part[: self.machine.dim - left]

    def _block(self, local: int, rows: int, cols: int, stride: int = 1) -> Array:
        """A block as int32; zeros for garbage."""
        if local == GARBAGE:
            return np.zeros((rows, cols), np.int32)
        block = self._read(local, self._rows(local, rows, stride))[:, :cols]
        return saturate(block, 1.0).astype(np.int32) if local & ACCUMULATOR else block.astype(np.int32)

    def _begin(self, command: Preload) -> None:
        if self._execute.output_stationary:
            self._flush()
            self._stationary = np.zeros((self.machine.dim, self.machine.dim), np.int32)
            if command.local != GARBAGE:
                self._stationary[: command.rows, : command.cols] = self._block(command.local, command.rows, command.cols)
        elif command.local != GARBAGE:
            turned = self._execute.b_transpose
            rows, cols = (command.cols, command.rows) if turned else (command.rows, command.cols)
            block = self._block(command.local, rows, cols)
            self._weights = np.zeros_like(self._weights)
            self._weights[: command.rows, : command.cols] = block.T if turned else block
        self._preload = command

    def _compute(self, command: Compute) -> None:
        target = self._preload
        if target is None:
            raise ValueError("nothing was preloaded")
        turned = self._execute.a_transpose
        rows, cols = (command.cols, command.rows) if turned else (command.rows, command.cols)
        a = self._block(command.local, rows, cols, self._execute.a_stride)
        a = a.T if turned else a
        if self._execute.output_stationary:
            assert self._stationary is not None
            b = self._block(command.bd_local, command.bd_rows, command.bd_cols)
            self._stationary[: len(a), : b.shape[1]] += a[:, : len(b)] @ b
            return
        out = a @ self._weights[: a.shape[1]]
        if command.bd_local != GARBAGE:
            out[: command.bd_rows, : command.bd_cols] += self._block(command.bd_local, command.bd_rows, command.bd_cols)
        self._write(target, out)

    def _flush(self) -> None:
        """Results that stayed in the array leave it."""
        if self._stationary is not None and self._preload is not None:
            result = self._stationary
            if self._execute.shift:
                result = np.rint(result / np.float64(1 << self._execute.shift)).astype(np.int32)
            self._write(self._preload, result)
        self._stationary = None

    def _write(self, target: Preload, result: Array) -> None:
        if target.c_local == GARBAGE:
            return
        rows = self._rows(target.c_local, target.c_rows, self._execute.c_stride)
        part = result[: target.c_rows, : target.c_cols]
        if not target.c_local & ACCUMULATOR:
            part = np.clip(np.maximum(part, 0) if self._execute.activation == RELU else part, -128, 127)
            self.scratchpad[rows, : target.c_cols] = part
        elif target.c_local & ACCUMULATE:
            self._read(target.c_local, rows)
            self.accumulator[rows, : target.c_cols] += part
        else:
            self.accumulator[rows, : target.c_cols] = part
        self._written[bool(target.c_local & ACCUMULATOR)][rows] = True

    def _mvout(self, command: Mvout) -> None:
        dim, store = self.machine.dim, self._store
        if store.pool is not None:
            self._pooled(command)
            return
        name = NORM_COMMANDS[(command.local & NORM_MASK) >> NORM_SHIFT]
        local = command.local & ~NORM_MASK
        for row in range(command.rows):
            parts = [self._row(local + row + block // dim * dim, min(dim, command.cols - block)) for block in range(0, command.cols, dim)]
            if name != "reset":
                self._statistics[self._stat].add(name, np.concatenate(parts).astype(np.int64), self._constants)
                continue
            data = np.concatenate([self._finish(part, local) for part in parts])
            self._bytes(command.dram + row * store.stride, data.nbytes)[:] = data.view(np.uint8)

    def _row(self, local: int, cols: int) -> Array:
        row: Array = self._read(local, self._rows(local, 1))[0, :cols]
        return row

    def _finish(self, values: Array, local: int) -> Array:
        """Activation, scale and saturation of the accumulator's read path; the scratchpad's rows leave as they are."""
        if not local & ACCUMULATOR or local & FULL:
            return np.ascontiguousarray(values)
        wide, scale, stat = values.astype(np.int64), self._scale, self._statistics[self._stat]
        match self._store.activation:
            case 1:
                wide = np.maximum(wide, 0)
            case x if x == IGELU:
                wide = norm.gelu(wide, self._constants)
            case x if x == LAYERNORM:
                wide, scale = wide - stat.mean, stat.inverse
            case x if x == SOFTMAX:
                wide, scale = norm.exp(wide - stat.maximum, self._constants, self._exp_as_built), stat.inverse
        return saturate(wide, scale)

    def _pooled(self, command: Mvout) -> None:
        pool = self._store.pool
        assert pool is not None
        for row in range(pool.porows):
            for col in range(pool.pocols):
                best: Array | None = None
                for window in range(pool.size * pool.size):
                    y = row * pool.stride + window // pool.size - pool.upad
                    x = col * pool.stride + window % pool.size - pool.lpad
                    value = np.zeros(command.cols, np.int8)
                    if 0 <= y < pool.orows and 0 <= x < pool.ocols:
                        value = self._finish(self._row(command.local + y * pool.ocols + x, command.cols), command.local)
                    best = value if best is None else np.maximum(best, value)
                assert best is not None
                self._bytes(command.dram + (row * pool.out_dim + col) * self._store.stride, command.cols)[:] = best.view(np.uint8)


def saturate(values: Array, scale: float | np.floating[Any]) -> Array:
    """``int8(round(float32(values) * scale))``, ties to even, as the hardware's single-precision units do it."""
    product = values.astype(np.float32) * np.float32(scale)
    clipped: Array = np.clip(np.rint(product), -128, 127).astype(np.int8)
    return clipped
