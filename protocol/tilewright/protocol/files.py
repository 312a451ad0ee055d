"""Native files: workloads, operators, architectures, constraints and mappings as YAML (or JSON) that people write.

One file may hold several sections. Integers are plain, sizes have units, and every error says ``file:line:column``, the
field, the value, and what was expected::

    architecture:
      name: my-chip
      clock_ghz: 1.0
      compute: {name: MAC, mesh: [16, 16], bits: 8, energy_pj: 0.5}
      levels:                                    # innermost first, DRAM last
        - {name: Registers, capacity: 64 words, mesh: [16, 16], keeps: [Weights], energy_pj: 0.1}
        - {name: Buffer, capacity: 256 KiB, block_words: 16, shared_bandwidth: 32, keeps: [Inputs, Outputs],
           energy_pj: {name: dosa-scratchpad}, fill_energy_pj: 4}
        - {name: DRAM, shared_bandwidth: 8, keeps: [Weights, Inputs, Outputs], energy_pj: 100}
    constraints:
      - {level: Buffer, spatial_dims: [C, K]}
    operator:
      conv2d: {r: 3, s: 3, p: 56, q: 56, c: 64, k: 64, padding: 1}
    mapping: |                                   # outermost first, as mappings are drawn
      DRAM [Weights Inputs Outputs]
        for K in 4
      Buffer [Inputs Outputs]
        parallel-for K in 16 (X)
      ...
    workload:
      name: my-net
      operators:                                 # in execution order
        - {name: proj, count: 4, matmul: {p: 128, c: 768, k: 768}}
        - {name: scores, batched_matmul: {g: 12, p: 128, c: 64, k: 128}}
        - {name: softmax, softmax: {shape: {G: 12, P: 128, K: 128}, reduced: [K]}}

What may be written for what (all other fields are those of the structs):

- ``capacity``: bits, B, KiB, MiB, GiB or words, instead of ``capacity_bits``; ``mesh``: ``16`` or ``[16, 16]``, instead of
  ``instances``, ``mesh_x`` and ``mesh_y``; ``energy_pj`` of a level: its read, fill and update energy.
- a price: pJ or mm2 as a number, the name of an estimator, or ``{name, parameters}``.
- an operator: ``matmul``, ``batched_matmul``, ``conv2d``, ``depthwise`` or a function with the arguments of their
  constructors (one number stands for a pair); or ``dims: {P: 8, ...}`` and ``tensors: {Inputs: {ranks: [P, 2*Q + S - 1], ...}}``,
  where a rank with a stored extent is ``{index: 2*Q + S - 1, extent: 56}``.
- a mapping: the drawn nest, or a list of levels, innermost first, with loops such as ``K 16``, ``C 4 Y`` or ``~P 7`` (ragged).
- a workload: ``operators`` with ``name`` and ``count``; or with ``nodes`` and ``edges`` when the graph matters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

from ._architectures import read_compute, read_estimator, read_level, write_architecture
from ._fields import Reader
from ._nests import parse_nest, read_loop, read_mapping, write_mapping
from ._nodes import Value, load, loads
from ._operators import read_operator, write_operator
from .architecture import Architecture, Compute, Constraints, Estimator, Level, LevelConstraint
from .errors import InvalidInput
from .mapping import Loop, Mapping
from .plugin import Document
from .workload import Operator, Workload

__all__ = ["Contents", "parse", "parse_nest", "read", "read_document", "read_workload", "write"]


class Contents(NamedTuple):
    """Sections of a file; None: it has none of that name."""

    operator: Operator | None = None
    architecture: Architecture | None = None
    constraints: Constraints | None = None
    mapping: Mapping | None = None
    workload: Workload | None = None


def read(path: str | Path) -> Contents:
    """What a file says; `InvalidInput` names the place of what is wrong."""
    return _contents(load(path))


def parse(text: str, name: str = "<text>") -> Contents:
    """What a text says; `name` stands for the file in errors."""
    return _contents(loads(text, name))


def read_document(paths: Sequence[str | Path]) -> Document:
    """What some files describe together, workloads aside; a section that two of them have is an error."""
    found: dict[str, Any] = {}
    for path in paths:
        for section, value in read(path)._asdict().items():
            if value is not None and found.setdefault(section, value) is not value:
                raise InvalidInput(f"{path}: {section} is given by another file already")
    found.pop("workload", None)
    return Document(**found)


def read_workload(path: str | Path) -> Workload:
    """The workload of a file; a lone operator is a workload of one node."""
    contents = read(path)
    if contents.workload is not None:
        return contents.workload
    if contents.operator is not None:
        return Workload.build(Path(path).stem, [("operator", contents.operator)], source=str(Path(path).name))
    raise InvalidInput(f"{path}: has neither workload nor operator")


def write(
    *,
    operator: Operator | None = None,
    architecture: Architecture | None = None,
    constraints: Constraints | None = None,
    mapping: Mapping | None = None,
    workload: Workload | None = None,
) -> str:
    """YAML that `parse` reads back to equal structs."""
    plain: dict[str, Any] = {}
    if architecture is not None:
        plain["architecture"] = write_architecture(architecture)
    if constraints is not None:
        plain["constraints"] = msgspec.to_builtins(constraints.levels)
    if operator is not None:
        plain["operator"] = write_operator(operator)
    if mapping is not None:
        plain["mapping"] = write_mapping(mapping)
    if workload is not None:
        plain["workload"] = msgspec.to_builtins(workload) | {"operators": [write_operator(each) for each in workload.operators]}
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, width=140, default_flow_style=None, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Draws texts of several lines as blocks, and writes equal parts out instead of sharing them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _contents(document: Value) -> Contents:
    sections = document.mapping(f"sections {', '.join(Contents._fields)}")
    for name in sections:
        if name not in Contents._fields:
            raise document.key_error(name, Contents._fields, "section")
    return Contents(**{name: _SECTIONS[name](value) for name, value in sections.items()})


def _constraints(value: Value) -> Constraints:
    return Constraints(tuple(_READER.read(item, LevelConstraint) for item in value.items("a list of constraints, one per level")))


def _workload(value: Value) -> Workload:
    given = value.mapping("a workload")
    if "operators" not in given:
        raise value.error("has no 'operators'")
    fields = _READER.fields(value, Workload, ("operators",))
    items = given["operators"].items("a list of operators")
    if "nodes" in given:
        operators = tuple(_READER.read(item, Operator) for item in items)
        return _READER.build(value, Workload, {**fields, "operators": operators})
    if "name" not in fields:
        raise value.error("has no 'name'")
    if fields.get("edges"):
        raise given["edges"].error("edges without nodes, expected both or neither")
    calls: list[tuple[str, Operator]] = []
    for number, item in enumerate(items):
        about = item.mapping("an operator")
        name = about["name"].text() if "name" in about else f"operator{number}"
        operator = read_operator(_READER, item, ("name", "count"))
        calls += [(name, operator)] * (_count(about["count"]) if "count" in about else 1)
    if not calls:
        raise given["operators"].error("empty, expected at least one operator")
    return Workload.build(fields["name"], calls, parameters=fields.get("parameters", 0), source=fields.get("source", ""))


def _count(value: Value) -> int:
    count = value.integer(1)
    if count > _MOST:
        raise value.wrong(f"an integer from 1 to {_MOST}")
    return count


#: Most repetitions of one operator that a workload may ask for.
_MOST = 100_000
_READER = Reader(
    {
        Compute: read_compute,
        Level: read_level,
        Estimator: read_estimator,
        Loop: read_loop,
        Operator: read_operator,
        Mapping: read_mapping,
    }
)
_SECTIONS: dict[str, Callable[[Value], Any]] = {
    "operator": lambda value: _READER.read(value, Operator),
    "architecture": lambda value: _READER.read(value, Architecture),
    "constraints": _constraints,
    "mapping": lambda value: _READER.read(value, Mapping),
    "workload": _workload,
}
