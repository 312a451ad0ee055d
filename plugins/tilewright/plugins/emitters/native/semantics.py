"""What an instruction computes: its one-line semantics, parsed for unification and executed exactly."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from fractions import Fraction
from functools import cache

from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.kernel import ElementType, Instruction

from .nest import Affine, Assign, Expr, Op, Ref, Value

#: Mantissa bits (the implicit one included), smallest exponent of a unit in the last place.
_FLOATS: Mapping[str, tuple[int, int]] = {"f16": (11, -24), "bf16": (8, -133), "f32": (24, -149), "f64": (53, -1074)}
_INTEGERS: Mapping[str, tuple[int, int]] = {
    "i8": (-(2**7), 2**7 - 1),
    "u8": (0, 2**8 - 1),
    "i16": (-(2**15), 2**15 - 1),
    "i32": (-(2**31), 2**31 - 1),
}
_INFIX = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul"}
_FUNCTIONS = {"fma": 3, "saturate": 1}
#: The lane, written ``i`` in semantics, and the place within a group of lanes, written ``j``; no nest variable has these names.
LANE, PLACE = "@i", "@j"

Number = int | Fraction


class InvalidInstruction(InvalidInput):
    """An instruction that cannot be read, or whose C template does something else than its semantics say."""


class Unspecified:
    """The value of ``any``."""


ANY = Unspecified()


@cache
def parse(instruction: Instruction) -> Assign | None:
    """The assignment an instruction performs for every lane ``i`` (and place ``j``); None when it computes nothing."""
    if instruction.semantics.strip() == "pass":
        return None
    try:
        statement = ast.parse(instruction.semantics).body[0]
        if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
            raise InvalidInstruction("expected one assignment")
        reader = _Reader({operand.name for operand in instruction.operands})
        target = reader.expr(statement.targets[0])
        if not isinstance(target, Ref) or target.index[0].constant or not _covers_lanes(target.index[0]):
            raise InvalidInstruction("expected an assignment to 'operand[i]' or 'operand[n*i+j]'")
        return Assign(target, reader.expr(statement.value))
    except (SyntaxError, InvalidInstruction, IndexError) as error:
        raise InvalidInstruction(f"instruction {instruction.name!r}: semantics {instruction.semantics!r}: {error}") from error


def _covers_lanes(index: Affine) -> bool:
    names = {name for name, _ in index.terms}
    return index == Affine.var(LANE) or (names == {LANE, PLACE} and index.coefficient(PLACE) == 1)


def group_of(assign: Assign) -> int:
    """Lanes per group: ``n`` of an assignment to ``operand[n*i+j]``, 1 of one to ``operand[i]``."""
    return assign.target.index[0].coefficient(LANE)


class _Reader:
    """Python expression -> nest expression, names checked."""

    def __init__(self, operands: set[str]) -> None:
        self.operands = operands

    def expr(self, node: ast.expr) -> Expr:
        match node:
            case ast.Subscript(value=ast.Name(id=name), slice=index):
                self.check(name)
                return Ref(name, (self.index(index),))
            case ast.Name(id="any"):
                return Op("any")
            case ast.Name() | ast.Constant():
                return Value(self.index(node))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _INFIX:
                return Op(_INFIX[type(op)], (self.expr(left), self.expr(right)))
            case ast.Compare(left=left, ops=[ast.Lt()], comparators=[right]):
                return Op("less", (self.expr(left), self.expr(right)))
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return Op("select", (self.expr(test), self.expr(body), self.expr(orelse)))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if _FUNCTIONS.get(name) == len(args):
                return Op(name, tuple(self.expr(arg) for arg in args))
        raise InvalidInstruction(f"{ast.unparse(node)!r} is not in the language")

    def index(self, node: ast.expr) -> Affine:
        match node:
            case ast.Constant(value=int(number)):
                return Affine((), number)
            case ast.Name(id=name):
                if name in ("i", "j"):
                    return Affine.var(LANE if name == "i" else PLACE)
                self.check(name)
                return Affine.var(name)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                a, b = self.index(left), self.index(right)
                return Affine((("+a", 1), ("+b", 1))).substitute({"+a": a, "+b": b})
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                a, b = self.index(left), self.index(right)
                if a.terms and b.terms:
                    raise InvalidInstruction(f"{ast.unparse(node)!r} is not affine")
                factor, other = (b.constant, a) if a.terms else (a.constant, b)
                return Affine((("+a", factor),)).substitute({"+a": other}) if factor else Affine()
        raise InvalidInstruction(f"{ast.unparse(node)!r} is not an affine index")

    def check(self, name: str) -> None:
        if name not in self.operands:
            raise InvalidInstruction(f"{name!r} is not an operand")


def round_to(value: Number, kind: ElementType) -> Number:
    """The value as an element of `kind`: floats to nearest even (no overflow), integers wrapped to two's complement."""
    if kind in _INTEGERS:
        low, high = _INTEGERS[kind]
        return (int(value) - low) % (high - low + 1) + low
    bits, smallest = _FLOATS[kind]
    exact = Fraction(value)
    if not exact:
        return exact
    exponent = exact.numerator.bit_length() - exact.denominator.bit_length()
    if abs(exact) < Fraction(2) ** exponent:
        exponent -= 1
    ulp = Fraction(2) ** max(exponent - bits + 1, smallest)
    return round(exact / ulp) * ulp


