"""How reports of ``validate`` are shown."""

from __future__ import annotations

from msgspec.structs import replace
from rich.console import Console

from tilewright.protocol.validation import ValidationReport
from tilewright.services.cli.validation import figures


def test_figures_have_a_column_each() -> None:
    plain = ValidationReport.of("suite", "file", [0.01])
    inner = replace(plain, figures={"EDP": 1.5e9, "CPU s": 2.0})
    report = replace(plain, groups={"one": replace(plain, groups={"net": inner}), "two": replace(plain, figures={"EDP": 3.0})})
    found = figures(report)
    assert found is not None
    assert [column.header for column in found.columns] == ["group", "EDP", "CPU s"]
    console = Console(width=80, record=True)
    console.print(found)
    rows = [line.split() for line in console.export_text().splitlines() if line.startswith(("one", "two"))]
    assert rows == [["one:", "net", "1.5e+09", "2"], ["two", "3", "-"]]


def test_nothing_is_shown_where_there_are_none() -> None:
    assert figures(ValidationReport.of("suite", "file", [0.01])) is None
