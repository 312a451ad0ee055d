"""A target as a run wants it: its architecture with some numbers chosen, and the mapspace that goes with it."""

from __future__ import annotations

import msgspec

from tilewright.protocol.architecture import Architecture, Constraints, DesignSpace
from tilewright.protocol.errors import InvalidInput, suggest
from tilewright.protocol.messages import ProfileJob
from tilewright.services.runtime.host import Host


class Resolved(msgspec.Struct, frozen=True):
    """What later stages need to know of a target."""

    architecture: Architecture
    constraints: Constraints
    design_space: DesignSpace


def resolve(job: ProfileJob, host: Host) -> Resolved:
    """The architecture that the client gave, or the target's; `InvalidInput` for a parameter that is unknown or out of range."""
    if job.architecture is not None:
        if job.target_parameters:
            name = next(iter(job.target_parameters))
            raise InvalidInput(f"target_parameters.{name}: {job.architecture.name!r} was given whole, expected no parameters with it")
        return Resolved(job.architecture, Constraints(), DesignSpace())
    target = host.plugin("targets", job.target)
    space: DesignSpace = target.design_space()
    check_parameters(job.target, space, job.target_parameters)
    return Resolved(target.architecture(**job.target_parameters), target.constraints(), space)


def check_parameters(target: str, space: DesignSpace, values: dict[str, int]) -> None:
    """Raise `InvalidInput` unless every value is one that the design space allows."""
    known = {parameter.name: parameter for parameter in space.parameters}
    for name, value in values.items():
        if name not in known:
            raise InvalidInput(f"target_parameters.{name}: target {target!r} has no such parameter{suggest(name, known)}")
        if value not in known[name].values:
            low, high, unit = known[name].low, known[name].high, known[name].unit
            step = f"{'x' if known[name].geometric else '+'}{known[name].step}"
            raise InvalidInput(f"target_parameters.{name}: {value}, expected {low} to {high} {unit} in steps of {step}")
