"""Reports of `tilewright validate`: how far we are from reference data, and how its files are read."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from .errors import InvalidInput

#: Largest reference file, unpacked.
MAX_BYTES = 256 << 20
GZIP_MAGIC = b"\x1f\x8b"


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
    #: Figures that are no errors, by what they are (with their unit); empty where a suite has none.
    figures: dict[str, float] = {}

    @classmethod
    def of(
        cls,
        suite: str,
        file: str | Path,
        errors: Iterable[float],
        *,
        exact: int | None = None,
        spearman: float | None = None,
        skipped: int = 0,
        groups: Mapping[str, ValidationReport] | None = None,
    ) -> ValidationReport:
        """The report on cases with these relative errors (0.01 is 1 %); `exact` counts those without any unless it is given."""
        found = [float(error) for error in errors]
        return cls(
            suite=suite,
            file=str(file),
            cases=len(found),
            exact=sum(error == 0 for error in found) if exact is None else exact,
            within_1pct=sum(error <= 0.01 for error in found),
            mape=100 * sum(found) / len(found) if found else None,
            max_error=100 * max(found) if found else None,
            spearman=spearman,
            skipped=skipped,
            groups=dict(groups or {}),
        )


def read(path: Path) -> bytes:
    """What is in a reference file, unpacked where it is gzipped; `InvalidInput` says why it cannot be read."""
    try:
        with path.open("rb") as plain:
            packed = plain.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            plain.seek(0)
            with gzip.open(plain) if packed else plain as stream:
                data: bytes = stream.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > MAX_BYTES:
        raise InvalidInput(f"{path}: more than {MAX_BYTES >> 20} MiB")
    return data


def read_object(path: str | None, shipped: Path, keys: Iterable[str]) -> dict[str, Any]:
    """The JSON object in a reference file (none: the one that a suite ships), which must have some keys; `InvalidInput` if not."""
    try:
        found: dict[str, Any] = json.loads(read(Path(path) if path else shipped))
        missing = set(keys) - set(found)
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"{path}: {error}, expected one JSON object") from None
    if missing:
        raise InvalidInput(f"{path}: no {', '.join(sorted(missing))}, expected the records that the shipped {shipped.name} has")
    return found
