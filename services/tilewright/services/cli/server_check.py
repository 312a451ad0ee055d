"""What ``doctor`` finds out about a server that the environment names."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import time
import urllib.request
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import msgspec
import nats.errors

from tilewright.protocol.bootstrap import streams
from tilewright.protocol.bus import Bus
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.permissions import CLIENT, permissions
from tilewright.protocol.subjects import SCHEMA, SCHEMA_KEY, Limits

#: Seconds that one question may take: a server does not answer what it does not allow.
PATIENCE = 2.0
#: Seconds by which clocks may differ before deadlines and ages are misjudged.
SKEW = 2.0
#: The oldest server with all that is used of it.
OLDEST = (2, 12)


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str
    #: What works, and what does not, while it is not there.
    without: str = ""
    #: Nothing works without it.
    required: bool = False


async def examine(bus: Bus) -> AsyncIterator[Finding]:
    """Version, streams, permissions, clock and the versions of the services."""
    version = str(bus.connection.client.connected_server_version)
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    yield Finding("server version", numbers >= OLDEST, f"nats-server {version}", "2.12 or later is needed", required=True)
    wanted = [str(each["name"]) for each in streams(Limits())]
    allowed = permissions(CLIENT).publish
    answers = {name: await _info(bus, name) for name in wanted if f"$JS.API.STREAM.INFO.{name}" in allowed}
    yield _permissions(answers)
    yield _streams({name: answer for name, answer in answers.items() if answer})
    yield await _clock(bus, next(iter(answers)))
    yield await _services(bus)


async def _info(bus: Bus, stream: str) -> dict[str, Any]:
    """What the server says of a stream; empty when it does not answer."""
    try:
        answer = await bus.connection.client.request(f"$JS.API.STREAM.INFO.{stream}", timeout=PATIENCE)
    except (nats.errors.TimeoutError, nats.errors.NoRespondersError):
        return {}
    found: dict[str, Any] = json.loads(answer.data)
    return found


def _permissions(answers: dict[str, dict[str, Any]]) -> Finding:
    refused = [name for name, answer in answers.items() if not answer]
    detail = f"no answer about {', '.join(refused)}" if refused else f"may see all {len(answers)} streams of a client"
    without = "this user lacks rights of a client; `tilewright admin auth` writes them, for the server to read again"
    return Finding("permissions", not refused, detail, without, required=True)


def _streams(answers: dict[str, dict[str, Any]]) -> Finding:
    def layout(answer: dict[str, Any]) -> str:
        return str((answer["config"].get("metadata") or {}).get(SCHEMA_KEY, "0"))

    missing = [name for name, answer in answers.items() if "error" in answer]
    other = [name for name, answer in answers.items() if "error" not in answer and layout(answer) != str(SCHEMA)]
    copies = {answer["config"]["num_replicas"] for answer in answers.values() if "error" not in answer}
    said = [*([f"missing: {', '.join(missing)}"] if missing else []), *([f"of another layout: {', '.join(other)}"] if other else [])]
    detail = "; ".join(said) or f"layout {SCHEMA}, copies of each: {', '.join(map(str, sorted(copies)))}"
    return Finding("streams", not said, detail, "run `tilewright admin init`", required=True)


async def _clock(bus: Bus, stream: str) -> Finding:
    """Our wall clock against the server's, as far as the time of the question lets us tell."""
    before = time.time()
    stamp = str((await _info(bus, stream)).get("ts", ""))
    after = time.time()
    if not stamp:
        return Finding("clock", False, "the server does not say its time", "deadlines may be off")
    skew = datetime.fromisoformat(stamp[:19] + "+00:00").timestamp() + float(f"0.{stamp[20:].rstrip('Z') or 0}") - (before + after) / 2
    doubt = (after - before) / 2
    good = abs(skew) <= SKEW + doubt
    detail = f"{skew:+.2f} s against the server, give or take {doubt:.2f} s"
    return Finding("clock", good, detail, "deadlines and ages are off; set the clock")


async def _services(bus: Bus) -> Finding:
    ours = importlib.metadata.version("tilewright")
    found = await bus.services()
    others = sorted({f"{each.name} {each.version}" for each in found if each.version != ours})
    names = sorted({each.name for each in found})
    detail = f"{', '.join(names) or 'none answers'}" + (f"; of another version than ours ({ours}): {', '.join(others)}" if others else "")
    without = "runs wait for services that are missing; neighbouring versions work together"
    return Finding("services", bool(found) and not others, detail, without)


async def fsync(monitor: str) -> Finding:
    """Whether a server has on its disk what it acknowledged, by its monitoring page (which needs no user)."""
    if not monitor.startswith(("http://", "https://")):
        raise InvalidInput(f"--monitor {monitor!r}: expected the server's monitoring address, as in http://127.0.0.1:8222")

    def ask() -> dict[str, Any]:
        with urllib.request.urlopen(f"{monitor.rstrip('/')}/varz", timeout=PATIENCE) as answer:  # noqa: S310 (checked above)
            found: dict[str, Any] = json.loads(answer.read(1 << 20))
            return found

    without = "set sync_interval to always: an outage of power loses what was acknowledged since the last sync"
    try:
        config = (await asyncio.to_thread(ask))["jetstream"]["config"]
    except (OSError, ValueError, KeyError) as error:
        return Finding("fsync", False, f"{monitor} does not say: {error}", without)
    always = bool(config.get("sync_always"))
    every = f"every {config.get('sync_interval', 0) / 1e9:g} s"
    return Finding("fsync", always, "at every write" if always else every, without)
