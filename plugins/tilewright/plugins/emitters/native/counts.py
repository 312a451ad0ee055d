"""What one step of depth of a register tile takes: instructions by name, and vector registers."""

from __future__ import annotations

from collections import Counter

from tilewright.protocol.kernel import InstructionLibrary

from .nest import Call, For
from .numbers import Numbers
from .schedule import Tile, registers, schedule


def per_step(tile: Tile, library: InstructionLibrary, numbers: Numbers) -> dict[str, int]:
    """Instruction -> how often the loop over depth issues it, in order of appearance. Prefetches count as instructions."""
    *_, (_, nest) = schedule(tile, library, numbers)
    (loop,) = [statement for statement in nest.body if isinstance(statement, For)]
    return dict(Counter(call.instruction.name for call in loop.body if isinstance(call, Call)))


def report(tile: Tile, library: InstructionLibrary, numbers: Numbers) -> str:
    """Register pressure and instruction counts, in words."""
    file = library.register_file("vector")
    results, operands = registers(tile, library, numbers)
    counted = ", ".join(f"{count} {name}" for name, count in per_step(tile, library, numbers).items())
    return (
        f"vector registers: {results} for C and {operands} for operands of {file.count if file else 0}\n"
        f"per step of {numbers.group} in depth: {counted}"
    )
