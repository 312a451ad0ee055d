"""Reading runs: list, show, cancel. State and results only, never events."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
from rich.text import Text

from tilewright.protocol.bus import Bus
from tilewright.protocol.errors import InvalidInput, suggest
from tilewright.protocol.kernel import Kernel
from tilewright.protocol.run import RunState

from ..runtime import runs as stored
from . import connect, console, tables, units
from .kerneling import write
from .report import gather, summary

#: Runs that are listed without ``--all``.
LATEST = 20
STYLES = {"done": "green", "partial": "yellow", "failed": "red", "cancelled": "magenta", "running": "cyan"}


async def resolve(bus: Bus, word: str) -> str:
    """The id of the run that a word means: all of it, an unambiguous part, or ``last``."""
    ids = await (await stored.Runs.open(bus)).ids()
    if word in ids:
        return word
    if not ids:
        raise InvalidInput(f"run {word!r} does not exist: nothing has been run yet")
    if word == "last":
        return ids[-1]
    matches = [run for run in ids if word in run] if len(word) >= 4 else []
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise InvalidInput(f"run {word!r} is ambiguous: {', '.join(matches[-5:])}")
    raise InvalidInput(f"run {word!r} does not exist{suggest(word, ids[-LATEST:])}")


def runs(*, json: bool, everything: bool) -> None:
    """List runs, the newest last."""
    states = connect.talk(stored.list_runs)
    shown = states if everything else states[-LATEST:]
    if json:
        for state in shown:
            console.json_line(_brief(state))
        return
    made = tables.table("run", "status", "model", "target", "stages", "submitted", "took", right=(6,))
    for state in shown:
        made.add_row(
            state.run,
            Text(state.status, style=STYLES[state.status]),
            state.request.model,
            state.request.target,
            ", ".join(stage.stage for stage in state.stages),
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state.submitted)),
            units.duration(state.finished - state.submitted) if state.finished else "",
        )
    console.show(made if shown else Text("nothing has been run yet"))
    if len(shown) < len(states):
        console.line(f"and {len(states) - len(shown)} older ones (--all)")


def _brief(state: RunState) -> dict[str, Any]:
    return {
        "run": state.run,
        "status": state.status,
        "model": state.request.model,
        "target": state.request.target,
        "stages": [stage.stage for stage in state.stages],
        "submitted": state.submitted,
        "finished": state.finished or None,
        "failure": msgspec.to_builtins(state.failure),
    }


def show(word: str, *, json: bool, digest: bool, kernels: Path | None) -> None:
    """Show what a run came to, or only its digest; write its kernels into a folder."""

    async def work(bus: Bus) -> None:
        run = await resolve(bus, word)
        if digest:
            value = stored.digest(await (await stored.Runs.open(bus)).records(run))
            console.json_line({"run": run, "digest": value}) if json else console.line(value)
        elif kernels is not None:
            _write_kernels(await stored.load_run(bus, run), kernels)
        else:
            await conclude(bus, run, json=json)

    connect.talk(work)


def _write_kernels(view: stored.RunView | None, folder: Path) -> None:
    """One folder per kernel task."""
    found = {task: answer for task, answer in view.answers.items() if isinstance(answer, Kernel)} if view is not None else {}
    if not found:
        raise InvalidInput("--kernels: the run has none, expected one that went through the kernel stage")
    for task, kernel in found.items():
        target = folder / task
        write(kernel, target, "--kernels")
        console.line(f"{target}: {kernel.name} for {kernel.target}, {kernel.verification.status}")


def cancel(word: str, *, json: bool) -> None:
    """Cancel a run."""

    async def work(bus: Bus) -> None:
        run = await resolve(bus, word)
        state = await stored.request_cancel(bus, run)
        status = state.status if state is not None else "unknown"
        if json:
            console.json_line({"run": run, "status": status})
        elif status == "cancelled":
            console.line(f"run {run} is cancelled; `tilewright show {run}` shows what it had found")
        else:
            console.line(f"run {run} had ended before: {status}")

    connect.talk(work)


async def conclude(bus: Bus, run: str, *, json: bool) -> int:
    """Print everything a run has to show and return its exit code (0 while it runs)."""
    view = await stored.load_run(bus, run)
    if view is None:
        raise InvalidInput(f"run {run!r} does not exist")
    state = view.state
    report = gather(state, view.answers, {record.task: record for record in view.records})
    if json:
        console.json_line(summary(report, stored.digest(view.records)))
    else:
        console.show(tables.report(report, console.width()))
        _footer(state, view)
    if state.failure is not None and state.status == "failed":
        console.note(f"tilewright: {state.failure.message}")
    return state.exit_code or 0


def _footer(state: RunState, view: stored.RunView) -> None:
    """How it ended, how much was cached, where it is and how to see it again."""
    text = Text()
    text.append("Run        ", style="bold")
    text.append(state.run)
    text.append(f" {state.status}", style=STYLES[state.status])
    if state.finished:
        text.append(f" after {units.duration(state.finished - state.submitted)}")
    cached = sum(record.cached for record in view.records)
    if cached:
        every = "all" if cached == len(view.records) else f"{cached} of"
        text.append(f"; {every} {len(view.records)} tasks ANSWERED FROM THE CACHE", style="bold cyan")
    for note in state.notes if state.status != "failed" else ():
        text.append(f"\n           {note}", style="yellow")
    lost = sum(bool(record.result) and record.task not in view.answers for record in view.records)
    if lost:
        text.append(f"\n           {lost} results are not in the store any more; run it again to have them back", style="yellow")
    if view.answers:
        text.append("\nResults    ", style="bold")
        text.append(f"{connect.where()}, kept for 30 days; `tilewright show {state.run}` shows them again, --json in base units")
    console.show(text)
