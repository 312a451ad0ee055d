"""``run`` and its verbs, and ``attach``: submit, watch, show, leave with the run's exit code."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import typer

from tilewright.protocol.bus import Bus
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.keys import new_run_id
from tilewright.protocol.run import RunState
from tilewright.protocol.subjects import PIPELINE

from ..runtime.runs import ask_to_cancel, submit
from . import connect, console, look, parse, request, views
from .follow import Follower

if TYPE_CHECKING:
    from tilewright.protocol.messages import RunRequest
    from tilewright.protocol.subjects import Stage

    from .options import RunOptions

#: Seconds after the first Ctrl-C in which a second one cancels.
SECOND_THOUGHT = 2.0
#: Seconds that a cancelled run may take to say so.
CANCEL_PATIENCE = 30.0
#: Seconds after which we say that nobody takes a run up.
UNHEARD = 5.0


def start(
    said: RunOptions,
    stages: Sequence[Stage],
    *,
    adjust: Callable[[RunRequest], RunRequest] = lambda request: request,
    named: Callable[[str], None] = lambda run: None,
) -> None:
    """Submit a run of `stages`, as `adjust` wants it, and, unless it is detached, watch it to its end; `named` hears its id."""
    for name in ("model", "target"):
        if not getattr(said, name):
            raise InvalidInput(f"{name}: missing, expected {'a model' if name == 'model' else '--target'}")
    asked = adjust(request.build(said, parse.stages(said.stages) if said.stages else tuple(stages), local=connect.is_local()))
    run = new_run_id()
    named(run)

    async def ask(bus: Bus) -> None:
        await submit(bus, asked, run)

    if said.detach:
        connect.talk(ask)
        console.json_line({"run": run}) if said.json else console.line(run)
        return
    _watch(run, views.choose(run, asked, json=said.json), ask, json=said.json)


def attach(word: str, *, json: bool) -> None:
    """Watch a run that exists."""

    async def find(bus: Bus) -> str:
        return await look.resolve(bus, word)

    async def ask(bus: Bus) -> None:
        """It was asked for already."""

    run = connect.talk(find)
    _watch(run, views.choose(run, None, json=json), ask, json=json)


def _watch(run: str, view: views.View, ask: Callable[[Bus], Awaitable[None]], *, json: bool) -> None:
    """Ask for a run, watch it until it ends or the user leaves it, show what came out, and leave with its exit code."""
    watch = Watch(run, view)

    async def work(bus: Bus) -> int:
        await ask(bus)
        state = await watch.until_end(bus)
        view.close()
        if state is not None:
            return await look.conclude(bus, run, json=json)
        if json:
            console.json_line({"run": run, "status": "running", "detached": True})
        return 0

    try:
        code = connect.talk(work, resumes=True)
    finally:
        view.close()
    raise typer.Exit(code)


class Watch:
    """Follows a run and listens for Ctrl-C: once leaves the run alone, twice cancels it."""

    def __init__(self, run: str, view: views.View) -> None:
        self._run = run
        self._view = view
        self._follower = Follower(run, view.heard, self._seen)
        self._taken_up = asyncio.Event()

    async def until_end(self, bus: Bus) -> RunState | None:
        """The final state, or None when the user has left. It may be called again, with another bus, when a connection was lost."""
        pressed: asyncio.Queue[None] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, pressed.put_nowait, None)
        following = asyncio.create_task(self._follower.until_end(bus))
        unheard = asyncio.create_task(self._say_when_unheard(bus))
        try:
            if await _press(pressed, following, None):
                again = f"`tilewright attach {self._run}` watches it again"
                self._view.note(f"leaving run {self._run} to itself: {again}; Ctrl-C within {SECOND_THOUGHT:g} s cancels it")
                if await _press(pressed, following, SECOND_THOUGHT):
                    self._view.note(f"cancelling run {self._run}")
                    await ask_to_cancel(bus, self._run)
                    await asyncio.wait([following], timeout=CANCEL_PATIENCE)
            return following.result() if following.done() else None
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            for task in (following, unheard):
                task.cancel()
            await asyncio.wait([following, unheard])

    def _seen(self, state: RunState | None) -> None:
        if state is not None:
            self._taken_up.set()
        self._view.seen(state)

    async def _say_when_unheard(self, bus: Bus) -> None:
        try:
            async with asyncio.timeout(UNHEARD):
                await self._taken_up.wait()
        except TimeoutError:
            if not any(service.name.endswith(PIPELINE) for service in await bus.services()):
                self._view.note(f"no pipeline answers on this server: run {self._run} waits in the queue until one starts")


async def _press(pressed: asyncio.Queue[None], following: asyncio.Task[RunState], timeout: float | None) -> bool:
    """True when Ctrl-C comes before the end of the run and of the time."""
    press = asyncio.create_task(pressed.get())
    try:
        done, _ = await asyncio.wait([press, following], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        press.cancel()
    return press in done and following not in done
