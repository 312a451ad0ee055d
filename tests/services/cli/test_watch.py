"""Watching a run on a real server: every event once and in order, Ctrl-C once and twice."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from tilewright.protocol.bus import Bus
from tilewright.protocol.codec import encode
from tilewright.protocol.keys import message_id, new_run_id
from tilewright.protocol.messages import Event, RunRequest, pack
from tilewright.protocol.run import RunState, StageState
from tilewright.protocol.subjects import CANCEL, RUN_STREAM, RUNS_BUCKET, EventKind, event_subject
from tilewright.services.cli import follow, running
from tilewright.services.cli.follow import Follower
from tilewright.services.cli.progress import Happening
from tilewright.services.cli.running import Watch

Eventually = Callable[..., Awaitable[Any]]


class Noted:
    """A view that remembers."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.states: list[str] = []
        self.notes: list[str] = []

    def heard(self, happening: Happening, subject: str) -> None:
        self.told.append(happening.event.text)

    def seen(self, state: RunState | None) -> None:
        self.states.append("none" if state is None else state.status)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def close(self) -> None:
        """Nothing."""


class Acted:
    """A run whose part the test plays."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.run = new_run_id()
        self._count = 0

    async def tell(self, text: str, stage: str = "map", task: str = "map-0", kind: EventKind = "progress") -> None:
        self._count += 1
        subject = event_subject(self.run, stage, task, kind)
        await self.bus.publish(subject, pack(Event(text), self.run), message_id(self.run, task, self._count, kind))

    async def put(self, **fields: Any) -> None:
        state = RunState(self.run, RunRequest("m", "t"), stages=(StageState("profile"),), submitted=time.time())
        await (await self.bus.bucket(RUNS_BUCKET)).put(self.run, encode(msgspec.structs.replace(state, **fields)))

    async def status(self) -> str:
        state = await follow.state_of(await self.bus.bucket(RUNS_BUCKET), self.run)
        return state.status if state else "none"


@pytest.fixture
def acted(bus: Bus) -> Acted:
    return Acted(bus)


async def test_every_event_is_told_once_and_in_order(acted: Acted, eventually: Eventually, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "LOOK", 0.01)
    view = Noted()
    other = Acted(acted.bus)
    await acted.tell("0")
    following = asyncio.create_task(Follower(acted.run, view.heard, view.seen).until_end(acted.bus))
    await eventually(lambda: view.told == ["0"])
    assert set(view.states) == {"none"}
    await acted.put()
    await other.tell("of another run")
    for index in range(1, 300):
        await acted.tell(str(index))
    await acted.put(status="done")
    state = await following
    assert state.status == "done" and view.states[-1] == "done"
    assert view.told == [str(index) for index in range(300)]


async def test_an_event_of_the_run_is_a_reason_to_look_at_once(
    acted: Acted, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "LOOK", 3600.0)
    view = Noted()
    following = asyncio.create_task(Follower(acted.run, view.heard, view.seen).until_end(acted.bus))
    await eventually(lambda: view.states)
    await acted.put(status="failed")
    await acted.tell("failed", "run", "-", "state")
    async with asyncio.timeout(20):
        assert (await following).status == "failed"


async def test_messages_that_cannot_be_read_are_passed_over(acted: Acted) -> None:
    view = Noted()
    await acted.bus.publish(event_subject(acted.run, "map", "map-0", "progress"), b"\xc1", message_id(acted.run, "x", 0, "progress"))
    await acted.tell("readable")
    await acted.put(status="done")
    await Follower(acted.run, view.heard, view.seen).until_end(acted.bus)
    assert view.told == ["readable"]


async def test_ctrl_c_once_leaves_the_run_alone(acted: Acted, eventually: Eventually, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "SECOND_THOUGHT", 0.05)
    view = Noted()
    await acted.put()
    watching = asyncio.create_task(Watch(acted.run, view).until_end(acted.bus))
    await eventually(lambda: view.states)
    os.kill(os.getpid(), signal.SIGINT)
    async with asyncio.timeout(20):
        assert await watching is None
    assert view.notes == [
        f"leaving run {acted.run} to itself: `tilewright attach {acted.run}` watches it again; Ctrl-C within 0.05 s cancels it"
    ]
    assert await acted.status() == "running"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


async def test_ctrl_c_twice_cancels(acted: Acted, eventually: Eventually, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "SECOND_THOUGHT", 60.0)
    view = Noted()
    await acted.put()
    watching = asyncio.create_task(Watch(acted.run, view).until_end(acted.bus))
    await eventually(lambda: view.states)
    os.kill(os.getpid(), signal.SIGINT)
    await eventually(lambda: len(view.notes) == 1)
    os.kill(os.getpid(), signal.SIGINT)

    async def asked() -> bool:
        return CANCEL in await acted.bus.subjects(RUN_STREAM, ">")

    await eventually(asked)
    await acted.put(status="cancelled")
    async with asyncio.timeout(20):
        state = await watching
    assert state is not None and state.cancelled and state.exit_code == 4
    assert view.notes[1] == f"cancelling run {acted.run}"


async def test_a_run_that_ends_while_the_user_thinks_is_shown(
    acted: Acted, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "SECOND_THOUGHT", 60.0)
    monkeypatch.setattr(follow, "LOOK", 0.01)
    view = Noted()
    await acted.put()
    watching = asyncio.create_task(Watch(acted.run, view).until_end(acted.bus))
    await eventually(lambda: view.states)
    os.kill(os.getpid(), signal.SIGINT)
    await eventually(lambda: view.notes)
    await acted.put(status="done")
    async with asyncio.timeout(20):
        state = await watching
    assert state is not None and state.status == "done"


async def test_a_run_that_nobody_takes_up_is_said_to_wait(acted: Acted, eventually: Eventually, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "UNHEARD", 0.01)
    view = Noted()
    watching = asyncio.create_task(Watch(acted.run, view).until_end(acted.bus))
    await eventually(lambda: view.notes)
    assert view.notes == [f"no pipeline answers on this server: run {acted.run} waits in the queue until one starts"]
    await acted.put(status="done")
    async with asyncio.timeout(20):
        await watching


async def test_a_busy_pipeline_is_not_missing(acted: Acted, eventually: Eventually, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "UNHEARD", 0.01)
    monkeypatch.setattr(follow, "LOOK", 0.01)
    await acted.bus.serve_info("pipeline", {}, dict)
    view = Noted()
    watching = asyncio.create_task(Watch(acted.run, view).until_end(acted.bus))
    await acted.bus.services(timeout=0.5)
    await acted.put(status="done")
    async with asyncio.timeout(20):
        await watching
    assert view.notes == []
