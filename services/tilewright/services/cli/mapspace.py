"""``map --mapspace N``: how good are N mappings drawn at random? The experiment of Kim et al., "Full Stack Optimization of Transformer
Inference" (arXiv 2302.14017), section 5.5.1, for any model and target.

The mapper ``random`` draws them: each prime of each dim, in random order, goes to a level and block drawn uniformly among those where it
fits, and orders are drawn uniformly; every mapping drawn is valid.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Group, RenderableType
from rich.text import Text

from tilewright.protocol import registry
from tilewright.protocol.context import HostContext
from tilewright.protocol.plugin import Budget, MapRequest

from . import console, race, race_tables, tables, units

if TYPE_CHECKING:
    from pathlib import Path

    from .mapping import Layer, Machine, MapOptions
    from .options import RunOptions

#: The share of mappings within this factor of the best is shown.
NEAR = 3.0


class Spread(NamedTuple):
    """The objective of many mappings of one operator."""

    layer: str
    #: Sorted, valid mappings only.
    values: Any
    drawn: int
    seconds: float

    def quantile(self, share: float) -> float:
        """The value that a share of the mappings stays below, over the lowest."""
        import numpy as np

        return float(np.quantile(self.values, share) / self.values[0])

    @property
    def near(self) -> float:
        """Share of the mappings within `NEAR` times the lowest value."""
        import numpy as np

        return float(np.searchsorted(self.values, NEAR * self.values[0], side="right") / len(self.values))

    def as_json(self) -> dict[str, Any]:
        """In base units."""
        found: dict[str, Any] = {"layer": self.layer, "drawn": self.drawn, "valid": len(self.values), "cpu_s": self.seconds}
        if len(self.values):
            ratios = {"p10": self.quantile(0.1), "median": self.quantile(0.5), "worst": self.quantile(1.0)}
            found |= {"best": float(self.values[0]), **{f"{name}_over_best": ratio for name, ratio in ratios.items()}}
            found[f"share_within_{NEAR:g}x"] = self.near
        return found


def show(said: RunOptions, asked: MapOptions, layers: Sequence[Layer], machine: Machine) -> None:
    """Draw, print the table (``--json``: a line per operator), draw the plot."""
    if asked.plot is not None:
        race_tables.check(asked.plot)
    found = []
    for spread in spreads(said, asked.mapspace, layers, machine):
        found.append(spread)
        if said.json:
            console.json_line(spread.as_json())
    if not said.json:
        console.show(table(found, f"{said.model} on {said.target}: {said.objective} of {asked.mapspace:,} random mappings each"))
    if asked.plot is not None:
        draw(found, asked.plot, f"{said.model} on {said.target}: {asked.mapspace:,} random mappings each", said.objective)


def spreads(said: RunOptions, count: int, layers: Sequence[Layer], machine: Machine) -> Iterator[Spread]:
    """Draw for one operator after the other."""
    import numpy as np

    for layer in layers:
        began = time.process_time()
        parts: list[Any] = []
        request = MapRequest(layer.operator, machine.architecture, machine.constraints, said.objective, options={"samples": count})
        ctx = HostContext("mappers", "random", Budget(), said.seed, observe=parts.append)
        for _ in registry.load("mappers", "random").search(request, ctx):
            pass  # the evaluations are what is wanted, not the best mapping
        values = [race.valid_values(part, said.objective) for part in parts]
        drawn = sum(len(part.valid) for part in parts)
        yield Spread(layer.name, np.sort(np.concatenate(values)) if values else np.empty(0), drawn, time.process_time() - began)


def table(found: Sequence[Spread], title: str) -> RenderableType:
    """One row per operator."""
    made = tables.table(
        "layer", "valid", "best", "10 % within", "half within", "worst", f"within {NEAR:g}x", "CPU",
        title=title, right=range(1, 8),
    )  # fmt: skip
    for spread in found:
        if not len(spread.values):
            made.add_row(spread.layer, f"0 of {spread.drawn}")
            continue
        ratios = (units.ratio(spread.quantile(share)) for share in (0.1, 0.5, 1.0))
        best = units.si(float(spread.values[0]) * 1e-12, "")
        near = f"{100 * spread.near:.2f} %"
        made.add_row(spread.layer, f"{len(spread.values):,}", best, *ratios, near, units.duration(spread.seconds))
    return Group(made, Text("Columns 4 to 6: over the best of the operator."))


def draw(found: Sequence[Spread], path: Path, title: str, objective: str) -> None:
    """Cumulative distributions of the objective over the best, one curve per operator."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for spread in found:
        if len(spread.values):
            picked = np.unique(np.linspace(0, len(spread.values) - 1, 500).astype(int))
            axes.plot(spread.values[picked] / spread.values[0], (picked + 1) / len(spread.values), label=spread.layer)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(f"{objective} over the best of the operator")
    axes.set_ylabel("share of the mappings at or below")
    axes.set_title(title, fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small")
    race_tables.save(figure, path)
