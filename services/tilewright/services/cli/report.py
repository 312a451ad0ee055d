"""What a run came to: its answers brought together, layer by layer. Pure; figures in base units."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from tilewright.protocol.cost import Cost, Schedule
from tilewright.protocol.design import Design
from tilewright.protocol.kernel import Kernel
from tilewright.protocol.messages import Answer, Codesigned, Mapped, Profile, Simulated
from tilewright.protocol.run import RunState, TaskRecord, task_id
from tilewright.protocol.workload import Operator

from .codesigning import as_json


class Layer(msgspec.Struct, frozen=True):
    """One distinct operator: what the mapper, the simulator and the kernel generator said of it."""

    task: str
    #: Module of its first occurrence, with its shape where two operators come from one module.
    name: str
    count: int
    macs: int
    schedule: Schedule | None
    #: Why there is no schedule.
    reason: str = ""
    simulated: Cost | None = None
    same_model: bool = True
    #: Why the simulation differs from the prediction, and unit and cause -> share of the cycles.
    gap: str = ""
    attribution: dict[str, float] = {}
    kernel: Kernel | None = None
    #: Why there is no kernel, where one was asked for.
    kernel_reason: str = ""
    #: What of the budget ended the search for a mapping.
    stopped: str = ""


class Report(msgspec.Struct, frozen=True):
    """A run with everything it has answered so far."""

    state: RunState
    profile: Profile | None
    layers: tuple[Layer, ...]
    codesigned: Codesigned | None
    #: Costs of the winning design as simulated, core by core.
    simulated_design: tuple[Simulated, ...]

    @property
    def mapped(self) -> tuple[Layer, ...]:
        """Layers that have a schedule."""
        return tuple(layer for layer in self.layers if layer.schedule is not None)

    @property
    def energy_pj(self) -> float:
        """pJ of all mapped layers, occurrences counted."""
        return math.fsum(layer.count * layer.schedule.cost.energy_pj for layer in self.layers if layer.schedule)

    @property
    def cycles(self) -> int:
        """Cycles of all mapped layers one after another."""
        return sum(layer.count * layer.schedule.cost.cycles for layer in self.layers if layer.schedule)

    @property
    def edp(self) -> float:
        """pJ x cycles of the whole."""
        return self.energy_pj * self.cycles

    @property
    def utilization(self) -> float:
        """MACs per (unit x cycle) of the whole, 0 without a profile."""
        if self.profile is None or not self.cycles:
            return 0.0
        macs = sum(layer.count * layer.macs for layer in self.mapped)
        return macs / (self.cycles * self.profile.architecture.peak_macs_per_cycle)

    @property
    def seconds(self) -> float:
        """Seconds of the whole at the target's clock, 0 without a profile."""
        return self.cycles / (self.profile.architecture.clock_ghz * 1e9) if self.profile else 0.0

    @property
    def parameters(self) -> dict[str, int]:
        """Values of the target's design-space parameters as the run started from them."""
        if self.profile is None:
            return {}
        defaults = {parameter.name: parameter.default for parameter in self.profile.design_space.parameters}
        return {**defaults, **self.state.request.target_parameters}

    @property
    def binding(self) -> dict[str, float]:
        """Resource -> share of all cycles in which it binds, the largest first."""
        shares: dict[str, float] = {}
        for layer in self.mapped:
            assert layer.schedule is not None
            cost = layer.schedule.cost
            shares[cost.bottleneck] = shares.get(cost.bottleneck, 0.0) + layer.count * cost.cycles / max(1, self.cycles)
        return dict(sorted(shares.items(), key=lambda item: -item[1]))


def gather(state: RunState, answers: Mapping[str, Answer], records: Mapping[str, TaskRecord]) -> Report:
    """Bring a run's answers together; whatever is not there (yet) is None or left out."""
    profile = answers.get(task_id("profile", 0))
    base = answers.get(task_id("simulate", 0))
    codesigned = answers.get(task_id("codesign", 0))
    layers = tuple(_layers(profile, answers, records)) if isinstance(profile, Profile) else ()
    return Report(
        state,
        profile if isinstance(profile, Profile) else None,
        _with_simulation(layers, base) if isinstance(base, Simulated) else layers,
        codesigned if isinstance(codesigned, Codesigned) else None,
        tuple(_simulated_design(answers)),
    )


def _layers(profile: Profile, answers: Mapping[str, Answer], records: Mapping[str, TaskRecord]) -> Iterable[Layer]:
    contractions = [task for task in profile.workload.tasks if task.operator.is_contraction]
    names = Counter(task.name for task in contractions)
    for index, task in enumerate(contractions):
        mapped = answers.get(task_id("map", index))
        kernel = answers.get(task_id("kernel", index))
        yield Layer(
            task=task_id("map", index),
            name=task.name if names[task.name] == 1 else f"{task.name} {shape(task.operator)}",
            count=task.count,
            macs=task.operator.macs,
            schedule=mapped.schedule if isinstance(mapped, Mapped) else None,
            reason=_reason(mapped, records.get(task_id("map", index))),
            kernel=kernel if isinstance(kernel, Kernel) else None,
            kernel_reason=_failure(records.get(task_id("kernel", index))),
            stopped=mapped.stopped if isinstance(mapped, Mapped) and mapped.schedule is not None else "",
        )


def shape(operator: Operator) -> str:
    """The dims of an operator that are not 1, e.g. ``P128 C64 K128``."""
    return " ".join(f"{dim.name}{dim.bound}" for dim in operator.dims if dim.bound > 1) or "scalar"


