"""``explain``: what binds each layer, and one layer in full: operator, mapping, every row of its cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tilewright.protocol import registry
from tilewright.protocol.architecture import Architecture
from tilewright.protocol.bus import Bus
from tilewright.protocol.context import COST_MODEL
from tilewright.protocol.cost import Cost, Schedule
from tilewright.protocol.errors import InvalidInput, suggest
from tilewright.protocol.plugin import Document
from tilewright.protocol.workload import Operator

from ..runtime.runs import load_run
from . import connect, console, look, tables, units
from .export import export
from .nest import loop_nest
from .report import Layer, Report, gather


def explain(word: str, layer: str, figure: str, folder: Path | None, format: str, *, json: bool) -> None:
    """Explain a run, one of its layers, or one figure of a layer; write a layer's files into a folder."""
    for flag, said in (("--trace", figure), ("--export", folder)):
        if said and not layer:
            raise InvalidInput(f"{flag} {said}: expected --layer beside it")

    async def work(bus: Bus) -> Report:
        view = await load_run(bus, await look.resolve(bus, word))
        assert view is not None, "resolve returns runs that exist"
        return gather(view.state, view.answers, {record.task: record for record in view.records})

    report = connect.talk(work)
    if not report.layers:
        raise InvalidInput(f"run {report.state.run}: it has no profile (yet), expected a run that got that far")
    chosen = _find(report, layer) if layer else None
    if folder is not None and chosen is not None:
        schedule, architecture = _mapped(chosen, report, f"--export {folder}")
        export(Document(schedule.operator, architecture, mapping=schedule.mapping), folder, format)
    if figure and chosen is not None:
        traced = trace(chosen, report, figure)
        console.json_line(traced) if json else console.line(str(traced))
    elif json:
        for each in report.layers if chosen is None else (chosen,):
            console.json_line(as_json(each, report))
    else:
        console.show(overview(report) if chosen is None else in_full(chosen))


def trace(layer: Layer, report: Report, figure: str) -> Any:
    """One figure of a layer's cost as a tree of formulas down to the coefficients, by the cost model itself."""
    schedule, architecture = _mapped(layer, report, f"--trace {figure}")
    return registry.load("simulators", COST_MODEL).explain(schedule, architecture, figure)


def _mapped(layer: Layer, report: Report, flag: str) -> tuple[Schedule, Architecture]:
    """The schedule of a layer and the architecture that it is for; `InvalidInput` says why there is none."""
    if layer.schedule is None or report.profile is None:
        raise InvalidInput(f"{flag}: {layer.name} has no mapping: {layer.reason}")
    return layer.schedule, report.profile.architecture


def as_json(layer: Layer, report: Report) -> dict[str, Any]:
    """A layer with the rows of its cost, in base units, and its shares of the run."""
    said: dict[str, Any] = {
        "name": layer.name,
        "task": layer.task,
        "count": layer.count,
        "macs": layer.macs,
        "reason": layer.reason or None,
    }
    if layer.schedule is None:
        return said
    cost = layer.schedule.cost
    return said | {
        "cycles": cost.cycles,
        "energy_pj": cost.energy_pj,
        "share_of_cycles": layer.count * cost.cycles / max(1, report.cycles),
        "share_of_energy": layer.count * cost.energy_pj / report.energy_pj if report.energy_pj else None,
        "bottleneck": cost.bottleneck,
        "cycles_of": {row.resource: row.cycles for row in cost.latency},
        "energy_pj_of": _by_component(cost),
        "mapping": layer.schedule.mapping,
    }


def _find(report: Report, word: str) -> Layer:
    """The layer of that name, or the only one whose name or task contains it."""
    named = [layer for layer in report.layers if word in (layer.name, layer.task)]
    matches = named or [layer for layer in report.layers if word in layer.name]
    if len(matches) == 1:
        return matches[0]
    names = [layer.name for layer in report.layers]
    if matches:
        raise InvalidInput(f"--layer {word!r} is ambiguous: {', '.join(layer.name for layer in matches)}")
    raise InvalidInput(f"--layer {word!r} does not exist{suggest(word, names)}")


