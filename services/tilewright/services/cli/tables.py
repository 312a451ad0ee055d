"""A run's report as tables. Figures of a layer are those of one occurrence; shares and totals count all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tilewright.protocol.cost import Claim, Cost
from tilewright.protocol.messages import Codesigned

from . import units
from .report import Layer, Report

#: Layers shown of a run that has more: those with the largest share of the energy-delay product's factors.
MOST_LAYERS = 60


def table(*columns: str, title: str = "", right: Iterable[int] = ()) -> Table:
    """A table with plain rules; `right` are the columns with numbers."""
    made = Table(title=title or None, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    numbers = set(right)
    for index, column in enumerate(columns):
        made.add_column(column, justify="right" if index in numbers else "left", overflow="fold", no_wrap=index in numbers)
    return made


def report(report: Report, width: int) -> RenderableType:
    """Everything a run has to show, on `width` characters."""
    parts: list[RenderableType] = []
    if report.layers:
        parts += [layers(report, width) if report.mapped else profile(report), Text()]
    if any(layer.gap for layer in report.layers):
        parts += [gaps(report), Text()]
    parts.extend(missing(report))
    parts.extend(grouped("search cut short", {layer.name: layer.stopped for layer in report.layers if layer.stopped}))
    if report.mapped:
        parts += [totals(report), Text()]
    if report.codesigned is not None:
        parts += [design(report.codesigned, report), Text()]
    kernels = list(_kernels(report))
    if kernels:
        parts += [*kernels, Text()]
    return Group(*parts)


def profile(report: Report) -> RenderableType:
    """Where the time goes at the roofline, for a run that was only profiled."""
    assert report.profile is not None
    if report.profile.points:
        from . import profile_tables

        analysis = report.state.request.analysis
        return profile_tables.points(report.profile.points, analysis.convention if analysis is not None else "standard")
    columns = ("operator", "function", "x", "MACs", "bytes", "FLOP/byte", "cycles", "bound by")
    made = table(*columns, title="Operators (figures of one occurrence)", right=range(2, 7))
    for each in report.profile.operators:
        made.add_row(
            each.name,
            each.function,
            str(each.count),
            units.count(each.macs),
            units.size(each.read_bytes + each.write_bytes),
            f"{each.arithmetic_intensity:.1f}",
            units.count(each.cycles),
            each.bound_by,
        )
    workload = report.profile.workload
    total = sum(each.count * each.cycles for each in report.profile.operators)
    counts = f"{units.si(workload.macs, 'MACs')}   {units.si(workload.parameters, 'parameters')}"
    return Group(made, Text(), Text(f"Total   {counts}   at least {units.cycles(total)} at the roofline"))


#: Columns of the layers' table -> the narrowest output, in characters, that has room for it.
COLUMNS = {
    "layer": 0,
    "x": 0,
    "energy": 0,
    "cycles": 0,
    "util.": 90,
    "EDP [J·cycles]": 100,
    "% energy": 130,
    "% cycles": 130,
    "optimality": 0,
    "simulated": 110,
}


def layers(report: Report, width: int) -> Table:
    """The layers with their mappings' costs, in the columns that `width` characters have room for."""
    simulated = any(layer.simulated for layer in report.layers)
    shown = [name for name, least in COLUMNS.items() if width >= least and (simulated or name != "simulated")]
    text = ("layer", "optimality", "simulated")
    right = [index for index, name in enumerate(shown) if name not in text]
    made = table(*shown, title="Layers (figures of one occurrence)", right=right)
    for layer in report.layers[:MOST_LAYERS]:
        cells = _cells(layer, report)
        made.add_row(*(cells.get(name, "-") for name in shown))
    if len(report.layers) > MOST_LAYERS:
        made.add_row(f"... and {len(report.layers) - MOST_LAYERS} more (see --json)")
    return made


def _cells(layer: Layer, report: Report) -> dict[str, str]:
    if layer.schedule is None:
        return {"layer": layer.name, "x": str(layer.count), "optimality": "no mapping"}
    cost = layer.schedule.cost
    return {
        "layer": layer.name,
        "x": str(layer.count),
        "energy": units.energy(cost.energy_pj),
        "cycles": units.count(cost.cycles),
        "util.": units.percent(cost.utilization),
        "EDP [J·cycles]": units.si(cost.edp * 1e-12, ""),
        "% energy": units.percent(layer.count * cost.energy_pj / report.energy_pj) if report.energy_pj else "-",
        "% cycles": units.percent(layer.count * cost.cycles / report.cycles) if report.cycles else "-",
        "optimality": claim(layer.schedule.claim),
        "simulated": _simulated(layer),
    }


def claim(claim: Claim) -> str:
    """What is claimed of a mapping, in a few words."""
    if claim.kind == "optimal":
        return f"optimal ({claim.mapspace})" if claim.mapspace else "optimal"
    gap = f", gap <= {units.percent(claim.gap)}" if claim.gap is not None else ""
    return f"{claim.kind}{gap}"


def _simulated(layer: Layer) -> str:
    if layer.simulated is None or layer.schedule is None:
        return "-"
    if layer.same_model:
        return "same model"
    return difference(layer.schedule.cost, layer.simulated)


def difference(predicted: Cost, simulated: Cost) -> str:
    """How far a simulation is from the prediction."""
    parts = []
    for name, before, after in (("cycles", predicted.cycles, simulated.cycles), ("energy", predicted.energy_pj, simulated.energy_pj)):
        if before and after:
            parts.append(f"{name} {100 * (after / before - 1):+.1f} %")
    return ", ".join(parts)