def execute(instruction: Instruction, inputs: Mapping[str, list[Number] | int], fuses: bool = True) -> list[Number | Unspecified]:
    """The elements written, lane by lane, given the elements (or the integer) of every operand that is read.

    Without `fuses` the product of an ``fma`` is rounded before it is added.
    """
    assign = parse(instruction)
    if assign is None:
        return []
    written = next(operand for operand in instruction.operands if operand.name == assign.target.buffer)
    results: list[Number | Unspecified] = []
    for at in range(written.lanes):
        lane, place = divmod(at, group_of(assign))
        value = _evaluate(assign.value if fuses else _split(assign.value), {**inputs, LANE: lane, PLACE: place}, written.type)
        results.append(value if isinstance(value, Unspecified) else round_to(value, written.type))
    return results


def _split(expr: Expr) -> Expr:
    """The expression with every fused multiply-add taken apart."""
    if not isinstance(expr, Op):
        return expr
    args = tuple(map(_split, expr.args))
    return Op("add", (Op("mul", args[:2]), args[2])) if expr.name == "fma" else Op(expr.name, args)


def _evaluate(expr: Expr, inputs: Mapping[str, list[Number] | int], kind: ElementType) -> Number | Unspecified:
    if isinstance(expr, Ref):
        elements = inputs[expr.buffer]
        assert isinstance(elements, list)
        return elements[_index(expr.index[0], inputs)]
    if isinstance(expr, Value):
        return _index(expr.index, inputs)
    if expr.name == "any":
        return ANY
    if expr.name == "select":
        test = _evaluate(expr.args[0], inputs, kind)
        return _evaluate(expr.args[1] if test else expr.args[2], inputs, kind)
    args = [_evaluate(arg, inputs, kind) for arg in expr.args]
    numbers = [arg for arg in args if not isinstance(arg, Unspecified)]
    if len(numbers) < len(args):
        return ANY
    match expr.name, numbers:
        case "less", [a, b]:
            return int(a < b)
        case "saturate", [a]:
            low, high = _INTEGERS[kind]
            return min(max(a, low), high)
        case "fma", [a, b, c]:
            return round_to(a * b + c, kind)
        case "add", [a, b]:
            total = a + b
        case "sub", [a, b]:
            total = a - b
        case _, [a, b]:
            total = a * b
    # Integers are exact until they are written; floats round after every operation.
    return round_to(total, kind) if kind in _FLOATS else total


def _index(index: Affine, inputs: Mapping[str, list[Number] | int]) -> int:
    total = index.constant
    for name, factor in index.terms:
        value = inputs[name]
        assert isinstance(value, int)
        total += factor * value
    return total
