"""Three ways to watch a run: lines of JSON, plain lines, or a live tree on a terminal."""

from __future__ import annotations

import sys
from typing import Protocol

from tilewright.protocol.messages import RunRequest
from tilewright.protocol.run import RunState

from . import console, units
from .progress import Happening, Progress, StageProgress, as_json


class View(Protocol):
    """What is told about a run while it is watched."""

    def heard(self, happening: Happening, subject: str) -> None:
        """One event."""

    def seen(self, state: RunState | None) -> None:
        """The stored state; None while nobody has taken the run up."""

    def note(self, text: str) -> None:
        """Something that we have to say ourselves."""

    def close(self) -> None:
        """Nothing follows. It may be said twice."""


class JsonView:
    """Every event as one line of JSON; notes go to standard error."""

    def heard(self, happening: Happening, subject: str) -> None:
        """Print it."""
        console.json_line(as_json(happening, subject))

    def seen(self, state: RunState | None) -> None:
        """States are not events."""

    def note(self, text: str) -> None:
        """To standard error."""
        console.note(text)

    def close(self) -> None:
        """Nothing to clean up."""


class PlainView:
    """A line where something is worth one: stages, failures, what services say. Single tasks that go well are counted only."""

    def __init__(self, run: str) -> None:
        self._progress = Progress(run)
        self._failures: set[tuple[str, str]] = set()

    def heard(self, happening: Happening, subject: str) -> None:
        """Say it in a line, if at all; one failure of many tasks is said once."""
        self._progress.see(happening)
        text = told(happening, self._progress)
        if happening.kind == "error" and happening.event.failure is not None:
            failure = (happening.stage, happening.event.failure.message)
            text = "" if failure in self._failures else text
            self._failures.add(failure)
        if text:
            console.line(f"{happening.envelope.sent - self._progress.began:7.1f} s  {text}")

    def seen(self, state: RunState | None) -> None:
        """Keep the counts exact."""
        if state is not None:
            self._progress.see_state(state)

    def note(self, text: str) -> None:
        """To standard error."""
        console.note(text)

    def close(self) -> None:
        """Nothing to clean up."""


def told(happening: Happening, progress: Progress) -> str:
    """An event in one line; empty when it is not worth one."""
    event, kind = happening.event, happening.kind
    if happening.stage == "run":
        return event.text if kind in ("accepted", "log") else ""
    if happening.task == "-":
        stage = progress.stage(happening.stage)
        if not stage.total:  # nothing to do: what came before says why
            return ""
        if kind == "queued":
            return f"{happening.stage}: {stage.total - stage.skipped} {'task' if stage.total - stage.skipped == 1 else 'tasks'}"
        return f"{happening.stage}: {outcome(stage)}" if kind == "state" else ""
    if kind in ("error", "retry"):
        why = event.failure.message if event.failure is not None else event.text
        return f"{happening.task}: {'failed' if kind == 'error' else 'tried again'}: {why}"
    return f"{happening.task}: {event.text}" if kind == "log" and event.text else ""


def outcome(stage: StageProgress) -> str:
    """How the tasks of a stage ended, in words."""
    parts = [f"{stage.done} done"]
    if stage.cached:
        parts.append("ALL ANSWERED FROM THE CACHE" if stage.cached == stage.total else f"{stage.cached} ANSWERED FROM THE CACHE")
    counts = ((stage.failed, "failed"), (stage.empty, "without a valid mapping"), (stage.skipped, "left out"))
    return ", ".join(parts + [f"{count} {what}" for count, what in counts if count])


def choose(run: str, request: RunRequest | None, *, json: bool) -> View:
    """The view that fits where the output goes."""
    if json:
        return JsonView()
    if sys.stdout.isatty():
        from .live import LiveView

        return LiveView(run, request.objective if request is not None else "edp")
    return PlainView(run)


def best(figures: dict[str, float], objective: str) -> str:
    """The best value a search has reported, with its gap and effort; empty when it has reported none."""
    parts = []
    value = figures.get({"edp": "edp", "energy": "energy_pj", "latency": "cycles"}.get(objective, objective))
    if value is not None:
        parts.append(f"best {units.objective_value(objective, value)}")
    if (gap := figures.get("gap")) is not None:
        parts.append(f"gap {units.percent(gap)}")
    if (evaluations := figures.get("evaluations")) is not None:
        parts.append(f"{units.si(evaluations, '')} evaluations")
    return ", ".join(parts)
