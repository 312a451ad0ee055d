"""The live view of a run on a terminal: stages, the tasks in work, the best found so far."""

from __future__ import annotations

import time

from rich.console import Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from tilewright.protocol.run import RunState

from . import console
from .progress import Happening, Progress, StageProgress
from .views import best

#: Redraws per second.
RATE = 8
#: Tasks in work that are listed for each stage.
MOST_TASKS = 6


class LiveView:
    """Draws `Progress` while it lasts."""

    def __init__(self, run: str, objective: str) -> None:
        self._progress = Progress(run)
        self._objective = objective
        self._notes: list[str] = []
        self._spinner = Spinner("dots")
        self._live = Live(get_renderable=self._draw, console=console.console(), refresh_per_second=RATE, transient=True)
        self._live.start()

    def heard(self, happening: Happening, subject: str) -> None:
        """Take it in; the next redraw shows it."""
        self._progress.see(happening)

    def seen(self, state: RunState | None) -> None:
        """Keep the counts exact."""
        if state is not None:
            self._objective = state.request.objective
            self._progress.see_state(state)

    def note(self, text: str) -> None:
        """Below the tree."""
        self._notes = [*self._notes, text][-3:]

    def close(self) -> None:
        """Leave the terminal as it was, and the notes on it."""
        self._live.stop()
        notes, self._notes = self._notes, []
        for text in notes:
            console.note(text)

    def _draw(self) -> RenderableType:
        return Group(
            tree(self._progress, self._objective, time.time(), self._spinner),
            *(Text(text, style="yellow") for text in (*self._progress.log, *self._notes)),
        )


def tree(progress: Progress, objective: str, now: float, spinner: RenderableType | None = None) -> RenderableType:
    """The run as a tree: stage, then what is in work. `now` is the wall clock in seconds."""
    header = Table.grid(padding=(0, 1))
    title = progress.title or "waiting for the pipeline"
    seconds = max(0.0, now - progress.began) if progress.began else 0.0
    workers = f"{len(progress.workers)} workers" if progress.workers else "no worker yet"
    header.add_row(spinner or "", Text(title, style="bold"), Text(f"{progress.run}   {seconds:.0f} s   {workers}", style="dim"))
    drawn = Tree(header)
    for stage in progress.stages.values():
        branch = drawn.add(_stage(stage))
        if stage.complete:
            continue
        for task in list(stage.tasks.values())[:MOST_TASKS]:
            found = best(task.figures, objective)
            branch.add(Text("  ".join(part for part in (task.task, task.name, found or task.text) if part)))
        if len(stage.tasks) > MOST_TASKS:
            branch.add(Text(f"and {len(stage.tasks) - MOST_TASKS} more", style="dim"))
    return drawn


def _stage(stage: StageProgress) -> Text:
    mark, style = ("✓", "green") if stage.complete else ("·", "")
    if stage.failed:
        mark, style = "✗", "red"
    text = Text(f"{mark} {stage.stage:<9}", style=style)
    if stage.total < 0:
        return text.append(" waiting", style="dim")
    text.append(f" {stage.done}/{stage.total - stage.skipped}")
    if stage.cached:
        text.append(f"  {stage.cached} ANSWERED FROM THE CACHE", style="bold cyan")
    for count, what in ((stage.failed, "failed"), (stage.empty, "without a valid mapping"), (stage.skipped, "left out")):
        if count:
            text.append(f"  {count} {what}", style="yellow")
    return text
