"""What is wrong with a program before it runs: sizes, addresses and states that the hardware does not have."""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.protocol.errors import InvalidInput

from . import loop_conv
from .commands import ACCUMULATOR, GARBAGE, ROW_MASK, Command, Compute, ConfigExecute, ConfigLoad, Mvin, Mvout, Preload
from .loop_conv import LoopConv
from .loop_matmul import LoopMatmul
from .machine import Machine


def check(program: Sequence[Command | LoopMatmul | LoopConv], machine: Machine) -> None:
    """Raise `InvalidInput` with the index of the first command that cannot be, its operands, and why."""
    block_strides = [machine.dim] * 3
    pooled = False
    for index, command in enumerate(program):
        if isinstance(command, ConfigLoad) and 0 <= command.state < len(block_strides):
            block_strides[command.state] = command.block_stride
        pooled = getattr(command, "pool", None) is not None if not isinstance(command, Mvout) else pooled
        why = _why(command, machine, block_strides, pooled)
        if why:
            raise InvalidInput(f"command {index}, {command}: {why}")


def _why(command: Command | LoopMatmul | LoopConv, machine: Machine, block_strides: list[int], pooled: bool) -> str:
    """What is wrong with a command; empty when nothing is."""
    dim, wide = machine.dim, machine.dim * machine.block_columns
    match command:
        case Mvin():
            if not 0 <= command.state < len(block_strides):
                return f"load state {command.state}, expected 0 to 2"
            span = (-(-command.cols // dim) - 1) * block_strides[command.state] + command.rows
            return _size(command.rows, command.cols, dim, wide) or _inside(command.local, span, machine)
        case Mvout():
            if pooled:
                return _inside(command.local, 1, machine)
            span = (-(-command.cols // dim) - 1) * dim + command.rows
            return _size(command.rows, command.cols, dim, wide) or _inside(command.local, span, machine)
        case Preload():
            return (
                _size(command.rows, command.cols, dim, dim)
                or _size(command.c_rows, command.c_cols, dim, dim)
                or _optional(command.local, command.rows, machine)
                or _optional(command.c_local, command.c_rows, machine)
            )
        case Compute():
            return (
                _size(command.rows, command.cols, dim, dim)
                or _optional(command.local, command.rows, machine)
                or _optional(command.bd_local, command.bd_rows, machine)
            )
        case ConfigExecute():
            both = command.a_transpose and command.b_transpose and not command.output_stationary
            return "A and B transposed, but there is one transposer" if both and not command.strides_only else ""
        case ConfigLoad():
            return "" if 0 <= command.state < len(block_strides) else f"load state {command.state}, expected 0 to 2"
        case LoopMatmul():
            return _matmul(command, machine)
        case LoopConv():
            return _conv(command, machine)
    return ""


def _size(rows: int, cols: int, most_rows: int, most_cols: int) -> str:
    if not (0 < rows <= most_rows and 0 < cols <= most_cols):
        return f"{rows} x {cols} elements, expected 1 x 1 to {most_rows} x {most_cols}"
    return ""


def _inside(local: int, rows: int, machine: Machine) -> str:
    if local == GARBAGE:
        return "the garbage address holds nothing that could be moved"
    row = local & ROW_MASK
    name, size = ("accumulator", machine.accumulator_rows) if local & ACCUMULATOR else ("scratchpad", machine.scratchpad_rows)
    return f"rows {row} to {row + rows - 1} of the {name}, which has {size}" if row + rows > size else ""


def _optional(local: int, rows: int, machine: Machine) -> str:
    return "" if local == GARBAGE else _inside(local, rows, machine)


def _matmul(loop: LoopMatmul, machine: Machine) -> str:
    dim = machine.dim
    if loop.a_transpose and loop.b_transpose:
        return "A and B transposed, but there is one transposer"
    if min(loop.i, loop.j, loop.k + loop.resadd) < 1:
        return f"{loop.i} x {loop.j} x {loop.k} blocks, expected at least one of each"
    operands = 0 if loop.resadd else (loop.i + loop.j) * loop.k * dim
    return _halves(operands, loop.i * loop.j * dim, machine)


def _conv(loop: LoopConv, machine: Machine) -> str:
    if min(loop.batches, loop.orows, loop.ocols, loop.ochs, loop.krows, loop.kcols, loop.kchs) < 1:
        return "a tile without elements"
    size, dim = loop_conv.sizes(loop), machine.dim
    operands = -(-loop.kchs // dim) * size.plane + -(-loop.ochs // dim) * size.taps
    return _halves(operands, -(-loop.ochs // dim) * size.results, machine)


def _halves(operands: int, results: int, machine: Machine) -> str:
    """A loop works in one half of each memory: the other one holds the next loop's tile."""
    for name, used, rows in (("scratchpad", operands, machine.scratchpad_rows), ("accumulator", results, machine.accumulator_rows)):
        if used > rows // 2:
            return f"the tile takes {used} rows of the {name}, of which a loop has half, {rows // 2}"
    return ""
