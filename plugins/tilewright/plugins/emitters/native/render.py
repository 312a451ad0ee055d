"""Straight-line nests as C functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tilewright.protocol.kernel import InstructionLibrary

from .nest import Affine, Buffer, Call, For, If, Nest, Ref, Stmt

#: What every tile function takes; `k` counts groups of depth.
PARAMETERS = (
    "ptrdiff_t k, const item *restrict A, ptrdiff_t a_row, ptrdiff_t a_step, const item *restrict B, ptrdiff_t b_step,"
    " result *restrict C, ptrdiff_t c_row, int accumulate, ptrdiff_t tail, item *restrict packed_a, item *restrict packed_b"
)


def function(name: str, nest: Nest, library: InstructionLibrary) -> str:
    """A C function with `PARAMETERS`; the nest holds only instructions, p loops and argument tests."""
    lines = [f"TILE void {name}({PARAMETERS}) {{"]
    # One row needs no row strides, a whole last vector no tail, a tile that packs nothing no place for it.
    lines.append("    (void)a_row, (void)c_row, (void)tail, (void)packed_a, (void)packed_b;")
    lines += _Renderer(nest.buffers, library).block(nest.body, 1, frozenset())
    return "\n".join([*lines, "}", ""])


class _Renderer:
    def __init__(self, buffers: Mapping[str, Buffer], library: InstructionLibrary) -> None:
        self.buffers = buffers
        self.library = library

    def block(self, body: tuple[Stmt, ...], depth: int, declared: frozenset[str]) -> list[str]:
        """C lines of a block, the registers it writes first declared at its head."""
        pad = "    " * depth
        lines: list[str] = []
        new: dict[str, list[str]] = {}
        for call in body:
            if isinstance(call, Call):
                for ref in self.written(call):
                    register, c_type = self.register(ref), self.c_type(ref)
                    if register not in declared and register not in new.get(c_type, ()):
                        new.setdefault(c_type, []).append(register)
        lines += [f"{pad}{c_type} {', '.join(registers)};" for c_type, registers in new.items()]
        inside = declared.union(*new.values())
        for statement in body:
            if isinstance(statement, Call):
                lines.append(pad + self.call(statement))
            elif isinstance(statement, For):
                lines.append(
                    f"{pad}for (ptrdiff_t {statement.variable} = 0; {statement.variable} < {statement.extent}; ++{statement.variable}) {{"
                )
                lines += self.block(statement.body, depth + 1, inside)
                for name, stride in self.steps(statement.variable, statement.body):
                    lines.append(f"{pad}    {name} += {stride};")
                lines.append(pad + "}")
            elif isinstance(statement, If):
                lines.append(f"{pad}if ({statement.condition}) {{")
                lines += self.block(statement.then, depth + 1, inside)
                if statement.otherwise:
                    lines.append(pad + "} else {")
                    lines += self.block(statement.otherwise, depth + 1, inside)
                lines.append(pad + "}")
        return lines

    def written(self, call: Call) -> Iterator[Ref]:
        bound = dict(call.operands)
        for operand in call.instruction.operands:
            ref = bound[operand.name]
            if operand.access != "in" and operand.space in ("vector", "mask") and isinstance(ref, Ref):
                yield ref

    def steps(self, variable: str, body: tuple[Stmt, ...]) -> Iterator[tuple[str, str]]:
        """Memory buffers that a loop walks, and their C stride per trip."""
        walked = {
            (value.buffer, position)
            for call in body
            if isinstance(call, Call)
            for _, value in call.operands
            if isinstance(value, Ref)
            for position, index in enumerate(value.index)
            if index.coefficient(variable)
        }
        for name, position in sorted(walked):
            yield name, self.buffers[name].strides[position]

    def call(self, call: Call) -> str:
        values = {name: self.operand(value) for name, value in call.operands}
        return call.instruction.template.format_map(values)

    def operand(self, value: Ref | Affine) -> str:
        if isinstance(value, Affine):
            return str(value)
        buffer = self.buffers[value.buffer]
        return self.register(value) if buffer.space != "memory" else self.pointer(value, buffer)

    def pointer(self, ref: Ref, buffer: Buffer) -> str:
        """``base + constant x stride + ...``; the loop variable ``p`` is in the base (`steps`), ``tail`` is an argument."""
        terms = [ref.buffer]
        for index, stride in zip(ref.index, buffer.strides, strict=True):
            if index.coefficient("tail"):
                terms.append(f"{index.coefficient('tail')} * tail")
            if index.constant:
                terms.append(str(index.constant) if stride == "1" else stride if index.constant == 1 else f"{index.constant} * {stride}")
        return " + ".join(terms)

    def register(self, ref: Ref) -> str:
        return "_".join([ref.buffer, *(str(index.constant) for index in ref.index[:-1])])

    def c_type(self, ref: Ref) -> str:
        buffer = self.buffers[ref.buffer]
        file = self.library.register_file(buffer.space)
        assert file is not None
        return file.c_types[buffer.type]
