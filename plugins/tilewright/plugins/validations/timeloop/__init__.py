"""``tilewright validate timeloop``: every figure of Timeloop's own evaluations, case by case.

A case is exact when tile sizes, used instances, reads, fills and updates of every kept tensor at every level, the
cycles of every level and in total, and the utilization (to its printed digits) are identical, and the energy, summed
from counts and energies per access, differs by at most 1e-9 of itself. Where the tool's default mode (peer transfers
on) says something else, that result must be reproduced as well. The error of a case is that of its worst figure.

Cases with imperfect factors are skipped: the tool's own figures for them are approximations without a definition.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from tilewright import loopnest as ln
from tilewright.protocol.cost import Cost
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Options
from tilewright.protocol.validation import ValidationReport

from .cases import DATA, Case, Result, architecture, mapping, operator, read

#: Energy is summed in another order than the reference's.
ENERGY_TOLERANCE = 1e-9
#: Utilization is printed with two decimals of a percent.
PRINTED_PERCENT = 0.005 + 1e-9
COUNTS = ("tile_words", "instances", "reads", "fills", "updates")
SUITE = "timeloop"


class Timeloop:
    """Compares the cost model with recorded evaluations of Timeloop."""

    options: ClassVar[dict[str, str]] = {}

    def run(self, path: str | None, options: Options) -> ValidationReport:
        """Compare on a file of cases (``.gz`` too), or on those shipped, in groups: architectures, peer transfers, differing figures."""
        file = Path(path) if path else DATA
        errors: dict[str, list[float]] = {"": []}
        groups: dict[str, list[float]] = {}
        skipped = 0
        for number, case in read(file):
            if case is None:
                skipped += 1
                continue
            try:
                differing = dict(_compare(case, case.result, peers=False))
                linked = case.result_with_link_transfers
                if linked:
                    with_peers = dict(_compare(case, linked, peers=True))
                    groups.setdefault("peer transfers", []).append(max(with_peers.values(), default=0.0))
                    differing |= {f"peer transfers: {figure}": off for figure, off in with_peers.items()}
            except InvalidInput as error:
                raise InvalidInput(f"{file}, line {number} ({case.id}): {error}") from error
            worst = max(differing.values(), default=0.0)
            errors[""].append(worst)
            groups.setdefault(case.arch.name, []).append(worst)
            for figure, off in differing.items():
                groups.setdefault(f"differs: {figure}", []).append(off)
        if not errors[""] and not skipped:
            raise InvalidInput(f"{file}: has no cases")
        reports = {name: ValidationReport.of(SUITE, file, values) for name, values in sorted(groups.items())}
        if skipped:
            reports["imperfect factors (the tool approximates)"] = ValidationReport.of(SUITE, file, [], skipped=skipped)
        return ValidationReport.of(SUITE, file, errors[""], skipped=skipped, groups=reports)


def _compare(case: Case, expected: Result, *, peers: bool) -> Iterator[tuple[str, float]]:
    """Figures that differ, with their relative errors."""
    problem = ln.Problem(operator(case.problem), architecture(case.arch), conventions=ln.Conventions(peer_transfers=peers))
    cost = ln.cost(problem, mapping(case.mapping))
    if abs(100 * cost.utilization - expected.utilization_percent) > PRINTED_PERCENT:
        yield "utilization", _relative(100 * cost.utilization, expected.utilization_percent)
    energy = _relative(cost.energy_pj, expected.energy_pj_recomputed)
    if energy > ENERGY_TOLERANCE:
        yield "energy", energy
    for figure, ours, theirs in _counts(cost, expected):
        if ours != theirs:
            yield figure, _relative(ours, theirs)


def _counts(cost: Cost, expected: Result) -> Iterator[tuple[str, float, float]]:
    """Every count of the reference with ours: (figure, ours, theirs); a level or tensor that only one of both has counts as 0."""
    yield "cycles", cost.cycles, expected.cycles
    cycles = {row.resource: row.cycles for row in cost.latency}
    rows = {(row.level, row.tensor): row for row in cost.traffic}
    seen = set()
    for level, figures in expected.levels.items():
        yield f"{level} cycles", cycles.get(level, 0), figures.cycles
        for tensor, counts in figures.tensors.items():
            seen.add((level, tensor))
            row = rows.get((level, tensor))
            for name in COUNTS:
                yield f"{level} {tensor} {name}", getattr(row, name, 0), getattr(counts, name)
    for level, tensor in sorted(rows.keys() - seen):
        yield f"{level} {tensor} kept", 1, 0


def _relative(ours: float, theirs: float) -> float:
    return abs(ours - theirs) / abs(theirs) if theirs else float(ours != theirs)
