"""The house itself: which services answer, start and stop the embedded ones, be one, prepare a server."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from tilewright.protocol.bootstrap import bootstrap
from tilewright.protocol.bus import Bus, ServiceInfo
from tilewright.protocol.errors import InvalidInput, NoConnection
from tilewright.protocol.permissions import ADMIN
from tilewright.protocol.subjects import PIPELINE, SERVICES

from ..runtime import logs
from ..runtime import settings as runtime_settings
from ..runtime.embedded import StateFolder, join, stop
from ..runtime.serve import serve as be
from . import connect, console, tables

NAMES = (PIPELINE, *SERVICES.values())
#: Seconds that the services may take to answer after `up`.
PATIENCE = 60.0


def services(*, json: bool) -> None:
    """List the service instances that answer."""

    async def work(bus: Bus) -> list[ServiceInfo]:
        return sorted(await bus.services(), key=lambda info: (info.name, info.id))

    found = connect.talk(work)
    if json:
        for info in found:
            console.json_line(info)
        return
    made = tables.table("service", "instance", "version", "about")
    for info in found:
        about: dict[str, Any] = {**info.metadata, **info.stats}
        made.add_row(info.name, info.id, info.version, ", ".join(f"{name} {value}" for name, value in about.items()))
    console.show(made if found else "no service answers; they start when a run needs them, or with `tilewright up`")


def up(*, json: bool) -> None:
    """Start all embedded services, keep them running, and wait until they answer."""
    folder = _embedded("up")
    folder.stay = True
    connect.talk(_all_answer)
    if json:
        console.json_line({"services": NAMES, "state": str(folder.path)})
    else:
        console.line(f"up: {', '.join(NAMES)}; store and logs in {folder.path}; `tilewright down` stops them")


async def _all_answer(bus: Bus) -> None:
    missing = set(NAMES)
    try:
        async with asyncio.timeout(PATIENCE):
            while missing:
                missing = {name for name in NAMES if not any(info.name.endswith(name) for info in await bus.services())}
    except TimeoutError:
        raise NoConnection(f"up: no answer from {', '.join(sorted(missing))} within {PATIENCE:g} s; see their logs") from None


def down(*, json: bool) -> None:
    """Stop the embedded services; live runs go on when the next ones start."""
    folder = _embedded("down")
    stopped = stop(folder)
    if json:
        console.json_line({"stopped": stopped})
    else:
        console.line("down: everything has stopped" if stopped else "down: nothing was running")


def _embedded(verb: str) -> StateFolder:
    if not connect.is_local():
        raise InvalidInput(f"{verb}: TILEWRIGHT_NATS_URL is set, and {verb!r} is about the embedded services only; unset it")
    return connect.state_folder()


def serve(service: str) -> None:
    """Be a service until a signal comes, on the server of the environment or on the embedded one."""
    settings = runtime_settings.load()
    logs.configure(settings.log_format)
    if settings.nats_url:
        asyncio.run(be(service, settings))
        return
    folder = connect.state_folder()
    with join(folder) as member:
        reached = msgspec.structs.replace(settings, nats_url=member.settings.url, nats_token_file=str(folder.token))
        asyncio.run(be(service, reached))


def init(replicas: int) -> None:
    """Create or update the streams of a server."""

    async def work(bus: Bus) -> list[str]:
        return await bootstrap(bus, replicas=replicas, ack_wait=runtime_settings.load().ack_wait)

    changed = connect.talk(work, role=ADMIN)
    console.line(f"created or changed: {', '.join(changed)}" if changed else "everything is there already")
