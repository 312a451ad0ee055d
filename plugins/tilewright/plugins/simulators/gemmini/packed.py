"""Programs as tables of numbers, for the engine in C: every kind of loop is unrolled once, at addresses that the engine moves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from . import loop_conv, loop_matmul
from .commands import Command, Compute, ConfigExecute, ConfigLoad, ConfigNorm, ConfigStore, Mvin, Mvout, Preload
from .loop_conv import LoopConv
from .loop_matmul import LoopMatmul, Streams
from .machine import Machine

Array = np.ndarray[Any, np.dtype[np.int64]]
#: Columns of a table of commands; the first of the two that say how much must have been sent before.
WIDTH, NEED = 14, 12
#: Where operands of an unrolled loop lie, and the offset that stands for zeros.
BASE, NOTHING = 1 << 40, -(1 << 63)
KINDS = {kind: code for code, kind in enumerate((ConfigLoad, ConfigStore, ConfigExecute, ConfigNorm, Mvin, Mvout, Preload, Compute))}


class Template(NamedTuple):
    """Streams of a loop, one after the other: A, B, D, steps, stores."""

    table: Array
    sizes: tuple[int, ...]
    conv: bool


class Packed(NamedTuple):
    """A program: commands, templates (first command of each stream, sizes, whether a convolution), items of the host."""

    table: Array
    templates: Array
    items: Array
    #: Commands and loops, all told.
    total: int


def pack(program: Sequence[Command | LoopMatmul | LoopConv], machine: Machine, first_half: int = 0) -> Packed:
    """Pack a host program; loops of one kind share their template."""
    half, acc_half, shape = first_half, 0, _shape(machine)
    tables: list[Array] = []
    rows = count = 0
    known: dict[int, int] = {}
    templates: list[tuple[int, ...]] = []
    items: list[tuple[int, ...]] = []
    direct: list[tuple[int, ...]] = []
    for command in program:
        if not isinstance(command, LoopMatmul | LoopConv):
            items.append((-1, len(direct), 0, 0, 0, 0))
            direct.append(row_of(command))
            count += 1
            continue
        made = template(_moved(command), shape, half, acc_half)
        if id(made) not in known:
            known[id(made)] = len(templates)
            starts = np.cumsum((rows, *made.sizes))
            templates.append((*starts[:5].tolist(), *made.sizes, int(made.conv)))
            tables.append(made.table)
            rows += len(made.table)
        count += sum(made.sizes) + 1
        items.append((known[id(made)], 0, *_operands(command)))
        half ^= 1
        acc_half ^= bool(_operands(command)[3])
    whole = np.array(items, np.int64).reshape(-1, 6)
    whole[whole[:, 0] < 0, 1] += rows
    tables.append(np.array(direct, np.int64).reshape(-1, WIDTH))
    return Packed(np.concatenate(tables), np.array(templates, np.int64).reshape(-1, 11), whole, count)


def _operands(loop: LoopMatmul | LoopConv) -> tuple[int, int, int, int]:
    """Addresses of A, B, D and C."""
    if isinstance(loop, LoopMatmul):
        return loop.a, loop.b, loop.d, loop.c
    return loop.input, loop.weights, loop.bias, loop.output


def _moved(loop: LoopMatmul | LoopConv) -> LoopMatmul | LoopConv:
    """The loop with each operand that it has at `BASE`."""
    a, b, d, c = (BASE if address else 0 for address in _operands(loop))
    if isinstance(loop, LoopMatmul):
        return loop._replace(a=a, b=b, d=d, c=c)
    return loop._replace(input=a, weights=b, bias=d, output=c)


def _shape(machine: Machine) -> Machine:
    """A machine of the same sizes: all that streams depend on."""
    return Machine(
        dim=machine.dim,
        scratchpad_bytes=machine.scratchpad_bytes,
        accumulator_bytes=machine.accumulator_bytes,
        input_bytes=machine.input_bytes,
        accumulator_word_bytes=machine.accumulator_word_bytes,
        request_bytes=machine.request_bytes,
    )


@lru_cache(maxsize=128)
def template(loop: LoopMatmul | LoopConv, machine: Machine, half: int, acc_half: int) -> Template:
    """The streams of a loop; addresses are offsets."""
    made = (loop_conv if isinstance(loop, LoopConv) else loop_matmul).streams(loop, machine, half, acc_half)
    sizes = (len(made.a), len(made.b), len(made.d), 2 * len(made.steps), len(made.stores))
    table = np.array(_rows(made), np.int64).reshape(-1, WIDTH)
    for kind, column in ((Mvin, 2), (Mvout, 1)):
        moves = table[:, 0] == KINDS[kind]
        table[moves, column] = np.where(table[moves, column] == 0, NOTHING, table[moves, column] - BASE)
    return Template(table, sizes, isinstance(loop, LoopConv))


def _rows(made: Streams) -> list[tuple[int, ...]]:
    rows = []
    for stream, depths in ((made.a, made.a_k), (made.b, made.b_k), (made.d, [])):
        rows += [row_of(command, depths[at] if depths else 0) for at, command in enumerate(stream)]
    for step in made.steps:
        rows += [row_of(step.preload, step.need_a, step.need_b), row_of(step.compute, step.need_a, step.need_b)]
    return rows + [row_of(store.command, store.need) for store in made.stores]


def row_of(command: Command, need: int = 0, more: int = 0) -> tuple[int, ...]:
    """A row of a table: the kind, what timing depends on, what must have been sent before."""
    match command:
        case ConfigLoad():
            fields: tuple[int, ...] = (command.state, command.stride, command.block_stride, command.shrink, command.pixel_repeats)
        case ConfigStore():
            fields = (command.stride, command.pool is not None, *(command.pool or ()))
        case ConfigExecute():
            fields = (command.a_stride, command.c_stride, command.a_transpose, command.b_transpose, command.strides_only)
        case ConfigNorm():
            fields = ()
        case _:
            fields = command
    return (KINDS[type(command)], *fields, *(0,) * (NEED - 1 - len(fields)), need, more)


def machine_words(machine: Machine) -> Array:
    """The machine as the engine takes it."""
    memory = machine.memory
    return np.array(
        (
            machine.dim, machine.scratchpad_rows, machine.scratchpad_banks, machine.single_ported, machine.accumulator_rows,
            machine.accumulator_banks, machine.input_bytes, machine.accumulator_word_bytes, machine.load_entries, machine.execute_entries,
            machine.store_entries, machine.loops, machine.in_flight, machine.loads_in_flight, machine.bus_bytes, machine.request_bytes,
            machine.scratchpad_read_delay, machine.mesh_output_delay, machine.accumulator_scale_latency, machine.reads_accumulator,
            machine.command_interval, memory.latency, memory.cache_bytes, memory.cache_ways, memory.line_bytes, memory.miss_latency,
            memory.tlb_entries, memory.tlb_miss_latency, memory.page_bytes,
        ),
        np.int64,
    )  # fmt: skip
