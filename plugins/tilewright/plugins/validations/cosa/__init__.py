"""``tilewright validate cosa``: CoSA's published program and the mappings found by it, on the `simba` target; its figures 8 to 10.

The file holds one JSON object per line, as the shipped ``anchors.jsonl.gz`` does. Records of kind ``cosa``, architecture ``simba``
and the formulation `FORMULATION` are used: the optimum of the released program (commit 4d89aa6, solved by Gurobi in its
original form), a mapping with that optimum, and what Timeloop says of it. The shipped records were measured for Tilewright;
layers are those of the release (AlexNet, ResNet-50, ResNeXt-50, DeepBench) and BERT-base.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np

from tilewright import loopnest as ln
from tilewright.protocol import registry, validation
from tilewright.protocol.architecture import Architecture
from tilewright.protocol.context import HostContext
from tilewright.protocol.errors import InvalidInput, InvalidMapping
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.plugin import Budget, MapRequest, Options
from tilewright.protocol.validation import ValidationReport
from tilewright.protocol.workload import Operator, conv2d

from .figures import compare
from .machines import NAMES

FORMULATION = "release(4d89aa6, GB 0.25/0.75)"
SUITE = "cosa"
DATA = Path(__file__).with_name("anchors.jsonl.gz")
#: Largest absolute difference of objectives (a few hundred) that counts as equal.
EQUAL = 1e-6
#: Largest relative difference of energies that counts as equal: the recorded coefficients are rounded.
ROUNDED = 1e-5


class Cosa:
    """The suite.

    Groups: the program's objective, cycles and energy of the recorded mappings under the one cost model, layers whose mapping does
    not fit, and other mappers' mappings over CoSA's.
    """

    options: ClassVar[dict[str, str]] = {
        "figures": "layers of each network that other mappers map too, on each machine; 0: none, all: every one (default 1)",
        "machines": f"machines for that, of {', '.join(NAMES)} (default: all)",
    }

    def run(self, path: str | None, options: Options) -> ValidationReport:
        """Solve every record's layer; `InvalidInput` when the file has no usable record."""
        records = load(path)
        count, names = _figures(options)
        architecture = registry.load("targets", "simba").architecture()
        cycles, energy = [], []
        networks: dict[str, list[tuple[float, float]]] = defaultdict(list)
        groups: dict[str, ValidationReport] = {}
        file = path or DATA.name
        invalid = 0
        for record in records:
            problem = ln.Problem(layer(record), architecture)
            solved = solve(problem)
            error = abs(solved.get("objective", np.inf) - record["objective"])
            if "excess" in solved:
                groups[f"does not fit, {record['network']} {record['layer']}"] = _overfull(file, solved)
            networks[record["network"]].append((error, error / record["objective"]))
            measured = record["timeloop"]
            try:
                cost = ln.cost(problem, recorded(record, architecture))
            except InvalidMapping:
                invalid += 1
                if measured["valid"]:
                    cycles.append(1.0)
                continue
            cycles.append(abs(cost.cycles / measured["cycles"] - 1))
            energy.append(abs(cost.energy_pj / 1e6 / measured["energy_uJ"] - 1))
        groups |= {f"objective, {name}": _objectives(file, errors) for name, errors in networks.items()}
        groups["recorded mapping, cycles"] = ValidationReport.of(SUITE, file, cycles, skipped=invalid)
        rounded = sum(error <= ROUNDED for error in energy)
        groups["recorded mapping, energy"] = ValidationReport.of(SUITE, file, energy, exact=rounded, skipped=invalid)
        layers: dict[str, list[Operator]] = defaultdict(list)
        for record in records:
            if count is None or len(layers[record["network"]]) < count:
                layers[record["network"]].append(layer(record))
        if count != 0:
            groups |= compare(SUITE, file, dict(layers), names)
        return msgspec.structs.replace(_objectives(file, [pair for pairs in networks.values() for pair in pairs]), groups=groups)


def solve(problem: ln.Problem) -> dict[str, float]:
    """Figures that the mapper ``cosa`` reports of its program."""
    figures: dict[str, float] = {}
    ctx = HostContext("mappers", "cosa", Budget(), progress=lambda message, values: figures.update(values))
    request = MapRequest(problem.operator, problem.architecture, problem.constraints)
    figures["found"] = sum(1 for _ in registry.load("mappers", "cosa").search(request, ctx))
    return figures


def _figures(options: Options) -> tuple[int | None, list[str]]:
    """Layers per network (None: all) and machines."""
    said = options.get("figures", 1)
    if said != "all" and (isinstance(said, bool | str) or said != int(said) or said < 0):
        raise InvalidInput(f"options.figures: {said!r}, expected a number of layers, or all")
    names = [word.strip() for word in str(options.get("machines", ",".join(NAMES))).split(",")]
    for name in names:
        if name not in NAMES:
            raise InvalidInput(f"options.machines: {name!r}, expected some of {', '.join(NAMES)}")
    return None if said == "all" else int(said), names


def _overfull(file: str, solved: dict[str, float]) -> ValidationReport:
    """A layer whose mapping by the program exceeds a capacity, and what repairing it came to."""
    figures = {"words too many": solved["excess"], "repaired": float(solved["found"])}
    return msgspec.structs.replace(ValidationReport.of(SUITE, file, (), exact=0), figures=figures)


def load(path: str | None) -> list[dict[str, Any]]:
    """The distinct layers of a file."""
    data = validation.read(Path(path) if path else DATA)
    try:
        records = [json.loads(line) for line in data.splitlines() if line.strip()]
        wanted = [
            r for r in records if r["kind"] == "cosa" and r["arch"] == "simba" and r["formulation"] == FORMULATION and not r["dup_of"]
        ]
    except (ValueError, KeyError) as error:
        raise InvalidInput(f"{path}: {type(error).__name__}: {error}, expected one JSON record per line") from None
    if not wanted:
        raise InvalidInput(f"{path}: no records of kind 'cosa', arch 'simba' and formulation {FORMULATION!r}")
    return wanted


def layer(record: dict[str, Any]) -> Operator:
    """The convolution of a record."""
    dims = {name.lower(): bound for name, bound in record["dims"].items()}
    return conv2d(**dims, stride=tuple(record["stride_PQ"]))


def recorded(record: dict[str, Any], architecture: Architecture) -> Mapping:
    """The mapping of a record; tensors live where the architecture keeps them."""
    return Mapping(
        tuple(
            LevelMapping(
                level.name,
                tuple(Loop(dim, factor) for dim, factor in stated["spatial"].items()),
                tuple(Loop(dim, stated["temporal"][dim]) for dim in stated["order_inner_to_outer"] if dim in stated["temporal"]),
                level.keeps,
            )
            for level, stated in zip(architecture.levels, record["mapping_inner_to_outer"], strict=True)
        )
    )


def _objectives(file: str, errors: list[tuple[float, float]]) -> ValidationReport:
    """The report on objectives, from their absolute and relative errors."""
    exact = sum(absolute <= EQUAL for absolute, _ in errors)
    return ValidationReport.of(SUITE, file, (relative for _, relative in errors), exact=exact)
