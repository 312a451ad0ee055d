"""The way to a server: the one that ``TILEWRIGHT_NATS_URL`` names, or the embedded one of the state folder."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from tilewright.protocol.bus import Bus, BusSettings
from tilewright.protocol.errors import NoConnection
from tilewright.protocol.permissions import CLIENT

from ..runtime import settings as runtime_settings
from ..runtime.embedded import Membership, StateFolder, join

T = TypeVar("T")

#: Name that the server shows of us.
NAME = "tilewright-cli"
#: Times that an embedded server which does not answer is tried: it may just be restarting.
ATTEMPTS = 3
#: Seconds between two looks at whether the supervisor lives.
LOOK = 0.5


def is_local() -> bool:
    """True when the services are this installation's own."""
    return not runtime_settings.load().nats_url


def state_folder() -> StateFolder:
    """The folder of the embedded server."""
    return StateFolder(Path(runtime_settings.load().state))


class SupervisorDied(NoConnection):
    """The embedded supervisor was killed, and its server with it."""


def talk(work: Callable[[Bus], Awaitable[T]], *, resumes: bool = False, role: str = CLIENT) -> T:
    """Do some work on a connection; `NoConnection` says why there is none.

    While the work lasts we count as a client of the embedded supervisor, so it stays. Work that `resumes` is called again,
    on a new supervisor, when the old one was killed. On a server with users we are one of `role`.
    """
    settings = runtime_settings.load()
    if settings.nats_url:
        return asyncio.run(_with_bus(settings.bus(NAME, role), 1, work))
    folder = StateFolder(Path(settings.state))
    while True:
        with join(folder) as member:
            try:
                return asyncio.run(_while_supervised(folder, member, work) if resumes else _with_bus(member.settings, ATTEMPTS, work))
            except SupervisorDied:
                continue


async def _while_supervised(folder: StateFolder, member: Membership, work: Callable[[Bus], Awaitable[T]]) -> T:
    """Do the work, or give it up with `SupervisorDied` as soon as there is nobody to do it with."""
    working = asyncio.create_task(_with_bus(member.settings, ATTEMPTS, work))
    while not working.done():
        await asyncio.wait([working], timeout=LOOK)
        record = folder.record
        if not working.done() and (record is None or record.url != member.settings.url or not folder.supervised):
            working.cancel()
            await asyncio.wait([working])
            raise SupervisorDied(f"the supervisor of {folder.path} was killed")
    return working.result()


async def _with_bus(settings: BusSettings, attempts: int, work: Callable[[Bus], Awaitable[T]]) -> T:
    async with await _connect(settings, attempts) as bus:
        return await work(bus)


async def _connect(settings: BusSettings, attempts: int) -> Bus:
    while True:
        try:
            return await Bus.connect(settings)
        except NoConnection:
            attempts -= 1
            if not attempts:
                raise
            await asyncio.sleep(0.2)


def where() -> str:
    """Where results lie, for people."""
    settings = runtime_settings.load()
    return settings.nats_url.rpartition("@")[2] if settings.nats_url else str(StateFolder(Path(settings.state)).store)
