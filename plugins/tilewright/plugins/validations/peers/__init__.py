"""``tilewright validate peers``: our mappings of `tpu_like` against those that ZigZag and AccelForge find on the same machine.

Each tool's figures are compared under its own rules. ZigZag's latency cannot be compared: the formula that reproduces its figures
for the mappings that were recorded (`tests/loopnest/test_conventions.py`) finds shorter runs than ZigZag's best for most rows of
ResNet-50 (group ``latency``), so it is not what ZigZag minimizes. Therefore single layers are compared by energy under ZigZag's
rules and by EDP under AccelForge's, and whole networks (sum of energies times sum of cycles) by EDP under AccelForge's.

A case's error is how far we are above the record; at or below it there is none. `exact` counts cases at or below the record and,
for single layers, proven.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from tilewright import loopnest as ln
from tilewright.loopnest.mapspace import problem_of
from tilewright.protocol import registry, validation
from tilewright.protocol.context import HostContext
from tilewright.protocol.cost import Claim, Cost, Objective
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Budget, MapRequest, Options
from tilewright.protocol.validation import ValidationReport
from tilewright.protocol.workload import Operator, conv2d

SUITE = "peers"
DATA = Path(__file__).with_name("records.json")
#: Records are printed with six digits at most.
PRINTED = 1e-6
#: Gap of a bound that proves a mapping: blocks and cycles are whole numbers, bounds are not.
PROVEN = 1e-5
ZIGZAG: Options = {"outputs": "zigzag", "latency": "roofline"}
ZIGZAG_LATENCY: Options = {"outputs": "zigzag", "latency": "first-load"}
ACCELFORGE: Options = {"outputs": "accelforge", "latency": "roofline"}


class Found(NamedTuple):
    """The best mapping's cost and claim."""

    cost: Cost
    claim: Claim


class Peers:
    """The suite. Groups: ``energy``, ``edp`` (single layers), ``latency`` (rows of ResNet-50), and one per network."""

    options: ClassVar[dict[str, str]] = {"only": "one group: energy, edp, latency, resnet18, resnet50 or bert (default: all)"}

    def run(self, path: str | None, options: Options) -> ValidationReport:
        """Map every layer again; `InvalidInput` when the file or the group is not what it should be."""
        records, file = load(path), path or DATA.name
        groups = {
            name: ValidationReport.of(SUITE, file, [error for error, _ in cases], exact=sum(met for _, met in cases))
            for name, cases in _cases(records, str(options.get("only", "")))
        }
        judged = [report for name, report in groups.items() if name != "latency"]
        return ValidationReport(
            SUITE,
            file,
            cases=sum(report.cases for report in judged),
            exact=sum(report.exact or 0 for report in judged),
            within_1pct=sum(report.within_1pct or 0 for report in judged),
            max_error=max((report.max_error or 0.0 for report in judged), default=None),
            groups=groups,
        )


Cases = list[tuple[float, bool]]


def _cases(records: dict[str, Any], only: str) -> list[tuple[str, Cases]]:
    """(error, met) of every case of every group asked for."""
    groups: dict[str, Callable[[], Cases]] = {
        "energy": lambda: [_single(record, "energy", ZIGZAG) for record in records["single"].values()],
        "edp": lambda: [_single(record, "edp", ACCELFORGE) for record in records["accelforge"].values()],
        "latency": lambda: [_row(row) for row in records["networks"]["resnet50"]["layers"]],
    }
    groups |= {name: partial(_networks, network) for name, network in records["networks"].items()}
    if only and only not in groups:
        raise InvalidInput(f"options.only: {only!r}, expected one of {', '.join(groups)}")
    return [(name, cases()) for name, cases in groups.items() if only in ("", name)]


def _single(record: dict[str, Any], objective: Objective, rules: Options) -> tuple[float, bool]:
    found = best(layer(record["layer"]), objective, rules)
    target = record["energy_uj"] * 1e6 * (record["cycles"] if objective == "edp" else 1)
    error = found.cost.objective(objective) / target - 1
    return max(0.0, error), error <= PRINTED and found.claim.gap is not None and found.claim.gap <= PROVEN


def _networks(record: dict[str, Any]) -> Cases:
    energy, cycles = totals(record)
    error = energy * cycles / record["edp"] - 1
    return [(max(0.0, error), error <= 0)]


def totals(record: dict[str, Any]) -> tuple[float, int]:
    """pJ and cycles of a network."""
    costs = [(row["count"], best(layer(row["layer"]), "edp", ACCELFORGE).cost) for row in record["layers"]]
    return sum(count * cost.energy_pj for count, cost in costs), sum(count * cost.cycles for count, cost in costs)


def _row(row: dict[str, Any]) -> tuple[float, bool]:
    """How far the best mapping's cycles under ZigZag's formula are from the row's."""
    cycles = best(layer(row["layer"]), "edp", ZIGZAG_LATENCY).cost.cycles
    return abs(cycles / row["cycles"] - 1), cycles == row["cycles"]


def best(operator: Operator, objective: Objective, rules: Options) -> Found:
    """What the mapper ``optimal`` finds on `tpu_like` under some rules."""
    target = registry.load("targets", "tpu_like")
    request = MapRequest(operator, target.architecture(), target.constraints(), objective, conventions=rules)
    *_, last = registry.load("mappers", "optimal").search(request, HostContext("mappers", "optimal", Budget()))
    return Found(ln.cost(problem_of(request), last.mapping), last.claim)


def layer(stated: dict[str, Any]) -> Operator:
    """The convolution (or product: one output row of one-wide filters) of a record."""
    dims = {name: bound for name, bound in stated.items() if name != "stride"}
    return conv2d(**dims, stride=(stated["stride"], stated["stride"]))


def load(path: str | None) -> dict[str, Any]:
    """The records of a file."""
    return validation.read_object(path, DATA, ("single", "accelforge", "networks"))