def gaps(report: Report) -> Table:
    """Predicted and simulated cycles of each layer, and what the simulator says of the difference."""
    made = table("layer", "predicted", "simulated", "gap", "why", title="Cycles, predicted and simulated", right=range(1, 4))
    for layer in report.layers[:MOST_LAYERS]:
        if layer.schedule is not None and layer.simulated is not None and layer.gap:
            before, after = layer.schedule.cost.cycles, layer.simulated.cycles
            made.add_row(layer.name, units.count(before), units.count(after), f"{100 * (after / before - 1):+.1f} %", layer.gap)
    return made


def missing(report: Report) -> Iterable[Text]:
    """A paragraph per reason for which layers have no mapping."""
    return grouped("no mapping", {layer.name: layer.reason for layer in report.layers if layer.reason})


def grouped(what: str, reasons: Mapping[str, str]) -> Iterable[Text]:
    """Name -> reason, as one paragraph per reason that names some of those it is about."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    for reason, group in names.items():
        more = f" and {len(group) - 3} more" if len(group) > 3 else ""
        yield Text(f"{what} for {', '.join(group[:3])}{more}: {reason}\n", style="yellow")


def totals(report: Report) -> Text:
    """Totals with units, and what binds."""
    assert report.profile is not None
    clock = report.profile.architecture.clock_ghz
    text = Text()
    text.append("Total      ", style="bold")
    latency = f"{units.cycles(report.cycles)} = {units.duration(report.seconds)} at {clock:g} GHz"
    text.append(f"energy {units.energy(report.energy_pj)}   latency {latency}   EDP {units.edp(report.edp)}   ")
    text.append(f"utilization {units.percent(report.utilization)}\n")
    if len(report.mapped) < len(report.layers):
        text.append(f"           (of the {len(report.mapped)} of {len(report.layers)} layers that have a mapping)\n", style="yellow")
    binding = ", ".join(
        f"{resource or 'unknown'} binds {units.percent(share)} of the cycles" for resource, share in list(report.binding.items())[:3]
    )
    text.append("Bottleneck ", style="bold")
    text.append(binding)
    return text


def design(codesigned: Codesigned, report: Report) -> RenderableType:
    """The winning design beside the target as it is."""
    found, base, simulated = codesigned.design, codesigned.baseline, report.simulated_design
    rows = table("", "baseline", "found", "better by", title="Co-design", right=(1, 2, 3))
    changed = 0
    for core in found.cores:
        for name, value in core.parameters.items():
            before = report.parameters.get(name)
            if value != before:
                changed += 1
                label = name if len(found.cores) == 1 else f"{core.name}: {name}"
                rows.add_row(f"{label} [{_unit(report, name)}]", "-" if before is None else str(before), str(value), "")
    for name, old, new, show in (
        ("energy", base.energy_pj, found.energy_pj, units.energy),
        ("cycles", base.cycles, found.cycles, units.cycles),
        ("EDP", base.edp, found.edp, units.edp),
    ):
        rows.add_row(name, show(old), show(new), units.ratio(old / new) if new else "-")
    notes = [claim(found.claim), f"{units.count(codesigned.evaluations)} evaluations"]
    if not changed:
        notes.append("no parameter changed")
    if not codesigned.complete:
        notes.append(f"incomplete: {'the run was cancelled' if report.state.status == 'cancelled' else 'a time limit cut the search'}")
    if simulated:
        notes.append("simulated: same model" if all(each.same_model for each in simulated) else f"simulated by {simulated[0].model}")
    return Group(rows, Text("; ".join(notes)), *front(codesigned))


def front(codesigned: Codesigned) -> Sequence[RenderableType]:
    """The Pareto fronts of what was found; nothing where there is only one design."""
    points = codesigned.front
    if len(points) < 2:
        return ()
    names = list(dict.fromkeys(name for point in points for name in point.parameters))
    rows = table(
        *names, "energy", "cycles", "EDP", "area", title="Pareto fronts: EDP-area, energy-latency", right=range(len(names) + 4)
    )  # fmt: skip
    for point in points:
        area = "-" if point.area_mm2 is None else f"{point.area_mm2:.2f} mm2"
        values = [str(point.parameters.get(name, "-")) for name in names]
        rows.add_row(*values, units.energy(point.energy_pj), units.cycles(point.cycles), units.edp(point.edp), area)
    return (Text(), rows)


def _unit(report: Report, name: str) -> str:
    """Unit of a design-space parameter."""
    known = report.profile.design_space.parameters if report.profile is not None else ()
    return next((parameter.unit for parameter in known if parameter.name == name), "")


def _kernels(report: Report) -> Iterable[RenderableType]:
    """Which kernels there are, and what was verified of them."""
    kernels = [(layer.name, layer.kernel) for layer in report.layers if layer.kernel is not None]
    if kernels:
        verified = [kernel for _, kernel in kernels if kernel.verification.status == "verified"]
        text = Text()
        text.append("Kernels    ", style="bold")
        text.append(f"{len(kernels)} generated, {len(verified)} verified")
        if verified:
            cases = sum(kernel.verification.cases for kernel in verified)
            worst = max(kernel.verification.worst_error for kernel in verified)
            text.append(f" ({cases} cases with {verified[0].verification.compiler or 'a compiler'}, worst error {worst:.2g} of the bound)")
        reasons = sorted({kernel.verification.reason for _, kernel in kernels if kernel.verification.status != "verified"})
        for reason in reasons:
            text.append(f"\n           not verified: {reason}", style="yellow")
        for note in sorted({note for _, kernel in kernels for note in kernel.notes}):
            text.append(f"\n           {note}")
        yield text
    yield from grouped("no kernel", {layer.name: layer.kernel_reason for layer in report.layers if layer.kernel_reason})
