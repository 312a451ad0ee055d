"""Reports of `tilewright validate`: how far we are from reference data."""

from __future__ import annotations

import msgspec


class ValidationReport(msgspec.Struct, frozen=True):
    """Errors of one suite on one file (or of one group of its cases); fields that do not apply are None, errors in percent."""

    suite: str
    file: str
    cases: int
    #: Cases in which every compared figure is identical.
    exact: int | None = None
    #: Cases whose largest error is at most 1 %.
    within_1pct: int | None = None
    #: Mean absolute percentage error.
    mape: float | None = None
    max_error: float | None = None
    #: Spearman rank correlation.
    spearman: float | None = None
    #: Cases not compared, with the reason in `groups`.
    skipped: int = 0
    groups: dict[str, ValidationReport] = {}
