"""A profile's points as tables: classes per setting, and the operators of a single one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.text import Text

from tilewright.protocol.profile import Point, Row

from . import tables, units

TOTAL = "total"


class Sum(msgspec.Struct, frozen=True):
    """Rows of one class, occurrences counted."""

    flops: float
    bytes: float
    tiled_bytes: float | None
    external_bytes: float | None
    cycles: float | None
    #: Machine -> seconds.
    seconds: dict[str, float]
    #: Machine -> what binds for most of them.
    bound_by: dict[str, str]

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return self.flops / self.bytes if self.bytes else 0.0


def add_up(rows: Iterable[Row]) -> Sum:
    """The sum of some rows; a figure that one of them lacks is None, and so is the time on a machine."""
    found = list(rows)

    def total(name: str) -> float | None:
        figures = [(row.count, getattr(row, name)) for row in found]
        return None if any(value is None for _, value in figures) else math.fsum(count * value for count, value in figures)

    machines = [each.machine for each in found[0].predictions] if found else []
    seconds: dict[str, float] = {}
    bound: dict[str, str] = {}
    for at, machine in enumerate(machines):
        shares: dict[str, float] = {}
        for row in found:
            each = row.predictions[at]
            shares[each.bound_by] = shares.get(each.bound_by, 0.0) + row.count * each.seconds
        seconds[machine] = math.fsum(shares.values())
        bound[machine] = max(shares, key=lambda resource: shares[resource])
    return Sum(
        flops=total("flops") or 0.0,
        bytes=total("bytes") or 0.0,
        tiled_bytes=total("tiled_bytes"),
        external_bytes=total("external_bytes"),
        cycles=total("cycles"),
        seconds=seconds,
        bound_by=bound,
    )


def by_kind(point: Point) -> dict[str, Sum]:
    """Class -> sum, and the ``total``."""
    kinds = dict.fromkeys(row.kind for row in point.rows)
    return {kind: add_up(row for row in point.rows if row.kind == kind) for kind in kinds} | {TOTAL: add_up(point.rows)}


def label(point: Point) -> str:
    """What a point is, e.g. ``seq=128``."""
    said = [f"{name}={value}" for name, value in point.setting.items()]
    if point.phase == "generation":
        said.append(f"generation of {point.tokens} tokens")
    return ", ".join(said) or "forward"


def points(found: Sequence[Point], convention: str) -> RenderableType:
    """Everything: operators and layers where there is one point, and the classes of all."""
    parts: list[RenderableType] = [operators(found[0], convention), Text()] if len(found) == 1 else []
    if len(found) == 1 and found[0].layers:
        parts += [layers(found[0], convention), Text()]
    return Group(*parts, classes(found, convention))


def classes(found: Sequence[Point], convention: str) -> RenderableType:
    """One line per setting and class, with shares of the setting's total."""
    sums = [(label(point), by_kind(point)) for point in found]
    whole = [kinds[TOTAL] for _, kinds in sums]
    extra = _extra(whole)
    columns = ("setting", "class", "FLOPs", "%", "bytes", "%", "FLOP/byte", *(name for name, _ in extra))
    made = tables.table(*columns, title=f"Classes (convention {convention})", right=range(2, len(columns)))
    for name, kinds in sums:
        total = kinds[TOTAL]
        for kind, each in kinds.items():
            made.add_row(
                name,
                Text(kind, style="bold" if kind == TOTAL else ""),
                units.si(each.flops, ""),
                _share(each.flops, total.flops),
                units.si(each.bytes, "B"),
                _share(each.bytes, total.bytes),
                f"{each.intensity:.2f}",
                *(show(each) for _, show in extra),
            )
            name = ""
    return made


def operators(point: Point, convention: str) -> RenderableType:
    """One line per row; figures of one occurrence."""
    whole = add_up(point.rows)
    extra = _extra([whole])
    columns = ("operator", "class", "function", "dims", "x", "FLOPs", "bytes", "FLOP/byte", *(name for name, _ in extra))
    dims = "; dims of the last step" if point.phase == "generation" else ""
    title = f"Operators, {label(point)} (figures of one occurrence{dims}; convention {convention})"
    made = tables.table(*columns, title=title, right=range(4, len(columns)))
    for row in sorted(point.rows, key=lambda row: -row.count * (row.predictions[0].seconds if row.predictions else row.flops))[
        : tables.MOST_LAYERS
    ]:
        one = add_up([msgspec.structs.replace(row, count=1)])
        made.add_row(
            row.name, row.kind, row.function, row.shape, str(row.count), units.si(row.flops, ""), units.si(row.bytes, "B"),
            f"{row.intensity:.2f}", *(show(one) for _, show in extra),
        )  # fmt: skip
    if len(point.rows) > tables.MOST_LAYERS:
        made.add_row(f"... and {len(point.rows) - tables.MOST_LAYERS} more (see --json)")
    return made


def layers(point: Point, convention: str) -> RenderableType:
    """One line per layer; figures of one occurrence, and what binds for most of its time."""
    machines = [each.machine for each in point.layers[0].predictions]
    columns = ("layer", "x", "FLOPs", "%", "bytes", "%", "FLOP/byte", *(f"{name} at least" for name in machines))
    made = tables.table(
        *columns, title=f"Layers, {label(point)} (figures of one, shares of all; convention {convention})", right=range(1, 99)
    )
    flops, moved = (math.fsum(each.count * getattr(each, name) for each in point.layers) for name in ("flops", "bytes"))
    for each in point.layers[: tables.MOST_LAYERS]:
        made.add_row(
            each.name, str(each.count), units.si(each.flops, ""), _share(each.count * each.flops, flops), units.si(each.bytes, "B"),
            _share(each.count * each.bytes, moved), f"{each.intensity:.2f}",
            *(f"{units.duration(time.seconds)} {time.bound_by}" for time in each.predictions),
        )  # fmt: skip
    if len(point.layers) > tables.MOST_LAYERS:
        made.add_row(f"... and {len(point.layers) - tables.MOST_LAYERS} more (see --json)")
    return made


def _extra(whole: Sequence[Sum]) -> list[tuple[str, Any]]:
    """Columns that not every profile has."""
    found: list[tuple[str, Any]] = []
    if all(each.tiled_bytes is not None for each in whole):
        found.append(("tiled bytes", lambda each: units.si(each.tiled_bytes, "B")))
    if all(each.external_bytes is not None for each in whole):
        found.append(("external bytes", lambda each: units.si(each.external_bytes, "B")))
    if all(each.cycles is not None for each in whole):
        found.append(("cycles", lambda each: units.count(each.cycles)))
    for machine in whole[0].seconds if whole else ():

        def show(each: Sum, machine: str = machine) -> str:
            return f"{units.duration(each.seconds[machine])} {each.bound_by[machine]}"

        found.append((f"{machine} at least", show))
    return found


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}" if whole else "-"


def as_json(found: Sequence[Point]) -> list[dict[str, Any]]:
    """The points in base units, with their classes."""
    return [
        {
            "setting": point.setting,
            "phase": point.phase,
            "tokens": point.tokens,
            "classes": {kind: {**msgspec.to_builtins(each), "flops_per_byte": each.intensity} for kind, each in by_kind(point).items()},
            "layers": msgspec.to_builtins(point.layers),
            "rows": [{name: msgspec.to_builtins(getattr(row, name)) for name in row.__struct_fields__} for row in point.rows],
        }
        for point in found
    ]
