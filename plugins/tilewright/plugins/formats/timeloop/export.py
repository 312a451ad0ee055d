"""Descriptions written as Timeloop reads them (v0.3), with energies in an Accelergy table of their own."""

from __future__ import annotations

from typing import Any

import yaml

from tilewright import loopnest as ln
from tilewright.protocol.architecture import Architecture, Level
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.mapping import Mapping
from tilewright.protocol.workload import Operator


def dump(value: Any) -> str:
    """YAML text, keys in the order given."""
    text: str = yaml.safe_dump(value, sort_keys=False, default_flow_style=None, width=120)
    return text


def architecture(architecture: Architecture) -> dict[str, Any]:
    """``architecture`` of version 0.3; `InvalidInput` names what Timeloop's dense model cannot express."""
    compute = architecture.compute
    components = [_component(level) for level in reversed(architecture.levels)]
    components.append(
        {
            "name": _ranged(compute.name, compute.instances),
            "class": "intmac",
            "attributes": {"datawidth": compute.bits, "meshX": compute.mesh_x},
        }
    )
    return {"architecture": {"version": 0.3, "subtree": [{"name": architecture.name, "local": components}]}}


def _component(level: Level) -> dict[str, Any]:
    if level.pool or level.network:
        what = "a pool" if level.pool else "a network"
        raise InvalidInput(f"levels.{level.name}: has {what}, which a Timeloop description cannot express")
    attributes: dict[str, Any] = {"word-bits": level.word_bits, "block-size": level.block_words, "meshX": level.mesh_x}
    if level.capacity_words is not None:
        attributes["entries"] = level.capacity_words
    if level.cluster_size > 1:
        attributes["cluster-size"] = level.cluster_size
    if level.multiple_buffering > 1:
        attributes["multiple-buffering"] = level.multiple_buffering
    for key in ("read_bandwidth", "write_bandwidth", "shared_bandwidth"):
        if getattr(level, key) is not None:
            attributes[key] = getattr(level, key)
    kind = "DRAM" if level.capacity_bits is None else "SRAM"
    return {"name": _ranged(level.name, level.instances), "class": kind, "attributes": attributes}


def _ranged(name: str, instances: int) -> str:
    return name if instances == 1 else f"{name}[0..{instances - 1}]"


def tables(architecture: Architecture) -> dict[str, Any]:
    """``ERT`` and ``ART`` with every price of the architecture as a number."""
    prices = ln.Prices(architecture)
    energy = []
    area = []
    for i, level in enumerate(architecture.levels):
        actions = {"read": prices.read[i], "fill": prices.fill[i], "update": prices.update[i], "leak": prices.leakage[i]}
        energy.append(_table(architecture, level.name, level.instances, actions))
        area.append((level.name, level.instances, prices.area[i] / level.instances))
    compute = architecture.compute
    energy.append(_table(architecture, compute.name, compute.instances, {"mac": prices.compute}))
    area.append((compute.name, compute.instances, prices.compute_area / compute.instances))
    return {
        "ERT": {"version": 0.4, "tables": energy},
        "ART": {
            "version": 0.4,
            "tables": [{"name": _path(architecture, name, count), "area": mm2 * 1e6} for name, count, mm2 in area],
        },
    }


def _path(architecture: Architecture, name: str, instances: int) -> str:
    return f"{architecture.name}.{name}[1..{instances}]"


def _table(architecture: Architecture, name: str, instances: int, actions: dict[str, float]) -> dict[str, Any]:
    rows = [{"name": action, "arguments": {}, "energy": energy} for action, energy in actions.items()]
    return {"name": _path(architecture, name, instances), "actions": rows}


def problem(operator: Operator) -> dict[str, Any]:
    """``problem`` of version 0.3, coefficients as constants of the shape."""
    if not operator.is_contraction:
        raise InvalidInput(f"function: {operator.function!r}, but a Timeloop problem is a multiply-accumulate")
    spaces = []
    coefficients: list[dict[str, Any]] = []
    for tensor in operator.tensors:
        projection = []
        for rank in tensor.ranks:
            terms: list[list[str]] = []
            for term in rank.terms:
                if term.coefficient == 1:
                    terms.append([term.dim])
                    continue
                name = f"{tensor.name}_{term.dim}_step"
                coefficients.append({"name": name, "default": term.coefficient})
                terms.append([term.dim, name])
            projection.append(terms)
        spaces.append({"name": tensor.name, "projection": projection, **({"read-write": True} if tensor.name == operator.output else {})})
    shape: dict[str, Any] = {"name": "operator", "dimensions": list(operator.bounds)}
    if coefficients:
        shape["coefficients"] = coefficients
    return {"problem": {"version": 0.3, "shape": {**shape, "data-spaces": spaces}, "instance": operator.bounds}}


def mapping(mapping: Mapping, tensors: tuple[str, ...], dims: tuple[str, ...]) -> dict[str, Any]:
    """``mapping`` directives, outermost level first."""
    if mapping.is_ragged:
        raise InvalidInput("mapping: has ragged loops, which are not exported")
    rows: list[dict[str, Any]] = []
    for level in reversed(mapping.levels):
        for kind, loops in (("temporal", level.temporal), ("spatial", level.spatial)):
            ordered = sorted(loops, key=lambda loop: loop.axis == "Y") if kind == "spatial" else list(loops)
            used = [loop.dim for loop in ordered]
            factors = {loop.dim: loop.factor for loop in loops}
            on_x = [loop.dim for loop in ordered if loop.axis == "X"]
            row: dict[str, Any] = {
                "target": level.level,
                "type": kind,
                "factors": " ".join(f"{dim}={factors.get(dim, 1)}" for dim in dims),
                "permutation": [*used, *(dim for dim in dims if dim not in used)],
            }
            if kind == "spatial":
                if not loops:
                    continue
                row["split"] = len(on_x)
            rows.append(row)
        keep = [tensor for tensor in tensors if tensor in level.keep]
        rows.append(
            {"target": level.level, "type": "datatype", "keep": keep, "bypass": [tensor for tensor in tensors if tensor not in keep]}
        )
    return {"mapping": rows}


def map_text(operator: Operator, mapping: Mapping, architecture: Architecture) -> str:
    """The nest as the tool prints it: levels outer to inner with tile words, loops outer first."""
    cost = ln.cost(ln.Problem(operator, architecture), mapping)
    words = {(row.level, row.tensor): row.tile_words for row in cost.traffic}
    lines: list[str] = []
    depth = 0
    for level in reversed(mapping.levels):
        held = " ".join(f"{tensor}:{words[level.level, tensor]} ({words[level.level, tensor]})" for tensor in level.keep)
        head = f"{level.level} [ {held} ]"
        lines += [head, "-" * len(head)]
        for loops, suffix in ((level.temporal, ""), (level.spatial, " (Spatial-{})")):
            for loop in reversed(loops):
                if loop.factor > 1:
                    lines.append(f"| {'  ' * depth}for {loop.dim} in [0:{loop.factor}){suffix.format(loop.axis)}")
                    depth += 1
        lines.append("")
    return "\n".join(lines)
