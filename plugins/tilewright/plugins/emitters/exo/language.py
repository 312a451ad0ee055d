"""A target's instructions in the Exo language: procedures whose body is the semantics, and a memory of vector registers."""

from __future__ import annotations

import importlib
import linecache
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tilewright.protocol.errors import TilewrightError
from tilewright.protocol.kernel import Instruction, InstructionLibrary

#: Our fused multiply-add in a semantics, and Exo's words for it.
_FMA = re.compile(r"(\w+)\[i\] = fma\((\w+)\[(\w+)\], (\w+)\[(\w+)\], \1\[i\]\)")
_COPY = re.compile(r"(\w+)\[i\] = (\w+)\[(i|0)\]")


class NotInstalled(TilewrightError):
    """exo-lang is not there."""


def exo() -> Any:
    """The exo package; NotInstalled says how to get it."""
    try:
        return importlib.import_module("exo")
    except ImportError as error:
        raise NotInstalled("emitter 'exo' needs exo-lang, which is not installed: pip install 'tilewright[exo]'") from error


@dataclass(frozen=True)
class Language:
    """A target's words in Exo: its instructions by role (``load, store, broadcast, fma, fma_lane``) and its register memory."""

    instructions: Mapping[str, Any]
    registers: Any
    lanes: int

    @property
    def by_lane(self) -> bool:
        """A multiply-add takes one lane of a register."""
        return "fma_lane" in self.instructions


def language(library: InstructionLibrary) -> Language:
    """What a whole f32 tile uses. Every memory operand of more than one word states its unit stride."""
    memory = _memory(library)
    chosen: dict[str, Instruction] = {}
    for each in library.instructions:
        if role := _role(each):
            chosen.setdefault(role, each)
    text = "\n".join(_text(role, each) for role, each in chosen.items())
    return Language(define(text, {"VEC": memory}, f"<{library.name} in Exo>"), memory, library.lanes["f32"])


def define(text: str, more: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The Exo procedures of a text. Exo reads their source, which is therefore kept where `inspect` looks for it."""
    package = exo()
    scope: dict[str, Any] = {"proc": package.proc, "instr": package.instr, "DRAM": package.DRAM, **more}
    source = f"from __future__ import annotations\n{text}"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec"), scope)  # noqa: S102 -- text made from an installed target's instructions
    return {key: value for key, value in scope.items() if isinstance(value, package.API.Procedure)}


def _role(instruction: Instruction) -> str:
    """What an instruction is for; empty for those that a whole f32 tile does not use."""
    spaces = {operand.name: operand.space for operand in instruction.operands}
    if {operand.type for operand in instruction.operands if operand.space in ("vector", "memory")} != {"f32"}:
        return ""
    if found := _FMA.fullmatch(instruction.semantics):
        acc, a, a_at, b, b_at = found.groups()
        vectors = all(spaces[name] == "vector" for name in (acc, a, b))
        return ("fma" if a_at == b_at == "i" else "fma_lane" if spaces.get(a_at) == "immediate" else "") if vectors else ""
    found = _COPY.fullmatch(instruction.semantics)
    return {"vector memory i": "load", "vector memory 0": "broadcast", "memory vector i": "store"}.get(
        f"{spaces[found[1]]} {spaces[found[2]]} {found[3]}" if found else "", ""
    )


def _text(role: str, instruction: Instruction) -> str:
    """One instruction as an Exo procedure named after its role."""
    lanes = max(operand.lanes for operand in instruction.operands)
    parameters, asserts, c = [], [], instruction.template
    for operand in instruction.operands:
        name = operand.name
        if operand.space == "immediate":
            parameters.append(f"{name}: index")
            asserts += [f"0 <= {name}", f"{name} < {lanes}"]
            continue
        parameters.append(f"{name}: [f32][{operand.lanes}] @ {'VEC' if operand.space == 'vector' else 'DRAM'}")
        c = c.replace(f"{{{name}}}", f"{{{name}_data}}" if operand.space == "vector" else f"&{{{name}_data}}")
        if operand.lanes > 1:
            asserts.append(f"stride({name}, 0) == 1")
    lines = [f"    assert {each}" for each in asserts]
    head = [f"@instr({c!r})", f"def {role}({', '.join(parameters)}):"]
    return "\n".join([*head, *lines, f"    for i in seq(0, {lanes}):", f"        {_body(instruction)}", ""])


def _body(instruction: Instruction) -> str:
    """Its semantics in Exo's words; a fused multiply-add is a product that is added."""
    if found := _FMA.fullmatch(instruction.semantics):
        acc, a, a_at, b, b_at = found.groups()
        return f"{acc}[i] += {a}[{a_at}] * {b}[{b_at}]"
    return instruction.semantics


def _memory(library: InstructionLibrary) -> Any:
    """Vector registers: only instructions may touch them; the last index runs over lanes."""
    file = library.register_file("vector")
    assert file is not None
    c_type = file.c_types["f32"]

    class Registers(exo().Memory):  # type: ignore[misc]
        """One C variable per vector."""

        @classmethod
        def can_read(cls) -> bool:
            """No scalar access."""
            return False

        @classmethod
        def alloc(cls, new_name: str, prim_type: str, shape: list[str], srcinfo: Any) -> str:
            """An array of vectors."""
            return f"{c_type} {new_name}{''.join(f'[{each}]' for each in shape[:-1])};"

        @classmethod
        def free(cls, new_name: str, prim_type: str, shape: list[str], srcinfo: Any) -> str:
            """Nothing to do."""
            return ""

        @classmethod
        def window(cls, basetyp: Any, baseptr: str, indices: list[str], strides: list[str], srcinfo: Any) -> str:
            """One whole vector."""
            return baseptr + "".join(f"[{each}]" for each in indices[:-1])

    return Registers
