"""What is known of a run while it runs: built from its events and its state, drawn by `live` and told by `plain`. Pure."""

from __future__ import annotations

import dataclasses
from typing import Any

from tilewright.protocol.errors import InvalidMessage
from tilewright.protocol.messages import Envelope, Event, unpack
from tilewright.protocol.run import RunState

#: Event kinds after which a task is not in work any more.
ENDS = ("result", "error", "cancelled")
#: Lines of the log that are kept in sight.
LOG_LINES = 4


@dataclasses.dataclass
class TaskProgress:
    """One task that is in work."""

    task: str
    #: What people call it.
    name: str = ""
    text: str = ""
    figures: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class StageProgress:
    """One stage: how many tasks it has (-1: unknown), how many ended how, and which are in work."""

    stage: str
    total: int = -1
    done: int = 0
    cached: int = 0
    failed: int = 0
    #: Tasks without a valid mapping.
    empty: int = 0
    skipped: int = 0
    tasks: dict[str, TaskProgress] = dataclasses.field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """True when every task is settled."""
        return self.total >= 0 and self.done + self.failed + self.skipped >= self.total


@dataclasses.dataclass(frozen=True)
class Happening:
    """One event as people read it: which stage and task (``-``: the stage or run as a whole), what kind, what it says."""

    stage: str
    task: str
    kind: str
    event: Event
    envelope: Envelope
    sequence: int


def read(subject: str, data: bytes, sequence: int) -> Happening | None:
    """An event off the bus; None for one that a newer version sent and this one cannot read."""
    try:
        envelope, event = unpack(data)
    except InvalidMessage:
        return None
    stage, task, kind = subject.split(".")[-3:]
    return Happening(stage, task, kind, event, envelope, sequence) if isinstance(event, Event) else None


class Progress:
    """A run as seen so far."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.title = ""
        #: Wall clock of the first event, seconds; 0 before it.
        self.began = 0.0
        self.stages: dict[str, StageProgress] = {}
        self.workers: set[str] = set()
        self._names: dict[str, str] = {}
        self._said: dict[str, int] = {}

    def see_state(self, state: RunState) -> None:
        """Take over the counts of the stored state: they are exact, events only quick."""
        self.began = self.began or state.submitted
        self.title = f"{state.request.model} on {state.request.target}"
        for stored in state.stages:
            stage = self.stage(stored.stage)
            counts = stored.counts
            stage.total = stored.total
            stage.done, stage.failed, stage.empty, stage.skipped = (counts[name] for name in ("done", "failed", "empty", "skipped"))
            stage.cached = stored.cached
            for task in [task for task in stage.tasks if stored.settled >> int(task.rpartition("-")[2]) & 1]:
                del stage.tasks[task]

    def see(self, happening: Happening) -> None:
        """Take in one event."""
        event = happening.event
        self.began = self.began or happening.envelope.sent
        if event.worker:
            self.workers.add(event.worker)
        if happening.stage == "run":
            if happening.kind == "log":
                self._say(event.text)
            return
        stage = self.stage(happening.stage)
        if happening.task == "-":
            self._see_stage(stage, happening.kind, event.figures)
        elif happening.kind == "queued":
            self._names[happening.task] = event.text
        elif happening.kind in ENDS:
            stage.tasks.pop(happening.task, None)
            if happening.kind == "error" and event.failure is not None:
                self._say(f"{happening.stage}: {event.failure.message}")
        else:
            task = stage.tasks.setdefault(happening.task, TaskProgress(happening.task, self._names.get(happening.task, "")))
            task.text = event.text or task.text
            task.figures |= event.figures

    def _say(self, text: str) -> None:
        """Keep what is worth reading; what was said before is counted."""
        self._said[text] = self._said.pop(text, 0) + 1

    @property
    def log(self) -> list[str]:
        """The last few things worth reading, newest last."""
        return [f"{text} ({times} times)" if times > 1 else text for text, times in [*self._said.items()][-LOG_LINES:]]

    @staticmethod
    def _see_stage(stage: StageProgress, kind: str, figures: dict[str, float]) -> None:
        if kind == "queued":
            stage.skipped = int(figures.get("skipped", 0))
            stage.total = int(figures.get("tasks", 0)) + stage.skipped
        elif kind == "state":
            stage.done, stage.failed, stage.empty, stage.skipped, stage.cached = (
                int(figures.get(name, 0)) for name in ("done", "failed", "empty", "skipped", "cached")
            )

    def stage(self, name: str) -> StageProgress:
        """The progress of one stage, made when first asked for."""
        return self.stages.setdefault(name, StageProgress(name))


def as_json(happening: Happening, subject: str) -> dict[str, Any]:
    """An event as ``--json`` prints it: the envelope as sent, with where it was said."""
    import msgspec

    return {"subject": subject, "sequence": happening.sequence, **msgspec.to_builtins(happening.envelope)}
