"""``run`` and its verbs, and ``attach``: submit, watch, show, leave with the run's exit code."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from tilewright.protocol.bus import Bus
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.run import RunState
from tilewright.protocol.subjects import PIPELINE

from ..runtime.runs import request_cancel, submit
from . import connect, console, look, parse, request, views
from .follow import Follower

if TYPE_CHECKING:
    from tilewright.protocol.subjects import Stage

    from .options import RunOptions

#: Seconds after the first Ctrl-C in which a second one cancels.
SECOND_THOUGHT = 2.0
#: Seconds that a cancelled run may take to say so.
CANCEL_PATIENCE = 30.0
#: Seconds after which we say that nobody takes a run up.
UNHEARD = 5.0


def start(said: RunOptions, stages: Sequence[Stage]) -> None:
    """Submit a run of `stages` and, unless it is detached, watch it to its end."""
    for name in ("model", "target"):
        if not getattr(said, name):
            raise InvalidInput(f"{name}: missing, expected {'a model' if name == 'model' else '--target'}")
    local = connect.is_local()
    asked = request.build(said, parse.stages(said.stages) if said.stages else tuple(stages), local=local)

    async def work(bus: Bus) -> int:
        run = await submit(bus, asked)
        if said.detach:
            console.json_line({"run": run}) if said.json else console.line(run)
            return 0
        return await watch(bus, run, views.choose(run, asked, json=said.json), json=said.json)

    raise typer.Exit(connect.talk(work))


def attach(word: str, *, json: bool) -> None:
    """Watch a run that exists."""

    async def work(bus: Bus) -> int:
        run = await look.resolve(bus, word)
        return await watch(bus, run, views.choose(run, None, json=json), json=json)

    raise typer.Exit(connect.talk(work))


async def watch(bus: Bus, run: str, view: views.View, *, json: bool) -> int:
    """Watch a run until it ends or the user leaves it; shows what came out and returns the exit code."""
    try:
        state = await Watch(bus, run, view).until_end()
    finally:
        view.close()
    if state is None:
        if json:
            console.json_line({"run": run, "status": "running", "detached": True})
        return 0
    return await look.conclude(bus, run, json=json)


class Watch:
    """Follows a run and listens for Ctrl-C: once leaves the run alone, twice cancels it."""

    def __init__(self, bus: Bus, run: str, view: views.View) -> None:
        self._bus = bus
        self._run = run
        self._view = view
        self._taken_up = asyncio.Event()
        self._pressed: asyncio.Queue[None] = asyncio.Queue()

    async def until_end(self) -> RunState | None:
        """The final state, or None when the user has left."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._pressed.put_nowait, None)
        following = asyncio.create_task(Follower(self._bus, self._run, self._view.heard, self._seen).until_end())
        unheard = asyncio.create_task(self._say_when_unheard())
        try:
            if await self._press(following, None):
                again = f"`tilewright attach {self._run}` watches it again"
                self._view.note(f"leaving run {self._run} to itself: {again}; Ctrl-C within {SECOND_THOUGHT:g} s cancels it")
                if await self._press(following, SECOND_THOUGHT):
                    self._view.note(f"cancelling run {self._run}")
                    await request_cancel(self._bus, self._run)
                    await asyncio.wait([following], timeout=CANCEL_PATIENCE)
            return following.result() if following.done() else None
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            for task in (following, unheard):
                task.cancel()
            await asyncio.wait([following, unheard])

    async def _press(self, following: asyncio.Task[RunState], timeout: float | None) -> bool:
        """True when Ctrl-C comes before the end of the run and of the time."""
        press = asyncio.create_task(self._pressed.get())
        done, _ = await asyncio.wait([press, following], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        press.cancel()
        return press in done and following not in done

    def _seen(self, state: RunState | None) -> None:
        if state is not None:
            self._taken_up.set()
        self._view.seen(state)

    async def _say_when_unheard(self) -> None:
        try:
            async with asyncio.timeout(UNHEARD):
                await self._taken_up.wait()
        except TimeoutError:
            if not any(service.name.endswith(PIPELINE) for service in await self._bus.services()):
                self._view.note(f"no pipeline answers on this server: run {self._run} waits in the queue until one starts")
