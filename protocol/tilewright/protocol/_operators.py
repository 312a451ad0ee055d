"""Operators as people write them: constructor calls, or dims and tensors with indices such as ``2*P + R - 1``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import msgspec

from ._fields import Reader
from ._nodes import Value
from .errors import InvalidInput
from .workload import FUNCTIONS, Dim, Operator, Rank, Tensor, Term, batched_matmul, conv2d, depthwise, elementwise, matmul

CONSTRUCTORS: dict[str, Callable[..., Operator]] = {
    "matmul": matmul,
    "batched_matmul": batched_matmul,
    "conv2d": conv2d,
    "depthwise": depthwise,
}
#: Arguments that may be zero, or nothing.
_FROM_ZERO, _OPTIONAL = ("padding",), ("extent",)
_EXPLICIT = ("dims", "tensors")
_PIECE = re.compile(r"\s*([+-])\s*(?:(?:(\d+)\s*\*\s*)?([A-Za-z_]\w*)|(\d+))")


def read_operator(reader: Reader, value: Value, besides: tuple[str, ...] = ()) -> Operator:
    """An operator; keys in `besides` are the caller's."""
    entries = {key: item for key, item in value.mapping("an operator").items() if key not in besides}
    names = [*CONSTRUCTORS, *FUNCTIONS]
    called = [key for key in entries if key in names]
    if not called:
        if not all(key in entries for key in _EXPLICIT):
            unknown = [key for key in entries if key not in Operator.__struct_fields__]
            if unknown:
                raise value.key_error(unknown[0], [*names, *besides], "operator")
            raise value.error(f"is no operator, expected one of {', '.join(names)}, or dims and tensors")
        return _explicit(reader, value, entries)
    name = called[0]
    for key in entries:
        if key != name:
            raise value.key_error(key, [name, *besides])
    arguments = entries[name]
    try:
        return _call(name, arguments) if name in CONSTRUCTORS else _function(name, arguments)
    except InvalidInput as error:
        if str(error).startswith(f"{value.source.name}:"):
            raise
        raise arguments.error(str(error)) from error


def _call(name: str, value: Value) -> Operator:
    parameters = inspect.signature(CONSTRUCTORS[name]).parameters
    given = value.mapping(f"the arguments {', '.join(parameters)}")
    arguments: dict[str, Any] = {}
    bias = False
    for key, item in given.items():
        if key == "bias":
            bias = item.flag()
        elif key not in parameters:
            raise value.key_error(key, [*parameters, "bias"], "argument")
        elif isinstance(parameters[key].default, bool):
            arguments[key] = item.flag()
        elif isinstance(parameters[key].default, tuple):
            arguments[key] = _pair(item, key)
        else:
            arguments[key] = item.integer(1)
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in arguments:
            raise value.error(f"has no {key!r}")
    operator = CONSTRUCTORS[name](**arguments)
    return msgspec.structs.replace(operator, bias_bits=operator.tensor(operator.output).bits) if bias else operator


def _pair(value: Value, name: str) -> tuple[int | None, int | None]:
    low = 0 if name in _FROM_ZERO else 1

    def one(item: Value) -> int | None:
        return None if item.is_null and name in _OPTIONAL else item.integer(low)

    if not value.is_list:
        return one(value), one(value)
    items = value.items()
    if len(items) != 2:
        raise value.error(f"a list of {len(items)}, expected one number or [width, height]")
    return one(items[0]), one(items[1])


def _function(name: str, value: Value) -> Operator:
    given = value.mapping("the arguments shape, operands, reduced, bits")
    for key in given:
        if key not in ("shape", "operands", "reduced", "bits"):
            raise value.key_error(key, ("shape", "operands", "reduced", "bits"), "argument")
    if "shape" not in given:
        raise value.error("has no 'shape'")
    return elementwise(
        name,
        {dim: bound.integer(1) for dim, bound in given["shape"].mapping("dims with their bounds").items()},
        operands=given["operands"].integer(0) if "operands" in given else 1,
        reduced=tuple(item.text() for item in given["reduced"].items()) if "reduced" in given else (),
        bits=given["bits"].integer(1) if "bits" in given else 8,
    )


def _explicit(reader: Reader, value: Value, entries: dict[str, Value]) -> Operator:
    fields = reader.fields(value, Operator, _EXPLICIT, entries)
    dims = tuple(Dim(name, bound.integer(1)) for name, bound in entries["dims"].mapping("dims with their bounds").items())
    tensors = []
    for name, item in entries["tensors"].mapping("tensors by name").items():
        own = reader.fields(item, Tensor, ("name", "ranks"))
        given = item.mapping()
        if "ranks" not in given:
            raise item.error("has no 'ranks'")
        if "name" in given:
            raise item.key_error("name", ("ranks", "bits", "static"))
        ranks = tuple(read_rank(rank) for rank in given["ranks"].items("a list of indices"))
        tensors.append(reader.build(item, Tensor, {"name": name, "ranks": ranks, **own}))
    return reader.build(value, Operator, {**fields, "dims": dims, "tensors": tuple(tensors)})


def read_rank(value: Value) -> Rank:
    """An index such as ``2*P + R - 1``, or ``{index, extent}``."""
    extent = None
    index = value
    if value.is_mapping:
        given = value.mapping()
        for key in given:
            if key not in ("index", "extent"):
                raise value.key_error(key, ("index", "extent"))
        if "index" not in given:
            raise value.error("has no 'index'")
        index, extent = given["index"], given["extent"].integer(1) if "extent" in given else None
    expected = "an index such as P or 2*P + R - 1"
    text = f"+{index.text(expected)}".replace("+-", "-", 1)
    terms, offset, at = [], 0, 0
    while match := _PIECE.match(text, at):
        sign, coefficient, dim, constant = match.groups()
        if constant is not None:
            offset += int(constant) * (-1 if sign == "-" else 1)
        elif sign == "-":
            raise index.wrong(f"{expected} (a dim cannot be subtracted)")
        else:
            terms.append(Term(dim, int(coefficient or 1)))
        at = match.end()
    if text[at:].strip():
        raise index.wrong(expected)
    return Rank(tuple(terms), offset, extent)


def write_rank(rank: Rank) -> Any:
    """The index as text, with the stored extent where it is stated."""
    pieces = [term.dim if term.coefficient == 1 else f"{term.coefficient}*{term.dim}" for term in rank.terms]
    text = " + ".join(pieces) or ("" if rank.offset else "0")
    if rank.offset:
        text += f" {'-' if rank.offset < 0 else '+'} {abs(rank.offset)}"
    text = text.strip().removeprefix("+ ")
    return text if rank.extent is None else {"index": text, "extent": rank.extent}


def write_operator(operator: Operator) -> dict[str, Any]:
    """Dims by name, tensors by name, and every other field that is not at its default."""
    plain: dict[str, Any] = msgspec.to_builtins(operator)
    plain["dims"] = operator.bounds
    plain["tensors"] = {}
    for tensor in operator.tensors:
        fields = msgspec.to_builtins(tensor)
        fields["ranks"] = [write_rank(rank) for rank in tensor.ranks]
        del fields["name"]
        plain["tensors"][tensor.name] = fields
    return plain
