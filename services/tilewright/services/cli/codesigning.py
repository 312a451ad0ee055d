"""``codesign``: one run of that stage, its limits checked before anything starts, its fronts drawn and its winner written afterwards."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tilewright.protocol.errors import InvalidInput, suggest

from . import options

if TYPE_CHECKING:
    from tilewright.protocol.design import Design, FrontPoint
    from tilewright.protocol.messages import Codesigned

#: What may be typed -> the limit that is meant.
ALIASES = {"area": "area_mm2", "latency": "cycles"}
AREA, CYCLES = "area_mm2", "cycles"
#: Exit codes after which there is something to draw.
SOMETHING = (0, 3)


def command(help: str) -> Callable[..., None]:
    """The function for typer."""

    def run(*, plot: Path | None, export: Path | None, export_format: str, **values: Any) -> None:
        start(options.RunOptions(**values), plot, export, export_format)

    plotted = typer.Option("--plot", metavar="FILE", help="Draw the Pareto fronts there: .svg, .pdf or .png (needs the extra plots).")
    exported = typer.Option(
        "--export", metavar="FOLDER", help="Write the winner there, a folder per operator, for Timeloop or another tool."
    )
    format = typer.Option("--export-format", metavar="NAME", help="Format of the files that --export writes.")
    declared = [
        options.parameter("plot", Path | None, plotted, None),
        options.parameter("export", Path | None, exported, None),
        options.parameter("export_format", str, format, "timeloop"),
    ]
    options.describe(run, [*options.parameters(("map", "codesign")), *declared], help)
    return run


def start(said: options.RunOptions, plot: Path | None, folder: Path | None = None, format: str = "timeloop") -> None:
    """Run the stage; draw and write what came out of it."""
    from . import running

    if plot is None and folder is None:
        running.start(said, ("codesign",))
        return
    for flag, asked in (("--plot", plot), ("--export", folder)):
        if asked is not None and said.detach:
            raise InvalidInput(f"{flag} {asked} and --detach: expected one of them")
    if plot is not None:
        from . import race_tables

        race_tables.check(plot)
    names: list[str] = []
    with _afterwards(names, plot, folder, format):
        running.start(said, ("codesign",), named=names.append)


@contextlib.contextmanager
def _afterwards(names: Sequence[str], plot: Path | None, folder: Path | None, format: str) -> Iterator[None]:
    """Draw and write when the run inside leaves with an exit code that promises a design."""
    try:
        yield
    except typer.Exit as left:
        found = _found(names[-1]) if left.exit_code in SOMETHING else None
        if found is not None and plot is not None:
            draw(found, plot)
        if found is not None and folder is not None:
            write(found.design, folder, format)
        raise


def write(design: Design, folder: Path, format: str) -> None:
    """Each operator with its mapping and the hardware, as the files of a format, in a folder by the operator's name."""
    from tilewright.protocol.plugin import Document

    from .export import export

    architecture = design.cores[0].architecture
    for task in design.tasks:
        mapped = Document(task.schedule.operator, architecture, mapping=task.schedule.mapping)
        export(mapped, folder / re.sub(r"[^\w.-]+", "_", task.name), format)


def _found(run: str) -> Codesigned | None:
    from tilewright.protocol.bus import Bus
    from tilewright.protocol.messages import Codesigned

    from ..runtime import runs as stored
    from . import connect

    async def load(bus: Bus) -> Codesigned | None:
        view = await stored.load_run(bus, run)
        answers = view.answers.values() if view is not None else ()
        return next((each for each in answers if isinstance(each, Codesigned)), None)

    return connect.talk(load)


def limits(words: Mapping[str, float], target: str) -> dict[str, float]:
    """Limits by the names that services know; with a `target`, checked against it.

    Raises `InvalidInput` for a figure that its designs do not have, and for an area where none is stated.
    """
    named = {ALIASES.get(name, name): value for name, value in words.items()}
    if named and target:
        from tilewright.protocol import registry

        plugin = registry.load("targets", target)
        known = [parameter.name for parameter in plugin.design_space().parameters]
        for name, value in named.items():
            if name not in (AREA, CYCLES, *known):
                raise InvalidInput(f"--limit {name}={value:g}: unknown to the target {target}{suggest(name, [AREA, CYCLES, *known])}")
        if AREA in named and not plugin.architecture().states_area:
            raise InvalidInput(f"--limit {AREA}={named[AREA]:g}: the target {target} states no area, expected a target whose components do")
    return named


def draw(found: Codesigned, path: Path) -> None:
    """Both fronts, with the baseline and the winner; `InvalidInput` when the file cannot be written."""
    from matplotlib.figure import Figure

    from . import race_tables

    with_area = bool(found.front) and all(point.area_mm2 is not None for point in found.front)
    figure = Figure(figsize=(11 if with_area else 6, 4.5), layout="constrained")
    panels = list(figure.subplots(1, 2)) if with_area else [figure.subplots()]
    _panel(panels[0], found, "latency (cycles)", "energy (uJ)", _latency_energy)
    if with_area:
        _panel(panels[1], found, "area (mm2)", "EDP (uJ x cycles)", _area_edp)
    panels[0].legend(fontsize="small")
    race_tables.save(figure, path)


Pair = Callable[[float, int, float | None], tuple[float, float]]


def _latency_energy(energy_pj: float, cycles: int, area_mm2: float | None) -> tuple[float, float]:
    return cycles, energy_pj * 1e-6


def _area_edp(energy_pj: float, cycles: int, area_mm2: float | None) -> tuple[float, float]:
    return area_mm2 or 0.0, energy_pj * 1e-6 * cycles


def _panel(axes: Any, found: Codesigned, across: str, up: str, pair: Pair) -> None:
    points = [pair(each.energy_pj, each.cycles, each.area_mm2) for each in found.front]
    best: list[tuple[float, float]] = []
    for each in sorted(points):
        if not best or each[1] < best[-1][1]:
            best.append(each)
    axes.step([x for x, _ in best], [y for _, y in best], where="post", marker="o", markersize=4, label="front")
    for label, design, marker in (("baseline", found.baseline, "s"), ("winner", found.design, "*")):
        axes.scatter(*pair(design.energy_pj, design.cycles, _area(design)), marker=marker, s=70, zorder=3, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(alpha=0.3, which="both")


def _area(design: Design) -> float:
    return max((task.schedule.cost.area_mm2 for task in design.tasks), default=0.0)


def as_json(front: Sequence[FrontPoint]) -> list[dict[str, Any]]:
    """The front for ``--json``."""
    return [
        {
            "parameters": point.parameters,
            "energy_pj": point.energy_pj,
            "cycles": point.cycles,
            "edp_pj_cycles": point.edp,
            "area_mm2": point.area_mm2,
        }
        for point in front
    ]
