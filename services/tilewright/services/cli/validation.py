"""``validate``: how far the models are from reference data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput, suggest

from . import console, parse, tables

if TYPE_CHECKING:
    from rich.table import Table

    from tilewright.protocol.validation import ValidationReport


def validate(suite: str, file: Path | None, options: Sequence[str], *, json: bool) -> None:
    """Run a suite, on a file or on its own data, and print its errors."""
    plugin = registry.load("validations", suite)
    given = parse.options(options, "--option")
    for name in given:
        if name not in plugin.options:
            raise InvalidInput(f"option {name!r} is unknown to the suite {suite}{suggest(name, plugin.options)}")
    if file is not None and not file.is_file():
        raise InvalidInput(f"file {str(file)!r} does not exist")
    report: ValidationReport = plugin.run(None if file is None else str(file), given)
    if json:
        console.json_line(msgspec.to_builtins(report))
    else:
        console.show(errors(report))
        found = figures(report)
        if found is not None:
            console.show(found)


def errors(report: ValidationReport) -> Table:
    """Errors of a suite and of its groups."""
    made = tables.table(
        "group", "cases", "exact", "within 1 %", "mean error", "largest error", "rank correlation", "skipped",
        title=f"{report.suite}: {report.file}", right=range(1, 8),
    )  # fmt: skip

    def add(name: str, each: ValidationReport) -> None:
        made.add_row(
            name,
            str(each.cases),
            _count(each.exact),
            _count(each.within_1pct),
            _percent(each.mape),
            _percent(each.max_error),
            "-" if each.spearman is None else f"{each.spearman:.4f}",
            str(each.skipped),
        )
        for inner, group in each.groups.items():
            add(f"{name if name != 'all' else ''}  {inner}", group)

    add("all", report)
    return made


def figures(report: ValidationReport) -> Table | None:
    """What groups state beside errors, a column per figure; None when they state nothing."""
    rows: list[tuple[str, dict[str, float]]] = []

    def add(name: str, each: ValidationReport) -> None:
        if each.figures:
            rows.append((name, each.figures))
        for inner, group in each.groups.items():
            add(f"{name}: {inner}" if name else inner, group)

    add("", report)
    if not rows:
        return None
    columns = list(dict.fromkeys(name for _, stated in rows for name in stated))
    made = tables.table("group", *columns, title="figures", right=range(1, len(columns) + 1))
    for name, stated in rows:
        made.add_row(name, *(f"{stated[column]:.4g}" if column in stated else "-" for column in columns))
    return made


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g} %"