def _reason(mapped: Answer | None, record: TaskRecord | None) -> str:
    if not isinstance(mapped, Mapped) or mapped.infeasible is None:
        return _failure(record)
    infeasible = mapped.infeasible
    worst = sorted(infeasible.violations, key=lambda violation: -violation.rejected)[:3]
    counts = "; ".join(f"{each.rejected} break {each.constraint} (by {each.least_excess:g} or more)" for each in worst)
    change = f". Smallest change that helps: {infeasible.smallest_change}" if infeasible.smallest_change else ""
    return f"none of {infeasible.tried} tried is valid: {counts or 'no reason recorded'}{change}"


def _failure(record: TaskRecord | None) -> str:
    return f"{record.failure.reason}: {record.failure.message}" if record is not None and record.failure is not None else ""


def _with_simulation(layers: tuple[Layer, ...], base: Simulated) -> tuple[Layer, ...]:
    """Layers with their simulated cost: the base design holds the mapped layers in order."""
    said = itertools.zip_longest(base.costs, base.reasons, base.attribution)
    made = []
    for layer in layers:
        if layer.schedule:
            cost, reason, shares = next(said, (None, None, None))
            layer = msgspec.structs.replace(layer, simulated=cost, same_model=base.same_model, gap=reason or "", attribution=shares or {})
        made.append(layer)
    return tuple(made)


def _simulated_design(answers: Mapping[str, Answer]) -> Iterable[Simulated]:
    index = 1
    while isinstance(answer := answers.get(task_id("simulate", index)), Simulated):
        yield answer
        index += 1


def summary(report: Report, digest: str | None = None) -> dict[str, Any]:
    """The run as one JSON object: base units, every unit in its key."""
    state = report.state
    return {
        "run": state.run,
        "status": state.status,
        "exit_code": state.exit_code,
        "digest": digest,
        "request": msgspec.to_builtins(state.request),
        "submitted": state.submitted,
        "finished": state.finished or None,
        "failure": msgspec.to_builtins(state.failure),
        "notes": list(state.notes),
        "stages": {stage.stage: {"total": stage.total, "cached": stage.cached, **stage.counts} for stage in state.stages},
        "totals": _totals(report),
        "bottleneck": report.binding,
        "layers": [_layer(layer) for layer in report.layers],
        "profile": _profile(report.profile),
        "design": None if report.codesigned is None else _design(report.codesigned, report),
    }


def _totals(report: Report) -> dict[str, Any] | None:
    if not report.mapped:
        return None
    return {
        "layers": len(report.layers),
        "mapped": len(report.mapped),
        "energy_pj": report.energy_pj,
        "cycles": report.cycles,
        "edp_pj_cycles": report.edp,
        "seconds": report.seconds,
        "utilization": report.utilization,
    }


def _profile(profile: Profile | None) -> dict[str, Any] | None:
    if profile is None:
        return None
    from .profile_tables import as_json

    return {
        "target": profile.architecture.name,
        "macs": profile.workload.macs,
        "parameters": profile.workload.parameters,
        "operators": [_fields(each) for each in profile.operators],
        "points": as_json(profile.points),
    }


def _fields(value: msgspec.Struct) -> dict[str, Any]:
    """Every field of a flat struct, those at their defaults too."""
    return {name: getattr(value, name) for name in value.__struct_fields__}


def _cost(cost: Cost) -> dict[str, Any]:
    return {
        "energy_pj": cost.energy_pj,
        "cycles": cost.cycles,
        "edp_pj_cycles": cost.edp,
        "utilization": cost.utilization,
        "model": cost.model,
    }


def _layer(layer: Layer) -> dict[str, Any]:
    schedule, kernel = layer.schedule, layer.kernel
    return {
        "task": layer.task,
        "name": layer.name,
        "count": layer.count,
        "macs": layer.macs,
        "reason": layer.reason or None,
        "stopped": layer.stopped or None,
        **({} if schedule is None else _cost(schedule.cost)),
        "bottleneck": None if schedule is None else schedule.cost.bottleneck,
        "claim": None if schedule is None else _fields(schedule.claim),
        "simulated": None
        if layer.simulated is None
        else {**_cost(layer.simulated), "same_model": layer.same_model, "reason": layer.gap or None, "attribution": layer.attribution},
        "kernel": None
        if kernel is None
        else {
            "name": kernel.name,
            "target": kernel.target,
            "tiles": kernel.tiles,
            "notes": kernel.notes,
            **_fields(kernel.verification),
        },
    }


def _design(codesigned: Codesigned, report: Report) -> dict[str, Any]:
    design, baseline = codesigned.design, codesigned.baseline
    return {
        "cores": [{"name": core.name, "parameters": core.parameters} for core in design.cores],
        "baseline_parameters": report.parameters,
        **_design_totals(design),
        "baseline": _design_totals(baseline),
        "edp_ratio": baseline.edp / design.edp,
        "claim": _fields(design.claim),
        "evaluations": codesigned.evaluations,
        "complete": codesigned.complete,
        "front": as_json(codesigned.front),
        "simulated": [
            {"model": each.model, "same_model": each.same_model, "costs": [_cost(cost) for cost in each.costs]}
            for each in report.simulated_design
        ],
    }


def _design_totals(design: Design) -> dict[str, Any]:
    return {"energy_pj": design.energy_pj, "cycles": design.cycles, "edp_pj_cycles": design.edp}
