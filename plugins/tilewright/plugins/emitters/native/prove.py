"""Proves an instruction library: every C template does what the semantics beside it say.

Each instruction is compiled and run on random operands; the semantics are executed exactly (rationals, one rounding per
operation), and every element written must agree to the last bit. Fused multiply-adds are told from multiply-then-add,
masked accesses from whole ones (words that must not change are watched), wrong lanes from right ones. Mask registers have no
portable contents, so they are made and observed by the library's own mask instructions: proven as a pair.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping
from fractions import Fraction

from tilewright.protocol.kernel import ElementType, Instruction, InstructionLibrary, InstructionOperand

from .numbers import C_TYPES, Numbers
from .semantics import InvalidInstruction, Number, Unspecified, execute, parse, round_to
from .toolchain import Ready, build_and_run
from .unify import eval_condition

TRIALS = 24
_FORMATS: Mapping[str, str] = {"f32": "f", "f64": "d", "f16": "e", "i8": "b", "u8": "B", "i16": "h", "i32": "i", "bf16": "H"}
_SCALARS = range(-2, 65)


def prove(library: InstructionLibrary, ready: Ready, numbers: Numbers) -> None:
    """Prove the instructions that a number format uses.

    Raises InvalidInstruction, with a counter-example, for the first template that disagrees with its semantics.
    """
    tested = [each for each in library.instructions if parse(each) is not None and not _makes_mask(each) and _uses(each, numbers)]
    rng = random.Random(f"{library.name} operands")  # noqa: S311 -- test data, reproducible
    trials = [(instruction, _inputs(instruction, rng)) for instruction in tested for _ in range(TRIALS)]
    sent = b"".join(_pack(instruction, values) for instruction, values in trials)
    outcome = build_and_run(ready, {"prove.c": _program(library, tested)}, ("prove.c",), sent)
    if outcome.returncode is None:
        raise InvalidInstruction(f"{library.name}: the instruction templates do not compile: {_first_error(outcome.error)}")
    if outcome.returncode:
        raise InvalidInstruction(f"{library.name}: the instruction test ended with {outcome.returncode} {outcome.error}".rstrip())
    at = 0
    for instruction, values in trials:
        written = _written(instruction)
        size = struct.calcsize(_FORMATS[written.type]) * _stored(written)
        _compare(library, ready, instruction, values, _unpack(written.type, outcome.output[at : at + size]))
        at += size


def _compare(
    library: InstructionLibrary, ready: Ready, instruction: Instruction, values: Mapping[str, list[Number] | int], results: list[Number]
) -> None:
    written = _written(instruction)
    before = values[written.name]
    assert isinstance(before, list)
    unchanged = before[written.lanes :]
    fused = [*execute(instruction, values), *unchanged]
    split = fused if ready.toolchain.fuses else [*execute(instruction, values, fuses=False), *unchanged]
    for lane, (wanted, other, got) in enumerate(zip(fused, split, results, strict=True)):
        if not isinstance(wanted, Unspecified) and got not in (wanted, other):
            shown = ", ".join(f"{name} = {_show(value)}" for name, value in values.items())
            raise InvalidInstruction(
                f"{library.name}: instruction {instruction.name!r} is refused: its template {instruction.template!r} does not do"
                f" {instruction.semantics!r}."
                f" Counter-example: {shown} gives {written.name}[{lane}] = {_show(got)}, expected {_show(wanted)}"
            )


def _show(value: list[Number] | Number) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_show, value))}]"
    return repr(float(value)) if isinstance(value, Fraction) else str(value)


def _first_error(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if "error" in line), text.strip()[:200])


def _uses(instruction: Instruction, numbers: Numbers) -> bool:
    return all(each.type in (numbers.item, numbers.result) for each in instruction.operands if each.space in ("vector", "memory"))


def _makes_mask(instruction: Instruction) -> bool:
    return _written(instruction).space == "mask"


def _written(instruction: Instruction) -> InstructionOperand:
    assign = parse(instruction)
    name = assign.target.buffer if assign else ""
    return next(operand for operand in instruction.operands if operand.name == name)


def _stored(operand: InstructionOperand) -> int:
    """Elements exchanged with the test program: one more vector for memory, which must stay as it was."""
    return 2 * operand.lanes if operand.space == "memory" and operand.access != "in" else operand.lanes


def _inputs(instruction: Instruction, rng: random.Random) -> dict[str, list[Number] | int]:
    """Random operands; a mask is what its instruction makes of a random count."""
    values: dict[str, list[Number] | int] = {}
    for operand in instruction.operands:
        if operand.space in ("scalar", "immediate"):
            values[operand.name] = rng.choice(_allowed(instruction, operand.name))
        elif operand.space == "mask":
            count = rng.randrange(operand.lanes + 1)
            values[operand.name] = [int(lane < count) for lane in range(operand.lanes)]
        else:
            values[operand.name] = [_element(operand.type, rng) for _ in range(_stored(operand))]
    return values


def _allowed(instruction: Instruction, name: str) -> list[int]:
    return [value for value in _SCALARS if all(eval_condition(each, {name: value}) for each in instruction.requires)]


def _element(kind: ElementType, rng: random.Random) -> Number:
    """Any value of an integer type; a float of moderate size with a full mantissa, so that every rounding shows."""
    if kind in ("f32", "f64", "f16", "bf16"):
        exact = rng.uniform(-2, 2)
        return Fraction(struct.unpack("<f", struct.pack("<f", exact))[0]) if kind == "f32" else _narrow(exact, kind)
    bits = struct.calcsize(_FORMATS[kind]) * 8
    return rng.randrange(2**bits) - (0 if kind == "u8" else 2 ** (bits - 1))


def _narrow(value: float, kind: ElementType) -> Fraction:
    return Fraction(round_to(Fraction(value), kind))


def _pack(instruction: Instruction, values: Mapping[str, list[Number] | int]) -> bytes:
    parts = []
    for operand in instruction.operands:
        value = values[operand.name]
        if isinstance(value, int):
            parts.append(struct.pack("<i", value))
        elif operand.space == "mask":
            parts.append(struct.pack("<i", sum(map(int, value))))
        else:
            parts.append(_to_bytes(operand.type, value))
    return b"".join(parts)


def _to_bytes(kind: ElementType, values: list[Number]) -> bytes:
    if kind == "bf16":
        return b"".join(struct.pack("<f", float(value))[2:] for value in values)
    numbers = [float(value) if kind in ("f32", "f64", "f16") else int(value) for value in values]
    return struct.pack(f"<{len(values)}{_FORMATS[kind]}", *numbers)


def _unpack(kind: ElementType, data: bytes) -> list[Number]:
    if kind == "bf16":
        return [Fraction(struct.unpack("<f", b"\0\0" + data[at : at + 2])[0]) for at in range(0, len(data), 2)]
    numbers = struct.unpack(f"<{len(data) // struct.calcsize(_FORMATS[kind])}{_FORMATS[kind]}", data)
    return [Fraction(number) if kind in ("f32", "f64", "f16") else number for number in numbers]


def _program(library: InstructionLibrary, instructions: list[Instruction]) -> str:
    headers = "\n".join(f"#include <{header}>" for header in ("stddef.h", "stdint.h", "stdio.h", "string.h", *library.headers))
    functions, calls = [], []
    for number, instruction in enumerate(instructions):
        functions.append(_function(number, instruction, library))
        calls.append(f"    for (int t = 0; t < {TRIALS}; ++t) if (test_{number}()) return 1;")
    body = "\n".join(calls)
    # Vectors of a run-time length are tested at their least.
    lanes = f"#define LANES {library.lanes['f32']}\n" if library.scalable else ""
    return f"{headers}\n{lanes}{library.preamble}\n{''.join(functions)}int main(void) {{\n{body}\n    return 0;\n}}\n"


def _function(number: int, instruction: Instruction, library: InstructionLibrary) -> str:
    """Reads the operands, applies the template, writes the result."""
    lines, after = [], []
    names: dict[str, str] = {}
    for operand in instruction.operands:
        name = names[operand.name] = f"x_{operand.name}"
        c_type = C_TYPES[operand.type]
        if operand.space in ("scalar", "immediate"):
            lines.append(f"int32_t {name}; if (fread(&{name}, 4, 1, stdin) != 1) return 1;")
        elif operand.space == "mask":
            file = library.register_file("mask")
            maker = next(each for each in library.instructions if _makes_mask(each) and _written(each).lanes == operand.lanes)
            assert file is not None
            made = maker.template.format_map({each.name: name if each.space == "mask" else f"n_{operand.name}" for each in maker.operands})
            lines.append(f"int32_t n_{operand.name}; if (fread(&n_{operand.name}, 4, 1, stdin) != 1) return 1;")
            lines.append(f"{file.c_types[operand.type]} {name}; {made}")
        else:
            count = _stored(operand)
            memory = name if operand.space == "memory" else f"m_{operand.name}"
            lines.append(f"{c_type} {memory}[{count}]; if (fread({memory}, sizeof({c_type}), {count}, stdin) != {count}) return 1;")
            if operand.space == "vector":
                file = library.register_file("vector")
                assert file is not None
                lines.append(f"{file.c_types[operand.type]} {name}; {file.fill.format(register=name, pointer=memory)}")
            if operand.name == _written(instruction).name:
                if operand.space == "vector" and file is not None:
                    after.append(file.spill.format(register=name, pointer=memory))
                after.append(f"fwrite({memory}, sizeof({c_type}), {count}, stdout);")
    lines.append(_statement(instruction, names))
    text = "\n    ".join([*lines, *after])
    return f"static int test_{number}(void) {{\n    {text}\n    return 0;\n}}\n"


def _statement(instruction: Instruction, names: Mapping[str, str]) -> str:
    """The template; one case per value of an immediate, which must be a constant in C."""
    immediate = next((operand.name for operand in instruction.operands if operand.space == "immediate"), None)
    if immediate is None:
        return instruction.template.format_map(names)
    cases = [
        f"case {value}: {{ {instruction.template.format_map({**names, immediate: str(value)})} break; }}"
        for value in _allowed(instruction, immediate)
    ]
    return f"switch ({names[immediate]}) {{ {' '.join(cases)} }}"