def overview(report: Report) -> RenderableType:
    """Each layer's bottleneck, how far from it the next resource is, and where its energy goes."""
    made = tables.table(
        "layer", "x", "% cycles", "% energy", "bound by", "next", "compute alone", "most energy in",
        title="What binds each layer", right=(1, 2, 3, 6),
    )  # fmt: skip
    peak = report.profile.architecture.peak_macs_per_cycle if report.profile is not None else 1
    for layer in report.layers:
        if layer.schedule is None:
            made.add_row(layer.name, str(layer.count), "-", "-", "no mapping")
            continue
        cost = layer.schedule.cost
        resources = sorted(cost.latency, key=lambda row: -row.cycles)
        following = f"{resources[1].resource} ({units.percent(resources[1].cycles / max(1, cost.cycles))})" if len(resources) > 1 else ""
        energies = _by_component(cost)
        component, most = max(energies.items(), key=lambda item: item[1], default=("", 0.0))
        made.add_row(
            layer.name,
            str(layer.count),
            units.percent(layer.count * cost.cycles / max(1, report.cycles)),
            units.percent(layer.count * cost.energy_pj / report.energy_pj) if report.energy_pj else "-",
            cost.bottleneck,
            following,
            f"{units.percent(layer.macs / peak / max(1, cost.cycles))}",
            f"{component} ({units.percent(most / cost.energy_pj)})" if cost.energy_pj else "-",
        )
    parts: list[RenderableType] = [made, Text(), *tables.missing(report)]
    if report.mapped:
        parts.append(tables.totals(report))
    return Group(*parts)


def _by_component(cost: Cost) -> dict[str, float]:
    energies: dict[str, float] = {}
    for row in cost.energy:
        energies[row.component] = energies.get(row.component, 0.0) + row.energy_pj
    return energies


def in_full(layer: Layer) -> RenderableType:
    """One layer: its operator, its mapping as a loop nest, and the rows of its cost."""
    head = Text(f"{layer.name} ({'once' if layer.count == 1 else f'{layer.count} times'})", style="bold")
    if layer.schedule is None:
        return Group(head, Text(layer.reason or "it has no mapping"))
    schedule = layer.schedule
    cost = schedule.cost
    nest = loop_nest(schedule.operator, schedule.mapping)
    parts: list[RenderableType] = [head, Text(describe(schedule.operator)), Text(), nest, Text(), *cost_tables(cost)]
    parts.append(Text(f"Claim: {tables.claim(schedule.claim)}" + (f" in {schedule.claim.mapspace}" if schedule.claim.mapspace else "")))
    if layer.simulated is not None:
        parts.append(Text(f"Simulated: {'same model' if layer.same_model else tables.difference(cost, layer.simulated)}"))
    return Group(*parts)


def describe(operator: Operator) -> str:
    """An operator in a line: its dims, its MACs, the compulsory traffic and what that means."""
    dims = " ".join(f"{dim.name}={dim.bound}" for dim in operator.dims)
    traffic = units.size(operator.read_bytes + operator.write_bytes)
    return f"{dims}   {units.si(operator.macs, 'MACs')}   compulsory traffic {traffic}   {operator.arithmetic_intensity:.1f} FLOP/byte"


def cost_tables(cost: Cost) -> list[RenderableType]:
    """Latency, energy and traffic of a cost, row by row, with its totals."""
    total = (
        f"Total   energy {units.energy(cost.energy_pj)}   latency {units.cycles(cost.cycles)}   EDP {units.edp(cost.edp)}   "
        f"utilization {units.percent(cost.utilization)}   model {cost.model}"
    )
    found: list[RenderableType] = [_latency(cost), Text(), _energy(cost), Text()]
    if cost.traffic:
        found += [_traffic(cost), Text()]
    return [*found, Text(total)]


def _latency(cost: Cost) -> Table:
    made = tables.table("resource", "cycles", "of the latency", title="Cycles that each resource needs", right=(1, 2))
    for row in sorted(cost.latency, key=lambda row: -row.cycles):
        made.add_row(row.resource, units.count(row.cycles), units.percent(row.cycles / max(1, cost.cycles)))
    return made


def _energy(cost: Cost) -> Table:
    made = tables.table("component", "action", "tensor", "count", "each", "energy", "share", title="Energy", right=(3, 4, 5, 6))
    for row in sorted(cost.energy, key=lambda row: -row.energy_pj):
        if row.energy_pj:
            share = units.percent(row.energy_pj / cost.energy_pj)
            each = units.energy(row.each_pj)
            made.add_row(row.component, row.action, row.tensor, units.count(row.count), each, units.energy(row.energy_pj), share)
    return made


def _traffic(cost: Cost) -> Table:
    made = tables.table(
        "level", "tensor", "tile [words]", "instances", "reads", "fills", "updates",
        title="Words moved, per instance", right=range(2, 7),
    )  # fmt: skip
    for row in cost.traffic:
        counts = (row.tile_words, row.instances, row.reads, row.fills, row.updates)
        made.add_row(row.level, row.tensor, *(units.count(count) for count in counts))
    return made
