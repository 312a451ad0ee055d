"""The printed numbers, each beside ours."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

from tilewright.protocol import validation
from tilewright.protocol.errors import InvalidInput

from .ours import Model, Sums, table5

DATA = Path(__file__).with_name("printed.yaml")
#: Columns of tables 3, 10 and 11.
COLUMNS = ("GFLOPs", "GMOPs", "FLOPs per byte")
TABLE5 = ("queries, keys, values", "Q x K", "A x V", "W_out", "W_1", "W_2", "total")


class Printed(msgspec.Struct, frozen=True, rename={"table5": "table 5", "table12": "table 12"}):
    """The file."""

    lengths: tuple[int, ...]
    figures: dict[str, dict[str, str]] = {}
    tables: dict[str, dict[str, Any]] = {}
    table5: dict[int, str] = {}
    table12: dict[str, str] = {}
    resnet50: dict[str, str] = {}
    errata: dict[str, str] = {}
    corrected: dict[str, str] = {}
    misses: dict[str, str] = {}


class Case(NamedTuple):
    """One printed number and ours."""

    group: str
    name: str
    printed: str
    value: float
    erratum: str = ""
    #: Why it is missed, where that is known.
    reason: str = ""

    @property
    def error(self) -> float:
        """Relative error."""
        return abs(self.value / float(self.printed) - 1)

    @property
    def exact(self) -> bool:
        """Within one unit of the last printed digit."""
        unit = float(Decimal(1).scaleb(int(Decimal(self.printed).as_tuple().exponent)))
        return abs(self.value - float(self.printed)) <= unit * (1 + 1e-9)


def read(path: Path) -> Printed:
    """The file's numbers; `InvalidInput` says what is wrong with it."""
    raw = validation.read(path)
    try:
        return msgspec.convert(yaml.safe_load(raw), Printed)
    except (ValueError, yaml.YAMLError) as error:
        raise InvalidInput(f"{path}: {error}; expected the form of {DATA.name}, which `tilewright validate survey` uses") from error


def cases(printed: Printed, file: str) -> Iterator[Case]:
    """Every number of the file, those that are printed as ``-`` left out."""
    ours = Model()
    try:
        for case in (*_figures(printed, ours), *_tables(printed, ours), *_table5(printed, ours), *_resnet(printed, ours)):
            if case.printed != "-":
                yield case._replace(erratum=_said(printed.errata, case.name), reason=_said(printed.misses, case.name))
        yield from _corrected(printed, ours)
    except (KeyError, InvalidOperation, IndexError, ValueError) as error:
        raise InvalidInput(f"{file}: {error}; expected the form of {DATA.name}, which `tilewright validate survey` uses") from error


def _said(about: dict[str, str], name: str) -> str:
    """What is said about a number, or about all whose names begin like it."""
    return next((why for what, why in about.items() if name == what or name.startswith(f"{what} ")), "")


def _figures(printed: Printed, ours: Model) -> Iterator[Case]:
    base = ours.sums("bert-base", 128)["total"].cycles
    for figure, models in printed.figures.items():
        for model, values in models.items():
            for length, value in zip(printed.lengths, values.split(), strict=True):
                total = ours.sums(model, length)["total"]
                yield Case(figure, f"{figure} {model} {length}", value, _figure(figure, total, base))
                if model == "bert-large" and figure.startswith(("figure 4", "figure 32")):
                    left_out = ours.without_projection(model, length)
                    yield Case(f"{figure}, a projection left out", f"without a projection: {figure} {length}", value,
                               _figure(figure, left_out, base))  # fmt: skip


def _figure(figure: str, total: Sums, base: float) -> float:
    return total.cycles / base if "ratio" in figure else total.figure(figure.partition(", ")[2])


def _tables(printed: Printed, ours: Model) -> Iterator[Case]:
    for table, entries in printed.tables.items():
        options = {"heads": entries["heads"]} if "heads" in entries else {}
        for kind, lengths in entries.items():
            if kind in ("model", "heads"):
                continue
            for length, values in lengths.items():
                sums = ours.sums(entries["model"], length, **options)[kind]
                for column, value in zip(COLUMNS, values.split(), strict=True):
                    yield Case(table, f"{table} {kind} {length} {column}", value, sums.figure(column))


def _table5(printed: Printed, ours: Model) -> Iterator[Case]:
    for length, values in printed.table5.items():
        for name, value, found in zip(TABLE5, values.split(), table5(ours, length), strict=True):
            yield Case("table 5", f"table 5 {name} {length}", value, found)


def _resnet(printed: Printed, ours: Model) -> Iterator[Case]:
    for row, values in printed.table12.items():
        window, c, k, side = (int(word) for word in row.split())
        sums = ours.stage(window, c, k, side)
        for column, value in zip(("GFLOPs", "GMOPs", "FLOPs per byte"), values.split(), strict=True):
            yield Case("table 12", f"table 12 {window}x{window} {c}->{k} at {side} {column}", value, sums.figure(column))
    whole, fused = ours.sums("resnet50", 0), ours.sums("resnet50", 0, fused=True)
    share = 1 - whole["convolution"].cycles / whole["total"].cycles
    found = {
        "fusion, times faster": whole["total"].cycles / fused["total"].cycles,
        "share of non-linear operators, %": 100 * share,
        "times faster than BERT-Base at 128": ours.sums("bert-base", 128)["total"].cycles / whole["total"].cycles,
    }
    for name, value in printed.resnet50.items():
        yield Case("ResNet-50", f"ResNet-50 {name}", value, found[name])


def _corrected(printed: Printed, ours: Model) -> Iterator[Case]:
    for name, values in printed.corrected.items():
        model, _, column = name.partition(" ")
        if column == "convolution":
            plain, fused = ours.sums(model, 0), ours.sums(model, 0, fused=True)["total"]
            found = [plain[column].figure("GFLOPs"), plain[column].figure("FLOPs per byte"), fused.figure("FLOPs per byte")]
        else:
            found = [ours.sums(model, length)["total"].figure(column) for length in printed.lengths]
        for value, ours_ in zip(values.split(), found, strict=True):
            yield Case("corrected", f"corrected {name}", value, ours_)
