"""Architectures as people write them: sizes with units, meshes, one energy for all accesses."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from ._fields import Reader
from ._nodes import Value
from .architecture import Architecture, Compute, Estimator, Level

#: Bits of each unit of capacity; words are those of the level.
_UNITS = {"bit": 1, "bits": 1, "B": 8, "KiB": 8 << 10, "MiB": 8 << 20, "GiB": 8 << 30}
_CAPACITY = re.compile(r"([1-9][0-9]*)\s*([A-Za-z]+)")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_ENERGIES = ("read_energy_pj", "fill_energy_pj", "update_energy_pj")


def read_compute(reader: Reader, value: Value) -> Compute:
    """Compute units; ``mesh`` stands for instances and both sides."""
    return reader.build(value, Compute, _mesh(value, reader.fields(value, Compute, ("mesh",))))


def read_level(reader: Reader, value: Value) -> Level:
    """A level; ``mesh``, ``capacity`` with a unit, and ``energy_pj`` for all three energies."""
    given = value.mapping()
    fields = _mesh(value, reader.fields(value, Level, ("mesh", "capacity", "energy_pj")))
    if "capacity" in given:
        if "capacity_bits" in given:
            raise value.error("capacity and capacity_bits, expected one of them")
        fields["capacity_bits"] = _capacity(given["capacity"], fields.get("word_bits", 8))
    if "energy_pj" in given:
        same = _price(reader, given["energy_pj"])
        fields = {name: same for name in _ENERGIES} | fields
    return reader.build(value, Level, fields)


def _mesh(value: Value, fields: dict[str, Any]) -> dict[str, Any]:
    """Instances and mesh from each other."""
    given = value.mapping()
    if "mesh" in given:
        for name in ("instances", "mesh_x", "mesh_y"):
            if name in given:
                raise value.error(f"mesh and {name}, expected one of them")
        mesh = given["mesh"]
        sides = [side.integer(1) for side in mesh.items()] if mesh.is_list else [mesh.integer(1)]
        if len(sides) > 2 or not sides:
            raise mesh.error(f"a list of {len(sides)}, expected [x, y]")
        x, y = (*sides, 1)[:2]
        return fields | {"instances": x * y, "mesh_x": x, "mesh_y": y}
    if "instances" in fields and "mesh_x" not in fields and "mesh_y" not in fields:
        return fields | {"mesh_x": fields["instances"]}
    return fields


def _capacity(value: Value, word_bits: int) -> int:
    expected = "a size such as 64 KiB, 2 MiB, 128 words or 8 bits"
    match = _CAPACITY.fullmatch(value.text(expected))
    units = _UNITS | {"word": word_bits, "words": word_bits}
    if not match or match[2] not in units or len(match[1]) > 18:
        raise value.wrong(expected)
    return int(match[1]) * units[match[2]]


def read_estimator(reader: Reader, value: Value) -> Estimator:
    """An estimator by its name, or with parameters."""
    if value.is_scalar:
        if not _NAME.fullmatch(value.text()):
            raise value.wrong("a number >= 0, or an estimator")
        return Estimator(value.text())
    return reader.build(value, Estimator, reader.fields(value, Estimator))


def _price(reader: Reader, value: Value) -> float | Estimator:
    return read_estimator(reader, value) if value.is_mapping or value.is_word else value.number(0)


def write_architecture(architecture: Architecture) -> dict[str, Any]:
    """The short forms where they say the same."""
    plain: dict[str, Any] = msgspec.to_builtins(architecture)
    structs: list[Compute | Level] = [architecture.compute, *architecture.levels]
    for part, struct in zip([plain["compute"], *plain["levels"]], structs, strict=True):
        for name in ("instances", "mesh_x", "mesh_y"):
            part.pop(name, None)
        if isinstance(struct, Compute) or struct.instances > 1:
            part["mesh"] = [struct.mesh_x, struct.mesh_y]
        if isinstance(struct, Level):
            _shorten(part, struct)
    for part in (plain["compute"], *plain["levels"], plain.get("special_function_unit") or {}):
        for name, price in part.items():
            if isinstance(price, dict) and not price.get("parameters", True):
                part[name] = price["name"]
    return plain


def _shorten(part: dict[str, Any], level: Level) -> None:
    if level.capacity_bits is not None:
        del part["capacity_bits"]
        unit = next(unit for unit in ("KiB", "bits") if level.capacity_bits % _UNITS[unit] == 0)
        part["capacity"] = f"{level.capacity_bits // _UNITS[unit]} {unit}"
    prices = [getattr(level, name) for name in _ENERGIES]
    if prices[0] == prices[1] == prices[2] and part.get(_ENERGIES[0]) is not None:
        part["energy_pj"] = part[_ENERGIES[0]]
        for name in _ENERGIES:
            del part[name]
