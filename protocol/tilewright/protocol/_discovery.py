"""Which services are running: NATS micro services (ADR-32), so that ``nats micro ls`` sees them too."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
from nats.aio.msg import Msg
from nats.micro import add_service
from nats.micro.request import Request
from nats.micro.service import EndpointStats, Service

from ._connection import Connection


class ServiceInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one running service says of itself."""

    name: str
    id: str
    version: str
    metadata: dict[str, str] = {}
    #: Free-form statistics (slots, busy, ...).
    stats: dict[str, Any] = {}


async def serve(connection: Connection, name: str, version: str, metadata: dict[str, str], stats: Callable[[], dict[str, Any]]) -> Service:
    """Answer discovery for a service, and requests for its statistics at its endpoint ``tw.<name>.status``."""

    def collect(_endpoint: EndpointStats) -> dict[str, Any]:
        return stats()

    async def status(request: Request) -> None:
        await request.respond(json.dumps(stats()).encode())

    service = await add_service(connection.client, name=name, version=version, metadata=metadata, stats_handler=collect)
    await service.add_endpoint(name="status", handler=status, subject=f"tw.{name}.status")
    return service


async def discover(connection: Connection, timeout: float) -> list[ServiceInfo]:
    """Every instance that answers within `timeout`, by name and id."""
    found: dict[str, ServiceInfo] = {}

    async def answered(message: Msg) -> None:
        try:
            answer = json.loads(message.data)
            data = [endpoint.get("data") for endpoint in answer.get("endpoints", [])]
            stats = next((each for each in data if isinstance(each, dict)), {})
            info = {**{key: answer.get(key) for key in ("name", "id", "version")}, "metadata": answer.get("metadata") or {}, "stats": stats}
            service = msgspec.convert(info, ServiceInfo)
        except (ValueError, AttributeError):
            return
        found[service.id] = service

    inbox = connection.client.new_inbox()
    subscription = await connection.subscribe(inbox, answered)
    try:
        await connection.send("$SRV.STATS", reply=inbox)
        await asyncio.sleep(timeout)
    finally:
        await connection.unsubscribe(subscription)
    return sorted(found.values(), key=lambda service: (service.name, service.id))
