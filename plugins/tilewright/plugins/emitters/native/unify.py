"""Finds the instruction that does what a lane loop does, by matching the loop's body with instruction semantics.

This is the safety core of the generator: code is replaced by an instruction only when the two assignments are the same
up to renaming, commutativity and an unspecified (``any``) value on the loop's side.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from tilewright.protocol.kernel import Instruction, InstructionLibrary, InstructionOperand

from .nest import Affine, Assign, Buffer, Call, Expr, Op, Ref, Value, substitute
from .semantics import LANE, PLACE, group_of, parse

#: Positions of arguments that may be exchanged.
_COMMUTATIVE = ("add", "mul", "fma")


def instruction_for(assign: Assign, lanes: int, buffers: Mapping[str, Buffer], library: InstructionLibrary, group: int = 1) -> Call | None:
    """The cheapest instruction equal to an assignment for every ``l`` in `lanes` and ``q`` in `group`, or None."""
    renamed = substitute(assign, {"l": Affine.var(LANE), "q": Affine.var(PLACE)})
    assert isinstance(renamed, Assign)
    found = [call for instruction in library.instructions if (call := _unify(instruction, renamed, lanes, group, buffers))]
    return min(found, key=lambda call: (1 / call.instruction.per_cycle, call.instruction.latency), default=None)


def _unify(instruction: Instruction, assign: Assign, lanes: int, group: int, buffers: Mapping[str, Buffer]) -> Call | None:
    pattern = parse(instruction)
    if pattern is None:
        return None
    written = next(operand for operand in instruction.operands if operand.name == pattern.target.buffer)
    target = buffers[assign.target.buffer]
    if written.lanes != lanes * group or (written.space, written.type) != (target.space, target.type) or group_of(pattern) != group:
        return None
    # Most instructions are told apart by what they compute last.
    if type(pattern.value) is not type(assign.value) or getattr(pattern.value, "name", "") != getattr(assign.value, "name", ""):
        return None
    operands = {operand.name: operand for operand in instruction.operands}
    start = _Match(operands, buffers)
    for after_target in start.expr(pattern.target, assign.target):
        for match in after_target.expr(pattern.value, assign.value):
            if set(match.bound) == set(operands) and _allowed(instruction, match):
                return Call(instruction, tuple((name, match.bound[name]) for name in operands))
    return None


def _allowed(instruction: Instruction, match: _Match) -> bool:
    """Preconditions hold for what is constant; what is known at run time only is the caller's promise."""
    known = {name: value.constant for name, value in match.bound.items() if isinstance(value, Affine) and not value.terms}
    return all(eval_condition(condition, known) for condition in instruction.requires)


def eval_condition(condition: str, values: Mapping[str, int]) -> bool:
    """A precondition such as ``0 <= n <= 8`` or ``n < 4``; True when it mentions a name without value."""
    words = re.findall(r"<=|<|-?\w+", condition)
    numbers = [int(word) if word.lstrip("-").isdigit() else values.get(word) for word in words[::2]]
    holds = True
    for left, relation, right in zip(numbers, words[1::2], numbers[1:], strict=False):
        if left is not None and right is not None:
            holds &= left < right if relation == "<" else left <= right
    return holds


@dataclass(frozen=True)
class _Match:
    """Operands bound so far; `expr` yields every way to go on."""

    operands: Mapping[str, InstructionOperand]
    buffers: Mapping[str, Buffer]
    bound: Mapping[str, Ref | Affine] = field(default_factory=dict)

    def bind(self, name: str, value: Ref | Affine) -> Iterator[_Match]:
        """Bind an operand, unless it is bound to something else."""
        if self.bound.get(name, value) == value:
            yield replace(self, bound={**self.bound, name: value})

    def expr(self, pattern: Expr, expr: Expr) -> Iterator[_Match]:
        if isinstance(expr, Op) and expr.name == "any":
            yield self
        elif isinstance(pattern, Ref) and isinstance(expr, Ref):
            yield from self.ref(pattern, expr)
        elif isinstance(pattern, Value) and isinstance(expr, Value):
            yield from self.value(pattern.index, expr.index)
        elif isinstance(pattern, Op) and isinstance(expr, Op) and pattern.name == expr.name:
            orders = [expr.args]
            if pattern.name in _COMMUTATIVE:
                orders.append((expr.args[1], expr.args[0], *expr.args[2:]))
            for args in orders:
                yield from self.all(pattern.args, args)

    def all(self, patterns: tuple[Expr, ...], exprs: tuple[Expr, ...]) -> Iterator[_Match]:
        if not patterns:
            yield self
            return
        for match in self.expr(patterns[0], exprs[0]):
            yield from match.all(patterns[1:], exprs[1:])

    def value(self, pattern: Affine, value: Affine) -> Iterator[_Match]:
        if len(pattern.terms) == 1 and pattern.terms[0][1] == 1 and pattern.terms[0][0] in self.operands:
            if not value.coefficient(LANE) and not value.coefficient(PLACE):
                yield from self.bind(pattern.terms[0][0], replace(value, constant=value.constant - pattern.constant))
        elif pattern == value:
            yield self

    def ref(self, pattern: Ref, ref: Ref) -> Iterator[_Match]:
        operand, buffer = self.operands[pattern.buffer], self.buffers[ref.buffer]
        if (operand.space, operand.type) != (buffer.space, buffer.type):
            return
        (wanted,), last = pattern.index, ref.index[-1]
        for variable in (LANE, PLACE):
            if last.coefficient(variable) != wanted.coefficient(variable) or any(index.coefficient(variable) for index in ref.index[:-1]):
                return
        if operand.space == "memory" and operand.lanes > 1 and buffer.strides[-1] != "1":
            return
        base = replace(
            last, terms=tuple(term for term in last.terms if term[0] not in (LANE, PLACE)), constant=last.constant - wanted.constant
        )
        scalar = next((name for name, _ in wanted.terms if name in self.operands), None)
        if operand.space == "memory":
            if scalar is None:
                yield from self.bind(operand.name, Ref(ref.buffer, (*ref.index[:-1], base)))
            return
        whole = Ref(ref.buffer, (*ref.index[:-1], Affine()))
        if buffer.shape[-1] != operand.lanes:
            return
        for match in self.bind(operand.name, whole):
            if scalar is not None and not base.terms and 0 <= base.constant < operand.lanes:
                yield from match.bind(scalar, base)
            elif scalar is None and base == Affine():
                yield match
