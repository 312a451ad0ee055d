"""``simulate``: a run of that stage, or the cost of one mapping described in files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.console import Group
from rich.text import Text

from tilewright.protocol import registry
from tilewright.protocol.context import COST_MODEL, HostContext
from tilewright.protocol.cost import Claim, Cost, Schedule
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.keys import content_key
from tilewright.protocol.plugin import Budget, SimRequest, SimResult

from . import console, parse, request, running, timeline
from .explain import cost_tables, describe
from .export import export
from .nest import loop_nest
from .options import RunOptions

#: Format of files that describe one mapping.
DEFAULT_FORMAT = "timeloop"


@dataclasses.dataclass(frozen=True)
class Files:
    """Files that describe one mapping, and what to do with it besides costing it."""

    mapping: str
    arch: str
    problem: str
    tables: Sequence[str]
    #: Figure to explain instead of showing all; with a model, the file that gets its timeline.
    trace: str
    #: Folder to write the mapping to, and in which format.
    export: Path | None
    export_format: str


def simulate(said: RunOptions, files: Files) -> None:
    """Cost the files if there are any, else run the stage on a model."""
    parts = {"--mapping": files.mapping, "--arch": files.arch, "--problem": files.problem}
    if not any(parts.values()):
        for flag, value in (("--tables", " ".join(files.tables)), ("--export", files.export)):
            if value:
                raise InvalidInput(f"{flag} {value}: expected {', '.join(parts)} beside it")
        if files.trace and not said.model:
            raise InvalidInput(f"--trace {files.trace}: expected {', '.join(parts)} beside it, or a model")
        if files.trace:
            timeline.simulate(said, Path(files.trace))
        running.start(said, ("simulate",))
        return
    if said.model or said.target:
        raise InvalidInput("simulate: expected a model and --target, or --mapping, --arch and --problem, not both")
    for flag, path in parts.items():
        if not path:
            raise InvalidInput(f"{flag}: missing, expected all of {', '.join(parts)}")
    cost_of(said, files, list(dict.fromkeys([*parts.values(), *files.tables])), said.format or DEFAULT_FORMAT)


def cost_of(said: RunOptions, files: Files, paths: list[str], format: str) -> None:
    """Read files that describe one mapping and print what it costs, or one figure of that."""
    document = request.read(paths, format)
    operator, architecture, mapping = document.operator, document.architecture, document.mapping
    if operator is None or architecture is None or mapping is None:
        lacking = [name for name in ("operator", "architecture", "mapping") if getattr(document, name) is None]
        raise InvalidInput(f"{', '.join(paths)}: no {' and no '.join(lacking)} described in the format {format}")
    # Without a model of its own the schedule's cost claims nothing, so there is nothing for the simulator to disagree with.
    unknown = Cost(model="", fidelity="analytical", cycles=0)
    schedule = Schedule(operator, mapping, unknown, Claim(), said.objective, content_key(architecture))
    settings = parse.options(said.simulator_option, "--simulator-option")
    if files.export is not None:
        export(document, files.export, files.export_format)
    if files.trace:
        traced = registry.load("simulators", COST_MODEL).explain(schedule, architecture, files.trace, settings)
        console.json_line(traced) if said.json else console.line(str(traced))
        return
    plugin = registry.load("simulators", said.simulator)
    asked = SimRequest((schedule,), architecture, settings)
    result: SimResult = plugin.run(asked, HostContext("simulators", said.simulator, Budget(), said.seed))
    cost = result.costs[0]
    if said.json:
        figures = {"energy_pj": cost.energy_pj, "cycles": cost.cycles, "edp_pj_cycles": cost.edp, "area_mm2": cost.area_mm2}
        console.json_line({**figures, "cost": cost})
        return
    console.show(Group(Text(describe(operator)), Text(), loop_nest(operator, mapping), Text(), *cost_tables(cost)))
