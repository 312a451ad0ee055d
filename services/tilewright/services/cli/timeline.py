"""``simulate MODEL --trace FILE``: what every unit of the simulated machine did when, for Chrome or Perfetto."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from tilewright.protocol import registry
from tilewright.protocol.bus import Bus
from tilewright.protocol.errors import InvalidInput

from ..runtime.runs import load_run
from . import connect, console, parse, running
from .options import RunOptions
from .report import Report, gather


def simulate(said: RunOptions, path: Path) -> None:
    """Run the stage, then write the timeline of all layers that it simulated; leaves with the run's exit code."""
    plugin = registry.load("simulators", said.simulator)
    if not hasattr(plugin, "timeline"):
        raise InvalidInput(f"--trace {path}: the simulator {said.simulator} draws no timeline, expected gemmini or another that does")
    if said.detach:
        raise InvalidInput(f"--trace {path}: a run that is left alone writes nothing, expected no --detach")
    if not path.parent.is_dir():
        raise InvalidInput(f"--trace {path}: the folder {path.parent} does not exist")
    runs: list[str] = []
    try:
        running.start(said, ("simulate",), named=runs.append)
    except typer.Exit as left:
        code = left.exit_code
    report = connect.talk(lambda bus: _report(bus, runs[0]))
    if report.profile is not None and report.mapped:
        _write(path, plugin, report, said)
        if not said.json:
            console.line(f"Timeline   {path}, for https://ui.perfetto.dev or chrome://tracing")
    raise typer.Exit(code)


async def _report(bus: Bus, run: str) -> Report:
    view = await load_run(bus, run)
    assert view is not None, "it was just run"
    return gather(view.state, view.answers, {record.task: record for record in view.records})


def _write(path: Path, plugin: Any, report: Report, said: RunOptions) -> None:
    schedules = [(layer.name, layer.schedule) for layer in report.mapped]
    assert report.profile is not None
    made = plugin.timeline(schedules, report.profile.architecture, parse.options(said.simulator_option, "--simulator-option"))
    path.write_text(json.dumps(made))
