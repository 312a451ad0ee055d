"""Timeloop mappings: directive lists (v0.3/v0.4), and the map files that the tool prints."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.workload import Operator

from .marked import MarkedDict

_FACTOR = re.compile(r"([A-Za-z]+)\s*=?\s*(\d+)(,\d+)?$")
_LEVEL = re.compile(r"^(?P<name>[^\[\]|]+?)\s*\[(?P<tensors>[^\]]*)\]\s*$")
_LOOP = re.compile(r"^\|?\s*for\s+(?P<dim>\w+)\s+in\s+\[0:(?P<bound>\d+)(?P<residual>,\d+)?\)\s*(?:\(Spatial-(?P<axis>[XY])\))?\s*$")


def mapping(top: MarkedDict, levels: Sequence[str], operator: Operator) -> Mapping:
    """The mapping of a document with ``mapping``, for levels listed innermost first.

    Tensors that no directive mentions are kept; a factor of 0 stands for whatever of the dim is left.
    """
    spatial: dict[str, tuple[Loop, ...]] = {}
    temporal: dict[str, tuple[Loop, ...]] = {}
    bypass: dict[str, set[str]] = {level: set() for level in levels}
    open_factors: list[tuple[dict[str, tuple[Loop, ...]], str, str]] = []
    for directive in top.maps("mapping"):
        target = _plain(directive.text("target"))
        if target not in levels:
            raise directive.error(f"target: level {target!r} is unknown, expected one of {', '.join(levels)}", "target")
        kind = directive.text("type")
        if kind in ("temporal", "spatial"):
            loops = _loops(directive, operator, spatial=kind == "spatial")
            into = spatial if kind == "spatial" else temporal
            if target in into:
                raise directive.error(f"target: a second {kind} directive for {target!r}", "target")
            into[target] = loops
            open_factors += [(into, target, loop.dim) for loop in loops if loop.factor == 0]
        elif kind in ("datatype", "bypass", "dataspace"):
            known = [tensor.name for tensor in operator.tensors]
            for name in (*directive.names("keep"), *directive.names("bypass")):
                if name not in known:
                    raise directive.error(f"data space {name!r} is unknown, expected one of {', '.join(known)}")
            bypass[target] |= set(directive.names("bypass"))
            bypass[target] -= set(directive.names("keep"))
        else:
            raise directive.error(f"type: {kind!r}, expected temporal, spatial, datatype or bypass", "type")
    bounds = operator.bounds
    for into, target, dim in open_factors:
        known_product = 1
        for block in (*spatial.values(), *temporal.values()):
            for loop in block:
                known_product *= loop.factor if loop.dim == dim and loop.factor else 1
        rest = bounds[dim] // known_product
        into[target] = tuple(Loop(dim, rest, loop.axis) if loop.dim == dim else loop for loop in into[target])
    return Mapping(
        tuple(
            LevelMapping(
                level,
                tuple(loop for loop in spatial.get(level, ()) if loop.factor > 1),
                tuple(loop for loop in temporal.get(level, ()) if loop.factor > 1),
                tuple(tensor.name for tensor in operator.tensors if tensor.name not in bypass[level]),
            )
            for level in levels
        )
    )


def _plain(target: str) -> str:
    """``RF`` for ``RF[0..15]``."""
    return re.sub(r"\[.*\]$", "", target)


def _loops(directive: MarkedDict, operator: Operator, *, spatial: bool) -> tuple[Loop, ...]:
    bounds = operator.bounds
    factors: dict[str, int] = {}
    for word in _words(directive, "factors"):
        match = _FACTOR.match(word)
        if not match or match[1] not in bounds:
            raise directive.error(f"factors: {word!r}, expected e.g. 'P=4' with a dim of {', '.join(bounds)}", "factors")
        if match[3]:
            raise directive.error(f"factors: {word!r} has a residual; imperfect factors are not imported", "factors")
        if match[1] in factors:
            raise directive.error(f"factors: {match[1]} twice, expected one factor for each dim", "factors")
        factors[match[1]] = int(match[2])
    order = _order(directive, list(bounds))
    order += [dim for dim in bounds if dim not in order]
    split = directive.count("split") if spatial and directive.get("split") else (0 if spatial and "split" in directive else len(order))
    return tuple(
        Loop(dim, factors[dim], "X" if position < split else "Y") for position, dim in enumerate(order) if factors.get(dim, 1) != 1
    )


def _words(directive: MarkedDict, key: str) -> list[str]:
    """Factors as a list, a mapping, or a string of words."""
    value: Any = directive.get(key, [])
    if isinstance(value, MarkedDict):
        return [f"{dim}={factor}" for dim, factor in value.items()]
    if isinstance(value, str):
        return re.findall(r"[A-Za-z]+\s*=?\s*\d+(?:,\d+)?", value)
    if not isinstance(value, list):
        raise directive.error(f"{key}: {value!r}, expected words like 'P=4'", key)
    return [str(item) for item in value]


def _order(directive: MarkedDict, dims: list[str]) -> list[str]:
    """A permutation, innermost first: a list, words, or one string of single letters."""
    value = directive.get("permutation", "")
    names = [str(item) for item in value] if isinstance(value, list) else str(value).replace(",", " ").split()
    if len(names) == 1 and names[0] not in dims:
        names = list(names[0])
    for name in names:
        if name not in dims:
            raise directive.error(f"permutation: dim {name!r} is not one of {', '.join(dims)}", "permutation")
        if names.count(name) > 1:
            raise directive.error(f"permutation: {name} twice, expected each dim once", "permutation")
    return names


def is_map_file(path: str) -> bool:
    """Is this a printed map file rather than YAML?"""
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: cannot be read: {error}") from error
    return any(_LEVEL.match(line) for line in text.splitlines()) and any(_LOOP.match(line) for line in text.splitlines())


def map_file(path: str) -> Mapping:
    """The mapping of a printed map file: levels outer to inner, each with the tensors it keeps, loops outer first."""
    levels: list[tuple[str, tuple[str, ...], list[Loop], list[Loop]]] = []
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        head, loop = _LEVEL.match(line), _LOOP.match(line)
        if head:
            tensors = tuple(re.findall(r"(\w+)\s*:", head["tensors"]))
            levels.append((head["name"].strip(), tensors, [], []))
        elif loop:
            if not levels:
                raise InvalidInput(f"{path}, line {number}: a loop before the first level")
            if loop["residual"]:
                raise InvalidInput(f"{path}, line {number}: {line.strip()!r} has a residual; imperfect factors are not imported")
            into = levels[-1][3] if loop["axis"] else levels[-1][2]
            into.insert(0, Loop(loop["dim"], int(loop["bound"]), "Y" if loop["axis"] == "Y" else "X"))
        elif line.strip() and not re.fullmatch(r"[-|\s]+", line):
            raise InvalidInput(f"{path}, line {number}: {line.strip()!r}, expected a level, e.g. 'DRAM [ Weights:64 (64) ]', or a loop")
    return Mapping(
        tuple(
            LevelMapping(
                name,
                tuple(loop for loop in spatial if loop.factor > 1),
                tuple(loop for loop in temporal if loop.factor > 1),
                tensors,
            )
            for name, tensors, temporal, spatial in reversed(levels)
        )
    )
