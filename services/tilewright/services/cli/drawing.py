"""Plots of a profile (roofline, breakdown, sweep) and a page with all of it. Needs the extra ``plots``."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilewright.protocol.bus import Bus
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.messages import Profile
from tilewright.protocol.profile import Machine, Point
from tilewright.protocol.run import RunState

from ..runtime import runs as stored
from . import connect, console
from .profile_tables import TOTAL, by_kind, label, points
from .report import gather

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def fetch(run: str) -> tuple[RunState, Profile]:
    """State and profile of a finished run."""

    async def work(bus: Bus) -> stored.RunView | None:
        return await stored.load_run(bus, run)

    view = connect.talk(work)
    report = gather(view.state, view.answers, {record.task: record for record in view.records}) if view is not None else None
    if report is None or report.profile is None or not report.profile.points:
        raise InvalidInput(f"run {run} has no profile of settings, expected one")
    return report.state, report.profile


def write(
    state: RunState, profile: Profile, folder: Path | None, page: Path | None, measured: dict[str, tuple[float, float]] | None = None
) -> None:
    """Draw a finished run's profile into a folder, as SVG, and as one HTML page; `measured`: seconds measured and at the roofline."""
    analysis = state.request.analysis
    convention, machines = (analysis.convention, analysis.machines) if analysis is not None else ("standard", ())
    pictures = draw(profile, machines, measured or {})
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for name, svg in pictures.items():
                (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
            console.line(f"{folder}: {', '.join(f'{name}.svg' for name in pictures)}")
        if page is not None:
            page.write_text(as_page(state.request.model, profile.points, convention, pictures), encoding="utf-8")
            console.line(f"{page}: the whole profile")
    except OSError as error:
        raise InvalidInput(f"--plots {folder}, --html {page}: {error.strerror}") from error


def draw(profile: Profile, machines: Sequence[Machine], measured: dict[str, tuple[float, float]]) -> dict[str, str]:
    """Name -> SVG. The roofline is that of the first setting; machines beyond the target have roofs of their own."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InvalidInput(f"plots need matplotlib ({error}); install tilewright with the extra plots") from error

    made: dict[str, Figure] = {"breakdown": Figure(figsize=(9, 4.5), layout="constrained")}
    _breakdown(made["breakdown"], profile.points)
    if machines:
        made["roofline"] = Figure(figsize=(9, 5.5), layout="constrained")
        _roofline(made["roofline"], profile.points[0], machines)
    if len(profile.points) > 1:
        made["sweep"] = Figure(figsize=(9, 4.5), layout="constrained")
        _sweep(made["sweep"], profile.points)
    if measured:
        made["measured"] = Figure(figsize=(9, 3), layout="constrained")
        _measured(made["measured"], measured)
    return {name: _svg(figure) for name, figure in made.items()}


def _svg(figure: Figure) -> str:
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "tilewright"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _breakdown(figure: Figure, found: Sequence[Point]) -> None:
    """Shares of operations and of bytes, class by class."""
    sums = [by_kind(point) for point in found]
    kinds = list(dict.fromkeys(kind for each in sums for kind in each if kind != TOTAL))
    labels = [label(point) for point in found]
    for at, (title, name) in enumerate((("operations", "flops"), ("bytes", "bytes"))):
        axes = figure.add_subplot(1, 2, at + 1)
        low = [0.0] * len(found)
        for kind in kinds:
            shares = [100 * getattr(each[kind], name) / getattr(each[TOTAL], name) if kind in each else 0.0 for each in sums]
            axes.barh(labels, shares, left=low, label=kind)
            low = [a + b for a, b in zip(low, shares, strict=True)]
        axes.set_xlabel(f"% of {title}")
        axes.invert_yaxis()
        if at:
            axes.tick_params(labelleft=False)
            axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))


def _roofline(figure: Figure, point: Point, machines: Sequence[Machine]) -> None:
    """Operators under the roofs of described machines, each as large as its share of the time on the first."""
    axes = figure.add_subplot()
    rows = [row for row in point.rows if row.flops and row.bytes and row.predictions]
    low, high = min(row.intensity for row in rows), max(row.intensity for row in rows)
    for machine in machines:
        peak = max(each.ops_per_second for each in machine.peaks)
        roof = machine.memories[-1].bytes_per_second
        ends = sorted({low / 4, max(4 * high, 2 * peak / roof), peak / roof})
        axes.plot(ends, [min(peak, roof * each) for each in ends], label=machine.name)
    first = machines[0].name
    for kind in dict.fromkeys(row.kind for row in rows):
        mine = [(row, next(each.seconds for each in row.predictions if each.machine == first)) for row in rows if row.kind == kind]
        total = sum(row.count * seconds for row, seconds in mine) or 1.0
        axes.scatter(
            [row.intensity for row, _ in mine],
            [row.flops / seconds for row, seconds in mine],
            s=[20 + 200 * row.count * seconds / total for row, seconds in mine],
            label=kind,
            alpha=0.7,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations per byte")
    axes.set_ylabel(f"operations per second (at best, on {first})")
    axes.legend(fontsize="small")


def _measured(figure: Figure, seconds: dict[str, tuple[float, float]]) -> None:
    """Two bars per kind of operator: what was measured, and what the roofline of the same CPU says."""
    axes = figure.add_subplot()
    for at, what in enumerate(("measured", "roofline")):
        axes.barh([place + 0.4 * at for place in range(len(seconds))], [each[at] for each in seconds.values()], 0.4, label=what)
    axes.set_yticks([place + 0.2 for place in range(len(seconds))], list(seconds))
    axes.set_xlabel("seconds of processor time")
    axes.invert_yaxis()
    axes.legend(fontsize="small")


def _sweep(figure: Figure, found: Sequence[Point]) -> None:
    """Operations, bytes and intensity over the first thing that varies."""
    name = next(iter(found[0].setting))
    totals = [(point.setting[name], by_kind(point)[TOTAL]) for point in found]
    xs = [x for x, _ in totals]
    curves = {
        "operations": [each.flops for _, each in totals],
        "bytes": [each.bytes for _, each in totals],
        "operations per byte": [each.intensity for _, each in totals],
    }
    for at, (title, ys) in enumerate(curves.items(), 1):
        axes: Any = figure.add_subplot(1, len(curves), at)
        axes.plot(xs, ys, "o-")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel(name)
        axes.set_title(title, fontsize="medium")


def as_page(model: str, found: Sequence[Point], convention: str, pictures: dict[str, str]) -> str:
    """One page without anything that it would have to load."""
    from rich.console import Console

    target = Console(width=200, record=True, file=io.StringIO(), highlight=False, markup=False, emoji=False)
    target.print(points(found, convention))
    text = html.escape(target.export_text())
    drawn = "".join(f"<h2>{name}</h2>{svg[svg.index('<svg') :]}" for name, svg in pictures.items())
    title = f"Profile of {html.escape(model)}"
    style = "body{font-family:sans-serif;margin:2em}pre{overflow-x:auto}svg{max-width:100%;height:auto}"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{style}</style>'
    return f"{head}<h1>{title}</h1>{drawn}<h2>tables</h2><pre>{text}</pre></html>\n"
