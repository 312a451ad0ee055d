"""Timeloop architectures: v0.3 (``subtree``/``local``), v0.4 (``nodes`` with ``!Component``), and the older flat list.

Levels come out innermost first. Energies are those of an Accelergy energy reference table (``ERT``) when one is given;
otherwise those that Timeloop has built in, as named estimators. Areas are those of an ``ART``, else 0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from tilewright.protocol.architecture import Architecture, Compute, Estimator, Level, Price
from tilewright.protocol.errors import InvalidArchitecture, InvalidInput
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS

from .marked import MarkedDict

#: ``name[0..n]``.
_RANGE = re.compile(r"(?P<name>.*?)\[\s*(?P<low>\d+)\s*\.\.\s*(?P<high>\d+)\s*\]$")
_STORAGE = ("depth", "memory_depth", "entries", "sizeKB", "width", "memory_width")
_COMPUTE = re.compile(r"mac|compute|alu|multiplier|arith", re.IGNORECASE)
#: Attributes that change what the dense model says, with no counterpart here.
_UNSUPPORTED = ("min_utilization", "network_fill_latency", "network_drain_latency", "fill_latency", "drain_latency")

Tables = dict[str, dict[str, float]]


@dataclass
class _Part:
    """One component, with how many there are in all."""

    name: str
    kind: str
    attributes: MarkedDict
    instances: int
    #: Width of the mesh, 0 when it is not said.
    mesh_x: int


def architecture(top: MarkedDict, energies: Tables, areas: Tables) -> Architecture:
    """The architecture of a document with ``architecture`` or ``arch``; component name -> action -> pJ, and -> mm2."""
    body = top.map("architecture") if "architecture" in top else top.map("arch")
    if "nodes" in body:
        parts, name = _nodes(body), "system"
    elif "subtree" in body:
        parts, name = _subtree(body), str(next(body.maps("subtree")).get("name", "system"))
    elif "storage" in body:
        parts, name = _flat(body), "system"
    else:
        raise body.error("architecture: has neither nodes (v0.4), nor subtree (v0.3), nor storage")
    if len(parts) < 2:
        raise body.error(f"architecture: has {len(parts)} components, expected storage levels and a compute component")
    *storage, compute = parts
    levels = [_level(part, energies, areas) for part in reversed(storage)]
    energy: Price = Estimator("timeloop-multiplier")
    if compute.name in energies:
        energy = _action(compute, energies[compute.name], "compute", "mac_random", "mac", "multiply")
    instances, mesh_x, mesh_y = _mesh(compute)
    try:
        found = Architecture(
            name=name,
            compute=Compute(
                compute.name,
                instances,
                mesh_x,
                mesh_y,
                compute.attributes.count("datawidth", compute.attributes.count("word_bits", 16)),
                energy,
                areas.get(compute.name, {}).get("area", 0.0),
            ),
            levels=tuple(levels),
            source="imported from a Timeloop description",
        )
        return msgspec.convert(msgspec.to_builtins(found), Architecture)
    except (InvalidArchitecture, msgspec.ValidationError) as error:
        raise body.error(str(error)) from error


def _mesh(part: _Part) -> tuple[int, int, int]:
    width = part.mesh_x or part.instances
    if part.instances % width:
        raise part.attributes.error(f"{part.name}.meshX: {width} does not divide the {part.instances} instances", "meshX")
    return part.instances, width, part.instances // width


def _part(node: MarkedDict, name: str, attributes: MarkedDict, instances: int, mesh_x: int) -> _Part:
    for key in _UNSUPPORTED:
        if attributes.get(key):
            raise attributes.error(f"{name}.{key}: not supported", key)
    return _Part(name, str(node.get("class", "")), attributes, instances, mesh_x)


def _counted(node: MarkedDict) -> tuple[str, int]:
    """Name and count of ``name[0..n]``."""
    name = node.text("name")
    match = _RANGE.match(name)
    if not match:
        return name, 1
    return match["name"], int(match["high"]) - int(match["low"]) + 1


def _subtree(body: MarkedDict) -> list[_Part]:
    """Components of a v0.3 tree, outermost first."""
    parts: list[_Part] = []
    above, node = 1, body
    while "subtree" in node:
        branches = list(node.maps("subtree"))
        if len(branches) != 1:
            raise node.error(f"subtree: has {len(branches)} branches, expected one (a single chain of levels)", "subtree")
        node = branches[0]
        _, count = _counted(node)
        above *= count
        for local in node.maps("local"):
            name, copies = _counted(local)
            attributes = local.map("attributes")
            instances = above * copies
            if "instances" in attributes:
                instances = attributes.count("instances")
            parts.append(_part(local, name, attributes, instances, attributes.count("meshX") if "meshX" in attributes else 0))
    return parts


def _nodes(body: MarkedDict) -> list[_Part]:
    """Components of a v0.4 list, outermost first; ``spatial`` of a node multiplies it and everything after it."""
    parts: list[_Part] = []
    mesh_x = mesh_y = 1
    for node in body.maps("nodes"):
        spatial = node.map("spatial")
        mesh_x *= spatial.count("meshX", 1)
        mesh_y *= spatial.count("meshY", 1)
        if node.tag in ("Container", "Hierarchical"):
            continue
        if node.tag not in ("Component", "Compute", "Storage", ""):
            raise node.error(f"node !{node.tag}: not supported, expected !Container or !Component")
        name, count = _counted(node)
        parts.append(_part(node, name, node.map("attributes"), mesh_x * mesh_y * count, mesh_x * count))
    return parts


def _flat(body: MarkedDict) -> list[_Part]:
    """The oldest form: ``storage`` innermost first beside ``arithmetic``; attributes stand in the components themselves."""
    rows = [*reversed(list(body.maps("storage"))), body.map("arithmetic")]
    parts = []
    for row in rows:
        if "technology" in row and "class" not in row:
            row["class"] = str(row["technology"])
        instances = row.count("instances", 1)
        parts.append(_part(row, row.text("name"), row, instances, row.count("meshX") if "meshX" in row else 0))
    return parts


def _level(part: _Part, energies: Tables, areas: Tables) -> Level:
    attributes = part.attributes
    dram = "dram" in part.kind.lower()
    if not dram and not any(key in attributes for key in _STORAGE):
        what = "compute, but it is not the innermost component" if _COMPUTE.search(part.kind) else "neither storage nor compute"
        raise attributes.error(f"{part.name}: a component of class {part.kind or 'none'!r} is {what}: not supported")
    word_bits = attributes.count("word_bits", attributes.count("datawidth", 16))
    cluster = attributes.count("cluster_size", 1)
    width = next((attributes.count(key) for key in ("width", "memory_width") if key in attributes), None)
    block = attributes.count("block_size") if "block_size" in attributes else 1
    if width is not None:
        if width % word_bits:
            raise attributes.error(f"{part.name}: a width of {width} bits is no multiple of its {word_bits}-bit words")
        if "block_size" not in attributes:
            block = max(1, width // word_bits // cluster)
        elif "cluster_size" not in attributes:
            cluster = max(1, width // word_bits // block)
    instances, mesh_x, mesh_y = _mesh(part)
    half = attributes.rate("bandwidth") / 2 if "bandwidth" in attributes else None
    prices: dict[str, Any]
    if part.name in energies:
        table = energies[part.name]
        prices = {
            "read_energy_pj": _action(part, table, "read"),
            "fill_energy_pj": _action(part, table, "fill", "write"),
            "update_energy_pj": _action(part, table, "update", "write"),
            "leakage_pj_per_cycle": table.get("leak", table.get("leakage", 0.0)),
        }
    else:
        built_in = Estimator("timeloop-dram" if dram else "timeloop-sram")
        prices = {f"{action}_energy_pj": built_in for action in ("read", "fill", "update")}
    return Level(
        name=part.name,
        capacity_bits=_capacity(part, word_bits, block),
        word_bits=word_bits,
        block_words=block,
        instances=instances,
        mesh_x=mesh_x,
        mesh_y=mesh_y,
        cluster_size=cluster,
        read_bandwidth=_bandwidth(attributes, "read_bandwidth", half),
        write_bandwidth=_bandwidth(attributes, "write_bandwidth", half),
        shared_bandwidth=_bandwidth(attributes, "shared_bandwidth", None),
        multiple_buffering=attributes.count("multiple_buffering", 1),
        keeps=(WEIGHTS, INPUTS, OUTPUTS),
        area_mm2=areas.get(part.name, {}).get("area", 0.0),
        **prices,
    )


def _capacity(part: _Part, word_bits: int, block: int) -> int | None:
    attributes = part.attributes
    if "entries" in attributes:
        return attributes.count("entries") * word_bits
    if "sizeKB" in attributes:
        return int(attributes.rate("sizeKB") * 8192)
    for key in ("depth", "memory_depth"):
        if key in attributes:
            return attributes.count(key) * block * word_bits
    return None


def _bandwidth(attributes: MarkedDict, key: str, default: float | None) -> float | None:
    return attributes.rate(key) if key in attributes else default


def _action(part: _Part, table: dict[str, float], *names: str) -> float:
    for name in names:
        if name in table:
            return table[name]
    raise part.attributes.error(f"{part.name}: its energy table has no action {' or '.join(names)}")


def energy_tables(top: MarkedDict) -> tuple[Tables, Tables]:
    """Energies (component -> action -> pJ) and areas (component -> ``area`` -> mm2) of an ERT and an ART, where present."""
    energies: Tables = {}
    for table in top.map("ERT").maps("tables"):
        actions: dict[str, float] = {}
        for action in table.maps("actions"):
            actions.setdefault(action.text("name").lower(), action.price("energy"))
        energies[_short(table.text("name"))] = actions
    areas: Tables = {}
    for table in top.map("ART").maps("tables"):
        # Accelergy states um2.
        areas[_short(table.text("name"))] = {"area": table.price("area") / 1e6}
    return energies, areas


def _short(path: str) -> str:
    """``glb`` for ``system.chip.glb[1..1]``."""
    last = path.rsplit(".", 1)[-1] if ".." not in path else re.sub(r"\[[^\]]*\]", "", path).rsplit(".", 1)[-1]
    return _RANGE.sub(r"\g<name>", last)


def check_names(hardware: Architecture, energies: Tables, place: MarkedDict) -> None:
    """Refuse an energy table that prices some components only: the others would get prices of another origin."""
    missing = [name for name in (*hardware.level_names, hardware.compute.name) if name not in energies]
    if energies and missing:
        raise InvalidInput(f"{place.place[0]}: the energy table has no {', '.join(missing)}; it has {', '.join(sorted(energies))}")
