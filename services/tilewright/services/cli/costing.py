"""``simulate``: a run of that stage, or the cost of one mapping described in files."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.text import Text

from tilewright.protocol import registry
from tilewright.protocol.context import HostContext
from tilewright.protocol.cost import Claim, Cost, Schedule
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.keys import content_key
from tilewright.protocol.plugin import Budget, SimRequest, SimResult

from . import console, parse, request, running
from .explain import cost_tables, describe
from .options import RunOptions

#: Format of files that describe one mapping.
DEFAULT_FORMAT = "timeloop"


def simulate(said: RunOptions, *, mapping: str, arch: str, problem: str, tables: Sequence[str]) -> None:
    """Cost the files if there are any, else run the stage on a model."""
    files = {"--mapping": mapping, "--arch": arch, "--problem": problem}
    if not any(files.values()):
        running.start(said, ("simulate",))
        return
    if said.model or said.target:
        raise InvalidInput("simulate: expected a model and --target, or --mapping, --arch and --problem, not both")
    for flag, path in files.items():
        if not path:
            raise InvalidInput(f"{flag}: missing, expected all of {', '.join(files)}")
    cost_of(said, list(dict.fromkeys([*files.values(), *tables])), said.format or DEFAULT_FORMAT)


def cost_of(said: RunOptions, paths: list[str], format: str) -> None:
    """Read files that describe one mapping and print what it costs."""
    document = request.read(paths, format)
    operator, architecture, mapping = document.operator, document.architecture, document.mapping
    if operator is None or architecture is None or mapping is None:
        lacking = [name for name in ("operator", "architecture", "mapping") if getattr(document, name) is None]
        raise InvalidInput(f"{', '.join(paths)}: no {' and no '.join(lacking)} described in the format {format}")
    # Without a model of its own the schedule's cost claims nothing, so there is nothing for the simulator to disagree with.
    unknown = Cost(model="", fidelity="analytical", cycles=0)
    schedule = Schedule(operator, mapping, unknown, Claim(), said.objective, content_key(architecture))
    plugin = registry.load("simulators", said.simulator)
    asked = SimRequest((schedule,), architecture, parse.options(said.simulator_option, "--simulator-option"))
    result: SimResult = plugin.run(asked, HostContext("simulators", said.simulator, Budget(), said.seed))
    cost = result.costs[0]
    if said.json:
        figures = {"energy_pj": cost.energy_pj, "cycles": cost.cycles, "edp_pj_cycles": cost.edp, "area_mm2": cost.area_mm2}
        console.json_line({**figures, "cost": cost})
        return
    console.show(Group(Text(describe(operator)), Text(), Text(str(mapping)), Text(), *cost_tables(cost)))
