"""``tilewright validate workloads``: the zoo (or another frontend) against traced forward passes of the reference implementations.

Without a file it goes on with closed forms of many models (`formulas`); with the option ``against=torch`` it compares the frontend
``huggingface`` with torch's own counter instead, and lists where that is wrong (`counter`).

A case is a group of equal operators of a model. It is exact when number, dims, MACs, bytes read and written of each, and FLOPs
where the file states them, are identical; operators that only one side has are cases with an error of 100 %. The
totals of MACs and parameters are two more cases per model.

How both sides count: every operand is read once and every result written once; biases and the vectors of a layer
normalization count, those of batch and RMS normalizations do not; ids are 64-bit; keys and values are read once per
key/value head; attention is counted in full, causal or not; experts are assumed to be used evenly. Where they differ:

- Functions that we do not tell apart (cosine, negation, ...) are ``elementwise``, and all that moves data is ``copy``.
- FLOPs of overlapping pools are not compared: the file has one per input, we have one per tap.
- A transposed convolution is one row of the file and one operator per stride phase here: the phases' MACs and results
  are added, their shared input, weights and bias are counted once.
- The file merges operators that differ in nothing but a bias, and gives the bytes of the first.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Frontend, Options
from tilewright.protocol.validation import ValidationReport

from . import counter
from .formulas import formulas
from .ours import Group, groups
from .reference import DATA, Key, Model, Row, read, request

SUITE = "workloads"


class Workloads:
    """Compares the zoo with a file of recorded models."""

    uses: ClassVar[tuple[str, ...]] = ("frontends:zoo",)
    options: ClassVar[dict[str, str]] = {
        "frontend": "frontend that is compared: zoo, huggingface, or another with models by these names (zoo)",
        "against": "file: recorded models, and closed forms where no file is given; torch: its FlopCounterMode, with huggingface (file)",
    }

    def run(self, path: str | None, options: Options) -> ValidationReport:
        """Compare on a file (``.gz`` too), or on the one shipped; one group per model, and one per case that differs."""
        file = Path(path) if path else DATA
        against = options.get("against", "file")
        if against == "torch":
            if path or options.get("frontend", "huggingface") != "huggingface":
                raise InvalidInput("against: torch, expected no file, and no frontend but huggingface, with it")
            return counter.report(SUITE)
        if against != "file":
            raise InvalidInput(f"against: {against!r}, expected file or torch")
        compared = options.get("frontend", "zoo")
        if not isinstance(compared, str):
            raise InvalidInput(f"frontend: {compared!r}, expected a name")
        frontend: Frontend = registry.load("frontends", compared)
        errors: list[float] = []
        reports: dict[str, ValidationReport] = {}
        skipped = 0
        for name, model in read(file).items():
            source, wanted = request(name)
            if source not in frontend.models():
                skipped += len(model.workloads)
                reports[f"{name}: not in the {compared}"] = ValidationReport.of(SUITE, file, [], skipped=len(model.workloads))
                continue
            try:
                workload = frontend.load(source, {**wanted, "bits": model.bits})
                cases = _compare(model, groups(workload))
            except (InvalidInput, KeyError, StopIteration) as error:
                what = f"has no {error}" if isinstance(error, KeyError) else str(error) or "has no operator with weights"
                raise InvalidInput(f"{file}, model {name!r}: {what}") from error
            cases["total MACs"] = _off(workload.macs, model.total_macs)
            cases["parameters"] = _off(workload.parameters, model.params)
            errors += cases.values()
            reports[name] = ValidationReport.of(SUITE, file, cases.values())
            reports |= {f"{name}: {case}": ValidationReport.of(SUITE, file, [off]) for case, off in cases.items() if off}
        if not path:
            closed = _formulas(frontend)
            errors += [error for group in closed.values() for error in group]
            reports |= {name: ValidationReport.of(SUITE, "closed form", group) for name, group in closed.items()}
        return ValidationReport.of(SUITE, file, errors, skipped=skipped, groups=reports)


def _formulas(frontend: Frontend) -> dict[str, list[float]]:
    """Relative errors of the multiply-accumulates of the models that the frontend has, by model."""
    found: dict[str, list[float]] = {}
    for each in formulas():
        if each.model in frontend.models():
            found.setdefault(f"closed form: {each.model}", []).append(_off(frontend.load(each.model, each.options).macs, each.macs))
    return found


def _compare(model: Model, ours: dict[Key, Group]) -> dict[str, float]:
    """Relative error of each case."""
    theirs: dict[Key, list[Row]] = {}
    for row in model.workloads:
        theirs.setdefault(row.key, []).append(row)
    cases = {str(key): 1.0 for key in ours.keys() - theirs.keys()}
    for key, rows in theirs.items():
        group = ours.get(key)
        if group is None:
            cases[str(key)] = 1.0
            continue
        first = rows[0]
        pairs = [
            (group.count, sum(row.count for row in rows)),
            (group.macs, first.macs_each),
            (group.read_bytes, first.read_bytes_each),
            (group.write_bytes, first.write_bytes_each),
        ]
        if first.flops_each is not None and group.flops is not None:
            pairs.append((group.flops, first.flops_each))
        cases[str(key)] = max(_off(mine, reference) for mine, reference in pairs)
    return cases


def _off(mine: int, reference: int) -> float:
    if mine == reference:
        return 0.0
    return abs(mine - reference) / abs(reference) if reference else 1.0
