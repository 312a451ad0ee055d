"""Loop nests over buffers: the small language in which kernels are scheduled and instructions say what they do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tilewright.protocol.kernel import ElementType, Instruction, Space


@dataclass(frozen=True)
class Affine:
    """An index ``sum(coefficient x variable) + constant``; terms are sorted and never zero."""

    terms: tuple[tuple[str, int], ...] = ()
    constant: int = 0

    @classmethod
    def of(cls, terms: Mapping[str, int], constant: int = 0) -> Affine:
        """From a mapping of variable to coefficient."""
        return cls(tuple(sorted((v, c) for v, c in terms.items() if c)), constant)

    @classmethod
    def var(cls, name: str) -> Affine:
        """The variable itself."""
        return cls(((name, 1),))

    def coefficient(self, name: str) -> int:
        """Coefficient of a variable, 0 when it does not occur."""
        return dict(self.terms).get(name, 0)

    def substitute(self, values: Mapping[str, Affine]) -> Affine:
        """With variables replaced."""
        terms: dict[str, int] = {}
        constant = self.constant
        for name, factor in self.terms:
            value = values.get(name, Affine.var(name))
            constant += factor * value.constant
            for inner, coefficient in value.terms:
                terms[inner] = terms.get(inner, 0) + factor * coefficient
        return Affine.of(terms, constant)

    def __str__(self) -> str:
        parts = [name if factor == 1 else f"{factor}*{name}" for name, factor in self.terms]
        if self.constant or not parts:
            parts.append(str(self.constant))
        return " + ".join(parts)


@dataclass(frozen=True)
class Ref:
    """One element of a buffer."""

    buffer: str
    index: tuple[Affine, ...]

    def __str__(self) -> str:
        return f"{self.buffer}[{', '.join(map(str, self.index))}]"


@dataclass(frozen=True)
class Value:
    """An index, scalar or constant used as a value."""

    index: Affine

    def __str__(self) -> str:
        return str(self.index)


@dataclass(frozen=True)
class Op:
    """``add, sub, mul, fma, less, select, saturate, any`` of its arguments."""

    name: str
    args: tuple[Expr, ...] = ()

    def __str__(self) -> str:
        args = [str(arg) for arg in self.args]
        infix = {"add": "+", "sub": "-", "mul": "*", "less": "<"}.get(self.name)
        if infix:
            return f"({args[0]} {infix} {args[1]})"
        if self.name == "select":
            return f"({args[1]} if {args[0]} else {args[2]})"
        return f"{self.name}({', '.join(args)})" if args else self.name


Expr = Ref | Value | Op


@dataclass(frozen=True)
class Assign:
    """``target = value``."""

    target: Ref
    value: Expr

    def __str__(self) -> str:
        return f"{self.target} = {self.value}"


@dataclass(frozen=True)
class Call:
    """An instruction applied; each operand is bound to its first element (or to an index, for scalars)."""

    instruction: Instruction
    operands: tuple[tuple[str, Ref | Affine], ...]

    def __str__(self) -> str:
        return f"{self.instruction.name}({', '.join(f'{name}={value}' for name, value in self.operands)})"


@dataclass(frozen=True)
class For:
    """``for variable in range(extent)``; an extent that is a string is an argument of the kernel."""

    variable: str
    extent: int | str
    body: tuple[Stmt, ...]


@dataclass(frozen=True)
class If:
    """Two blocks, chosen by an argument of the kernel."""

    condition: str
    then: tuple[Stmt, ...]
    otherwise: tuple[Stmt, ...]


Stmt = Assign | Call | For | If


@dataclass(frozen=True)
class Buffer:
    """Where elements live. Memory has one C stride expression per index; registers have their lanes as last index."""

    space: Space
    type: ElementType
    shape: tuple[int | str, ...]
    strides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Nest:
    """A kernel on its way from specification to straight-line code."""

    buffers: Mapping[str, Buffer]
    body: tuple[Stmt, ...]

    def __str__(self) -> str:
        lines = []
        for name, buffer in self.buffers.items():
            lines.append(f"{name}: {buffer.type}[{', '.join(map(str, buffer.shape))}] in {buffer.space}")
        return "\n".join([*lines, *_lines(self.body, 0)])


def _lines(body: tuple[Stmt, ...], depth: int) -> list[str]:
    pad = "  " * depth
    lines: list[str] = []
    for statement in body:
        if isinstance(statement, For):
            lines.append(f"{pad}for {statement.variable} in {statement.extent}:")
            lines += _lines(statement.body, depth + 1)
        elif isinstance(statement, If):
            lines.append(f"{pad}if {statement.condition}:")
            lines += _lines(statement.then, depth + 1)
            if statement.otherwise:
                lines.append(f"{pad}else:")
                lines += _lines(statement.otherwise, depth + 1)
        else:
            lines.append(f"{pad}{statement}")
    return lines


def substitute_expr(expr: Expr, values: Mapping[str, Affine]) -> Expr:
    """An expression with index variables replaced."""
    if isinstance(expr, Ref):
        return substitute_ref(expr, values)
    if isinstance(expr, Value):
        return Value(expr.index.substitute(values))
    return Op(expr.name, tuple(substitute_expr(arg, values) for arg in expr.args))


def substitute_ref(ref: Ref, values: Mapping[str, Affine]) -> Ref:
    """A reference with index variables replaced."""
    return Ref(ref.buffer, tuple(index.substitute(values) for index in ref.index))


def substitute(statement: Stmt, values: Mapping[str, Affine]) -> Stmt:
    """A statement with index variables replaced."""
    if isinstance(statement, Assign):
        return Assign(substitute_ref(statement.target, values), substitute_expr(statement.value, values))
    if isinstance(statement, Call):
        bound: list[tuple[str, Ref | Affine]] = [
            (name, substitute_ref(value, values) if isinstance(value, Ref) else value.substitute(values))
            for name, value in statement.operands
        ]
        return Call(statement.instruction, tuple(bound))
    if isinstance(statement, For):
        return replace(statement, body=tuple(substitute(each, values) for each in statement.body))
    return If(
        statement.condition,
        tuple(substitute(each, values) for each in statement.then),
        tuple(substitute(each, values) for each in statement.otherwise),
    )
