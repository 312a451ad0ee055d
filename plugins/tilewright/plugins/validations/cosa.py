"""``tilewright validate cosa``: CoSA's published program and the mappings found by it, on the `simba` target.

The file holds one JSON object per line, as the shipped ``cosa_anchors.jsonl.gz`` does. Records of kind ``cosa``, architecture ``simba``
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

FORMULATION = "release(4d89aa6, GB 0.25/0.75)"
SUITE = "cosa"
DATA = Path(__file__).with_name("cosa_anchors.jsonl.gz")
#: Largest absolute difference of objectives (a few hundred) that counts as equal.
EQUAL = 1e-6
#: Largest relative difference of energies that counts as equal: the recorded coefficients are rounded.
ROUNDED = 1e-5


class Cosa:
    """The suite. Groups: the program's objective, and cycles and energy of the recorded mappings under the one cost model."""

    options: ClassVar[dict[str, str]] = {}

    def run(self, path: str | None, options: Options) -> ValidationReport:
        """Solve every record's layer; `InvalidInput` when the file has no usable record."""
        records = load(path)
        architecture = registry.load("targets", "simba").architecture()
        cycles, energy = [], []
        networks: dict[str, list[tuple[float, float]]] = defaultdict(list)
        invalid = 0
        for record in records:
            problem = ln.Problem(layer(record), architecture)
            error = abs(solve(problem).get("objective", np.inf) - record["objective"])
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
        file = path or DATA.name
        groups = {f"objective, {name}": _objectives(file, errors) for name, errors in networks.items()}
        groups["recorded mapping, cycles"] = ValidationReport.of(SUITE, file, cycles, skipped=invalid)
        rounded = sum(error <= ROUNDED for error in energy)
        groups["recorded mapping, energy"] = ValidationReport.of(SUITE, file, energy, exact=rounded, skipped=invalid)
        return msgspec.structs.replace(_objectives(file, [pair for pairs in networks.values() for pair in pairs]), groups=groups)


def solve(problem: ln.Problem) -> dict[str, float]:
    """Figures that the mapper ``cosa`` reports of its program."""
    figures: dict[str, float] = {}
    ctx = HostContext("mappers", "cosa", Budget(), progress=lambda message, values: figures.update(values))
    request = MapRequest(problem.operator, problem.architecture, problem.constraints)
    for _ in registry.load("mappers", "cosa").search(request, ctx):
        pass
    return figures


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
