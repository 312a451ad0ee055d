"""How a run ends, once every task of every stage is settled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from tilewright.protocol.messages import Failure, RunRequest
from tilewright.protocol.run import RunStatus, StageState
from tilewright.protocol.subjects import Stage


class Verdict(TypedDict):
    """Fields of the final state."""

    status: RunStatus
    failure: Failure | None
    notes: tuple[str, ...]


def verdict(request: RunRequest, stages: Mapping[Stage, StageState]) -> Verdict:
    """``done``: everything asked for exists. ``partial``: part of it. ``failed``: no stage that was asked for has anything to show.

    The profile alone is nothing to show, unless it is all that was asked for. `notes` has a line for everything that is missing.
    """
    asked = [stage for name, stage in stages.items() if name in request.stages]
    goals = [stage for stage in asked if stage.stage != "profile"] or asked
    notes = tuple(note for stage in stages.values() for note in _missing(stage, request))
    if not notes:
        return Verdict(status="done", failure=None, notes=())
    status: RunStatus = "partial" if any(_has_something(stage) for stage in goals) else "failed"
    return Verdict(status=status, failure=_reason(request, stages), notes=notes)


def _has_something(stage: StageState) -> bool:
    return stage.counts["done"] > stage.counts["empty"]


def _missing(stage: StageState, request: RunRequest) -> list[str]:
    counts = stage.counts
    if not stage.total:
        return [f"{stage.stage}: nothing to do"]
    notes = []
    if counts["failed"]:
        why = f": {stage.first_failure.message}" if stage.first_failure is not None else ""
        notes.append(f"{stage.stage}: {counts['failed']} of {stage.total} failed{why}")
    if counts["empty"]:
        notes.append(f"{stage.stage}: {counts['empty']} of {stage.total} operators have no valid mapping on {request.target}")
    if counts["skipped"]:
        notes.append(f"{stage.stage}: {counts['skipped']} of {stage.total} left out because they have no schedule")
    return notes


def _reason(request: RunRequest, stages: Mapping[Stage, StageState]) -> Failure:
    """The failure of the first stage that has one; else what kept it from having anything to do."""
    for stage in stages.values():
        if stage.first_failure is not None:
            return stage.first_failure
        if stage.stage == "map" and not stage.total:
            text = f"{request.model} has no multiply-accumulate operator, so there is nothing to map"
            return Failure("bad input", text, exit_code=2)
    return Failure("infeasible", f"some operators of {request.model} have no valid mapping on {request.target}; see the map stage")
