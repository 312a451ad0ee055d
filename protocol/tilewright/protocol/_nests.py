"""Mappings as people write them: the nest as it is drawn, outermost first, or a list of levels, innermost first."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from ._fields import Reader
from ._nodes import Value
from .errors import InvalidInput
from .mapping import LevelMapping, Loop, Mapping

_LEVEL = re.compile(r"(\S+)\s*\[([^\]]*)\]")
_LOOP = re.compile(r"(for|parallel-for)\s+(\S+)\s+in\s+(~?)(\S+)(?:\s+\((\S+)\))?")
_SHORT = re.compile(r"(~?)([A-Za-z_]\w*)\s+([1-9][0-9]*)(?:\s+([XY]))?")


class _Level(NamedTuple):
    """A level while its nest is read: blocks outermost loop first."""

    name: str
    spatial: list[Loop]
    temporal: list[Loop]
    keep: tuple[str, ...]


def read_mapping(reader: Reader, value: Value) -> Mapping:
    """A mapping in either form."""
    if value.is_list:
        return Mapping(tuple(reader.read(item, LevelMapping) for item in value.items()))
    return _drawn(value, value.text("a drawn loop nest, or a list of levels"))


def read_loop(reader: Reader, value: Value) -> Loop:
    """``K 16``, ``C 4 Y`` or ``~P 7``."""
    text = value.text("a loop such as K 16, C 4 Y or ~P 7")
    match = _SHORT.fullmatch(text)
    if not match:
        raise value.wrong("a loop such as K 16, C 4 Y or ~P 7")
    ragged, dim, factor, axis = match.groups()
    return Loop(dim, int(factor), "Y" if axis == "Y" else "X", bool(ragged))


def write_mapping(mapping: Mapping) -> Any:
    """The drawn nest where that says all of it, else the list of levels."""
    text = str(mapping)
    try:
        if parse_nest(text) == mapping:
            return text + "\n"
    except InvalidInput:
        pass
    return [
        {
            "level": level.level,
            "spatial": [_short(loop) for loop in level.spatial],
            "temporal": [_short(loop) for loop in level.temporal],
            "keep": list(level.keep),
        }
        for level in mapping.levels
    ]


def parse_nest(text: str) -> Mapping:
    """A drawn nest (``str(mapping)``) read back; `InvalidInput` names the line that is wrong."""
    return _drawn(None, text)


def _drawn(value: Value | None, text: str) -> Mapping:
    levels: list[_Level] = []
    for number, raw in enumerate(text.splitlines()):
        line = raw.split("#", 1)[0].strip()
        if not line:
            continue
        header, loop = _LEVEL.fullmatch(line), _LOOP.fullmatch(line)
        if header:
            keep = tuple(name for name in header[2].split() if name != "-")
            levels.append(_Level(header[1], [], [], keep))
        elif not loop:
            raise _wrong(value, number, line, "a level such as DRAM [Weights], or a loop such as for K in 16")
        elif not levels:
            raise _wrong(value, number, line, "a level such as DRAM [Weights] before the first loop")
        else:
            _append(value, number, levels[-1], loop)
    if not levels:
        raise _wrong(value, 0, "", "a level such as DRAM [Weights]")
    # Drawn outermost first; kept innermost first.
    return Mapping(tuple(LevelMapping(name, tuple(s[::-1]), tuple(t[::-1]), keep) for name, s, t, keep in levels[::-1]))


def _append(value: Value | None, number: int, level: _Level, loop: re.Match[str]) -> None:
    kind, dim, ragged, factor, axis = loop.groups()
    if not re.fullmatch(r"[1-9][0-9]{0,17}", factor):
        raise _wrong(value, number, factor, "a factor >= 1")
    spatial = kind == "parallel-for"
    if axis not in (("X", "Y", None) if spatial else (None,)):
        raise _wrong(value, number, f"({axis})", "(X) or (Y)" if spatial else "no axis at a temporal loop")
    if not spatial and level.spatial:
        raise _wrong(value, number, loop[0], f"temporal loops before the spatial ones, which lie inside of them at {level.name}")
    (level.spatial if spatial else level.temporal).append(Loop(dim, int(factor), "Y" if axis == "Y" else "X", bool(ragged)))


def _wrong(value: Value | None, number: int, found: str, expected: str) -> InvalidInput:
    where = value.line(number, found) if value else f"line {number + 1}"
    path = f"{value.path}: " if value and value.path else ""
    return InvalidInput(f"{where}: {path}{found!r}, expected {expected}" if found else f"{where}: {path}nothing, expected {expected}")


def _short(loop: Loop) -> str:
    return f"{'~' if loop.ragged else ''}{loop.dim} {loop.factor}{' Y' if loop.axis == 'Y' else ''}"
