"""A mapping as a loop nest with a column per operand that names the memory which holds it."""

from __future__ import annotations

from rich.table import Table

from tilewright.protocol.mapping import Loop, Mapping
from tilewright.protocol.workload import Operator

from . import tables


def loop_nest(operator: Operator, mapping: Mapping) -> Table:
    """One row per loop, outermost first.

    A cell names the memory whose tile of the operand the loop steps through: the innermost one at or outside of the loop that keeps it.
    It is in brackets where the loop leaves the operand alone, so that what is there is used again (or, spatially, shared).
    """
    names = [tensor.name for tensor in operator.tensors]
    made = tables.table("loop", "level", *names, title="Loops, outermost first; (in brackets): the loop reuses what is there")
    relevant = {tensor.name: set(tensor.dims) for tensor in operator.tensors}
    depth = 0
    for index in reversed(range(len(mapping.levels))):
        level = mapping.levels[index]
        holds = {name: _holder(mapping, index, name) for name in names}
        for kind, loops in (("for", level.temporal), ("parallel-for", level.spatial)):
            for loop in reversed(loops):
                if loop.factor > 1:
                    cells = (holds[name] if loop.dim in relevant[name] else f"({holds[name]})" for name in names)
                    made.add_row("  " * depth + _words(kind, loop), level.level, *cells)
                    depth += 1
    return made


def _holder(mapping: Mapping, index: int, tensor: str) -> str:
    """The innermost level at or outside of `index` that keeps a tensor."""
    return next((level.level for level in mapping.levels[index:] if tensor in level.keep), "-")


def _words(kind: str, loop: Loop) -> str:
    return f"{kind} {loop.dim} in {'~' if loop.ragged else ''}{loop.factor}" + (f" ({loop.axis})" if kind == "parallel-for" else "")
