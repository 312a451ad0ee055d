"""``tilewright validate survey``: the convention ``survey`` against the numbers that the survey prints.

A case is one printed number. It is exact when ours is within one unit of its last printed digit. Numbers that contradict others
of the paper are errata: each is a group of its own with what was printed and what we count, and none of them is a case; the
figures of BERT-Large are cases once more with its missing projection left out as well, and as corrected.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from tilewright.protocol.plugin import Options
from tilewright.protocol.validation import ValidationReport

from .cases import DATA, Case, cases, read

SUITE = "survey"


class Survey:
    """Compares counts, intensities and latencies with the printed ones."""

    uses: ClassVar[tuple[str, ...]] = ("frontends:zoo", "conventions:survey")
    options: ClassVar[dict[str, str]] = {}

    def run(self, path: str | None, options: Options) -> ValidationReport:
        """Compare on a file of the same form (YAML), or on the one shipped; one group per figure and table, per miss and per erratum."""
        file = Path(path) if path else DATA
        found = list(cases(read(file), str(file)))
        counted = [case for case in found if not case.erratum]
        groups = {name: _report(file, [case for case in counted if case.group == name]) for name in dict.fromkeys(c.group for c in counted)}
        for case in counted:
            if not case.exact:
                why = f" ({case.reason})" if case.reason else ""
                groups[f"miss: {case.name}: printed {case.printed}, counted {case.value:.6g}{why}"] = _report(file, [case])
        for case in found:
            if case.erratum:
                title = f"erratum: {case.name}: printed {case.printed}, counted {case.value:.6g} ({case.erratum})"
                groups[title] = _report(file, [], skipped=1)
        return _report(file, counted, groups, len(found) - len(counted))


def _report(file: Path, cases: Iterable[Case], groups: dict[str, ValidationReport] | None = None, skipped: int = 0) -> ValidationReport:
    found = list(cases)
    return ValidationReport.of(
        SUITE, file, (case.error for case in found), exact=sum(case.exact for case in found), skipped=skipped, groups=groups
    )
