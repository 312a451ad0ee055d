"""``tilewright validate timeloop-mapper``: our mappings against those that Timeloop's own mapper finds, layer by layer.

Records: the tool's random search (metric EDP, one thread) on three of its reference architectures, keep sets as each architecture has
them; gemmini_dosa also with the array's weight-stationary constraints. Groups: ``evaluations`` gives `optimal` as many evaluations
as the tool had valid mappings in 10 CPU seconds, ``seconds`` nothing but its own end, which must come within those 10 CPU seconds,
``long`` compares that with the tool's runs of up to 60. The error of a case is how far we are above the record (1 where it took
longer); at or below it there is none.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from tilewright import loopnest as ln
from tilewright.protocol import registry, validation
from tilewright.protocol.architecture import Architecture, Constraints, LevelConstraint
from tilewright.protocol.context import HostContext
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Budget, BudgetExhausted, MapRequest, Options
from tilewright.protocol.validation import ValidationReport
from tilewright.protocol.workload import Operator, conv2d, depthwise

SUITE = "timeloop-mapper"
DATA = Path(__file__).with_name("records.json.gz")
#: CPU seconds of the tool's short runs.
SECONDS = 10.0
#: Records are printed with four digits.
PRINTED = 5e-4
#: What the weight-stationary array allows.
RULES = {
    "gemmini_dosa": Constraints(
        (
            LevelConstraint("Registers", spatial_dims=(), temporal_dims=()),
            LevelConstraint("Accumulator", spatial_dims=("C",)),
            LevelConstraint("Scratchpad", spatial_dims=("K",), temporal_dims=()),
        )
    )
}


class TimeloopMapper:
    """The suite."""

    options: ClassVar[dict[str, str]] = {"only": "one architecture: simba_ert, gemmini_dosa or eyeriss_like (default: all)"}

    def run(self, path: str | None, options: Options) -> ValidationReport:
        """Map every layer twice; `InvalidInput` when the file or the architecture is not what it should be."""
        data, file, only = load(path), path or DATA.name, str(options.get("only", ""))
        if only and only not in data["architectures"]:
            raise InvalidInput(f"options.only: {only!r}, expected one of {', '.join(data['architectures'])}")
        errors: dict[str, list[float]] = {"evaluations": [], "seconds": [], "long": []}
        for record in data["records"]:
            if only not in ("", record["architecture"]):
                continue
            problem = problem_of(data, record)
            errors["evaluations"].append(_above(best(problem, record["valid"]), record["edp"]))
            started = time.process_time()
            found = best(problem)
            slow = time.process_time() - started > SECONDS
            errors["seconds"].append(1.0 if slow else _above(found, record["edp"]))
            if "long_edp" in record:
                errors["long"].append(_above(found, record["long_edp"]))
        every = [error for group in errors.values() for error in group]
        return ValidationReport.of(SUITE, file, every, groups={n: ValidationReport.of(SUITE, file, group) for n, group in errors.items()})


def best(problem: ln.Problem, evaluations: int | None = None) -> float:
    """EDP of the best mapping that `optimal` finds."""
    ctx = HostContext("mappers", "optimal", Budget(evaluations=evaluations))
    mapping = None
    try:
        for candidate in registry.load("mappers", "optimal").search(
            MapRequest(problem.operator, problem.architecture, problem.constraints), ctx
        ):
            mapping = candidate.mapping
    except BudgetExhausted:
        pass
    return float("inf") if mapping is None else ln.cost(problem, mapping).edp


def _above(edp: float, record: float) -> float:
    return max(0.0, edp / (record * (1 + PRINTED)) - 1)


def problem_of(data: dict[str, Any], record: dict[str, Any]) -> ln.Problem:
    """The layer of a record on its architecture, under its constraints."""
    name = record["architecture"]
    machine = msgspec.convert(data["architectures"][name], Architecture)
    return ln.Problem(layer(data["layers"][record["layer"]]), machine, RULES.get(name))


def layer(stated: dict[str, Any]) -> Operator:
    """A convolution, or (shape ``dw``) a depthwise one with its channels in C."""
    dims = {name.lower(): bound for name, bound in stated["dims"].items()}
    window: dict[str, Any] = {"stride": (stated["Wstride"], stated["Hstride"]), "dilation": (stated["Wdilation"], stated["Hdilation"])}
    if stated["shape"] == "dw":
        return depthwise(g=dims.pop("c"), **dims, **window)
    return conv2d(**dims, **window)


def load(path: str | None) -> dict[str, Any]:
    """The records of a file."""
    return validation.read_object(path, DATA, ("architectures", "layers", "records"))
