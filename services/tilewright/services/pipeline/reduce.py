"""What a run does next: a pure function of its state and of one event.

It knows no clock, no randomness and no I/O. Events may come twice, late, or in any order; whatever the order, the
same outcomes lead to the same final state (times apart). Two rules make it safe to run anywhere, any number of times:

* A state is written by compare-and-swap only, and the jobs of a transition are published before it is written. Who dies
  in between leaves jobs behind that the next one publishes again under the same message ids.
* An outcome is recorded (first writer wins) before it gets here, so `Ended` always carries what stands in the record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice

import msgspec
from msgspec.structs import replace

from tilewright.protocol.messages import Failure, RunRequest
from tilewright.protocol.run import RunState, StageState, TaskRecord, bits, closure, members, packed
from tilewright.protocol.subjects import Stage

from . import plan
from .news import PublishEvent, news
from .verdict import verdict

#: Most tasks of one run that are with the workers at the same time: the rest waits its turn in the state.
WINDOW = 256
#: Most tasks of a stage whose number is not known yet.
MOST_TASKS = 100_000


class Submitted(msgspec.Struct, frozen=True):
    """A run was asked for."""

    run: str
    request: RunRequest
    blob: str
    time: float


class Ended(msgspec.Struct, frozen=True):
    """A task has this record."""

    stage: Stage
    index: int
    record: TaskRecord
    time: float


class Lost(msgspec.Struct, frozen=True):
    """These tasks (a bitmap), sent at this generation or before, are neither queued, nor in work, nor recorded."""

    stage: Stage
    tasks: int
    generation: int


class Tick(msgspec.Struct, frozen=True):
    """Time has passed: send what can be sent."""

    time: float


Event = Submitted | Ended | Lost | Tick


class PublishJob(msgspec.Struct, frozen=True):
    """Put the job of a task on its stage's queue."""

    stage: Stage
    index: int
    generation: int


Command = PublishJob | PublishEvent


def reduce(state: RunState | None, event: Event) -> tuple[RunState | None, tuple[Command, ...]]:
    """The next state and what to do before it is written (jobs) and after (events); the very same state when nothing changes."""
    after, jobs = _transition(state, event)
    return after, (*jobs, *news(state, after))


def _transition(state: RunState | None, event: Event) -> tuple[RunState | None, tuple[PublishJob, ...]]:
    if state is None:
        return (_start(event) if isinstance(event, Submitted) else None), ()
    if isinstance(event, Ended):
        return _end(state, event)
    if not state.active:
        return state, ()
    if isinstance(event, Lost):
        return _lose(state, event), ()
    return _advance(state, event.time)


def expects(state: RunState, stage: Stage, index: int) -> bool:
    """True when the outcome of a task would still change something. A cancelled run takes what its last tasks had found."""
    if not (state.active or state.cancelled):
        return False
    known = state.stage(stage)
    return known is not None and index < (known.total if known.total >= 0 else MOST_TASKS) and not known.settled >> index & 1


def unsent(state: RunState, refused: Iterable[PublishJob]) -> RunState:
    """The state without jobs that a full queue refused: they wait for the next event or tick."""
    for job in refused:
        state = _with(state, job.stage, partial(_clear, tasks=1 << job.index))
    return state


def _clear(stage: StageState, tasks: int) -> StageState:
    return replace(stage, sent=packed(bits(stage.sent) & ~tasks))


def _with(state: RunState, name: Stage, change: Callable[[StageState], StageState]) -> RunState:
    return replace(state, stages=tuple(change(stage) if stage.stage == name else stage for stage in state.stages))


def _start(event: Submitted) -> RunState:
    """A fresh run. Nothing is sent before its state exists, so no outcome ever belongs to an unknown run."""
    stages = tuple(StageState(stage) for stage in closure(event.request.stages))
    return RunState(event.run, event.request, event.blob, stages=stages, submitted=event.time)


def _end(state: RunState, event: Ended) -> tuple[RunState, tuple[PublishJob, ...]]:
    if not expects(state, event.stage, event.index) or (state.cancelled and event.record.status == "cancelled"):
        return state, ()
    state = _with(state, event.stage, partial(_settle, index=event.index, record=event.record))
    return _advance(state, event.time) if state.active else (state, ())


def _settle(stage: StageState, index: int, record: TaskRecord) -> StageState:
    bit = 1 << index
    sent = packed(bits(stage.sent) | bit)
    if record.status == "done":
        empty = bits(stage.empty) | (0 if record.usable or stage.stage == "profile" else bit)
        return replace(
            stage,
            sent=sent,
            done=packed(bits(stage.done) | bit),
            empty=packed(empty),
            usable=stage.usable + record.usable,
            cached=stage.cached + record.cached,
        )
    failed = bits(stage.failed)
    failure = record.failure or Failure("cancelled", f"{record.task} was stopped although the run was not cancelled")
    # Of several failures the one of the lowest task is told, in whatever order they come.
    first = stage.first_failure if failed & (bit - 1) else failure
    return replace(stage, sent=sent, failed=packed(failed | bit), first_failure=first)


def _lose(state: RunState, event: Lost) -> RunState:
    """Make lost tasks wait to be sent again under a new generation; evidence about an older one says nothing."""
    stage = state.stage(event.stage)
    if stage is None or stage.generation != event.generation:
        return state
    lost = event.tasks & stage.outstanding
    if not lost:
        return state
    return _with(state, event.stage, lambda stage: replace(_clear(stage, lost), generation=stage.generation + 1))


def _advance(state: RunState, time: float) -> tuple[RunState, tuple[PublishJob, ...]]:
    """Open the stages that are ready, send what fits into the window, and end the run when nothing is left to do."""
    stages = {stage.stage: stage for stage in state.stages}
    room = max(0, WINDOW - sum(stage.outstanding.bit_count() for stage in state.stages))
    jobs: list[PublishJob] = []
    for name, stage in stages.items():
        if stage.total < 0:
            if not plan.ready(stages, name):
                continue
            total, skipped = plan.expand(stages, name)
            stage = replace(stage, total=total, skipped=packed(skipped))
        waiting = (1 << stage.total) - 1 & ~(bits(stage.sent) | stage.settled)
        now = tuple(islice(members(waiting), room))
        if now:
            room -= len(now)
            jobs += (PublishJob(name, index, stage.generation) for index in now)
            stage = replace(stage, sent=packed(bits(stage.sent) | sum(1 << index for index in now)))
        stages[name] = stage
    after = tuple(stages.values())
    if all(stage.complete for stage in after):
        return replace(state, stages=after, finished=time, **verdict(state.request, stages)), ()
    return (state if after == state.stages else replace(state, stages=after)), tuple(jobs)
