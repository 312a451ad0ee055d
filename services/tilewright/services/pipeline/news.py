"""What people are told about a run: everything follows from how its state changed."""

from __future__ import annotations

import msgspec

from tilewright.protocol.messages import Event
from tilewright.protocol.run import RunState
from tilewright.protocol.subjects import EventKind


class PublishEvent(msgspec.Struct, frozen=True):
    """Tell people something about the run as a whole (`stage` is ``run``) or about one stage."""

    stage: str
    kind: EventKind
    event: Event


def news(before: RunState | None, after: RunState | None) -> tuple[PublishEvent, ...]:
    """``accepted`` when the run begins, ``queued`` when a stage's tasks are known, ``state`` when a stage or the run is over.

    The figures of a stage's events are numbers of tasks; the text of the run's last event is its final status.
    """
    if after is None or after is before:
        return ()
    told = []
    if before is None:
        text = f"{after.request.model} on {after.request.target}: {', '.join(stage.stage for stage in after.stages)}"
        told.append(PublishEvent("run", "accepted", Event(text)))
    old = {stage.stage: stage for stage in before.stages} if before is not None else {}
    for stage in after.stages:
        was = old.get(stage.stage)
        if stage.total >= 0 and (was is None or was.total < 0):
            skipped = stage.counts["skipped"]
            figures = {"tasks": float(stage.total - skipped), "skipped": float(skipped)}
            told.append(PublishEvent(stage.stage, "queued", Event(f"{stage.total - skipped} tasks", figures)))
        if stage.complete and (was is None or not was.complete):
            figures = {name: float(count) for name, count in (stage.counts | {"cached": stage.cached}).items()}
            told.append(PublishEvent(stage.stage, "state", Event("complete", figures, stage.first_failure)))
    if not after.active and (before is None or before.active):
        told.append(PublishEvent("run", "state", Event(after.status, failure=after.failure)))
    return tuple(told)
