"""A race as a table, as figures and as a plot."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from tilewright.protocol.errors import InvalidInput

from . import tables, units

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .race import Limits, Search

#: Points of a curve per decade.
DENSITY = 40


@dataclass(frozen=True)
class Race:
    """All searches of a race."""

    searches: tuple[Search, ...]
    limits: Limits

    @cached_property
    def best(self) -> dict[str, float]:
        """Layer -> the best value that anybody found; infinite when nobody found a valid mapping."""
        found: dict[str, float] = {}
        for search in self.searches:
            found[search.layer] = min(found.get(search.layer, math.inf), search.after())
        return found

    def ratios(self, mapper: str, **moment: float) -> list[float]:
        """``value / best`` of every search of a mapper at a moment, infinite without a valid mapping; of layers that somebody mapped."""
        return [
            search.after(**moment) / self.best[search.layer]
            for search in self.searches
            if search.mapper == mapper and math.isfinite(self.best[search.layer])
        ]

    def as_json(self, mappers: Sequence[str]) -> dict[str, Any]:
        """Mapper -> moment -> median and worst ratio (null: no valid mapping), with what its searches took."""
        made: dict[str, Any] = {}
        for mapper in mappers:
            rows = {name: self.ratios(mapper, **moment) for name, moment in self.limits.checkpoints}
            mine = [search for search in self.searches if search.mapper == mapper]
            made[mapper] = {
                "searches": len(mine),
                "median_evaluations": statistics.median(search.evaluations for search in mine),
                "median_cpu_s": statistics.median(search.seconds for search in mine),
                **{name: {"median": _finite(_median(row)), "worst": _finite(max(row, default=math.inf))} for name, row in rows.items()},
            }
        return made

    def table(self, mappers: Sequence[str], what: str) -> RenderableType:
        """Median / worst ratio per mapper and moment."""
        names = [name for name, _ in self.limits.checkpoints]
        made = tables.table(
            "mapper", *names, "evals", "CPU",
            title=what, right=range(1, len(names) + 3),
        )  # fmt: skip
        for mapper, row in self.as_json(mappers).items():
            cells = (f"{_cell(row[name]['median'])} / {_cell(row[name]['worst'])}" for name in names)
            made.add_row(mapper, *cells, units.count(row["median_evaluations"]), units.duration(row["median_cpu_s"]))
        seeds = len({search.seed for search in self.searches})
        over = f"{len(self.best)} layers and {seeds} seeds"
        note = f"Median / worst of the value over the best that anybody found; {over}. Last: what a search took."
        return Group(made, Text(note))

    def draw(self, mappers: Sequence[str], path: Path, title: str) -> None:
        """Best so far against evaluations and CPU seconds: geometric mean over layers, median over seeds, the seeds' range as a band."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(11, 4.5), layout="constrained")
        figure.suptitle(title)
        panels: list[Axes] = list(figure.subplots(1, 2, sharey=True))
        for axes, name, label, low, high in (
            (panels[0], "evaluations", "evaluations", 0.0, math.log10(max(2, self.limits.evaluations))),
            (panels[1], "seconds", "CPU seconds", -2.5, math.log10(max(0.1, self.limits.seconds))),
        ):
            grid = [10 ** (low + (high - low) * at / (DENSITY * 4)) for at in range(DENSITY * 4 + 1)]
            for mapper in mappers:
                curves = [self._curve(mapper, seed, name, grid) for seed in sorted({search.seed for search in self.searches})]
                columns = list(zip(*curves, strict=True))
                line = axes.plot(grid, [_median(column) for column in columns], label=mapper)[0]
                bounds = [(min(column), max(column)) if math.isfinite(max(column)) else (math.nan, math.nan) for column in columns]
                axes.fill_between(grid, [b[0] for b in bounds], [b[1] for b in bounds], alpha=0.2, color=line.get_color(), linewidth=0)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xlabel(label)
            axes.grid(alpha=0.3)
        panels[0].set_ylabel("value over best found (geometric mean of layers)")
        panels[1].legend(fontsize="small")
        save(figure, path)

    def _curve(self, mapper: str, seed: int, name: str, grid: Sequence[float]) -> list[float]:
        """Geometric mean over the layers of ``value / best``, along a grid; infinite while some layer has no mapping."""
        mine = [s for s in self.searches if s.mapper == mapper and s.seed == seed and math.isfinite(self.best[s.layer])]
        curve = []
        for at in grid:
            values = [search.after(**{name: at}) / self.best[search.layer] for search in mine]
            curve.append(statistics.geometric_mean(values) if values and math.isfinite(max(values)) else math.inf)
        return curve


def check(path: Path) -> None:
    """`InvalidInput` when a plot cannot be drawn, or not into such a file; said before a long search, not after it."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError as error:
        raise InvalidInput(f"plots need matplotlib ({error}); install tilewright with the extra plots") from error
    known = FigureCanvasAgg.get_supported_filetypes()
    if path.suffix.lstrip(".").lower() not in known:
        raise InvalidInput(f"--plot {path}: expected a name that ends in one of {', '.join(f'.{each}' for each in sorted(known))}")
    if not path.parent.is_dir():
        raise InvalidInput(f"--plot {path}: the folder {path.parent} does not exist")


def save(figure: Any, path: Path) -> None:
    """Write a figure, the same bytes for the same figure."""
    import matplotlib

    metadata = {"Date": None} if path.suffix == ".svg" else None
    try:
        with matplotlib.rc_context({"svg.hashsalt": "tilewright"}):
            figure.savefig(path, metadata=metadata)
    except OSError as error:
        raise InvalidInput(f"--plot {path}: {error.strerror}") from error


def _median(values: Sequence[float]) -> float:
    """The upper median, so that infinite values need no averaging."""
    return sorted(values)[len(values) // 2] if values else math.inf


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _cell(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}" if value < 10 else f"{value:.3g}"
