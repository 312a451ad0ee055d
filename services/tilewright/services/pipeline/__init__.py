"""The orchestrator: a pure reducer over run state, and the shell around it that any number of replicas may run.

``plan`` says what a run consists of, ``reduce`` what happens next, ``step`` brings one event into a run, ``port`` does it
on NATS and ``shell`` keeps doing it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from tilewright.services.runtime.settings import Settings

__all__ = ["serve"]


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run one replica until `stop` is set; `NoConnection` when the server cannot be reached at first, or refuses us later."""
    from tilewright.protocol.bus import Bus
    from tilewright.protocol.keys import worker_id
    from tilewright.protocol.subjects import PIPELINE
    from tilewright.services.runtime import health
    from tilewright.services.runtime.metrics import Metrics
    from tilewright.services.runtime.tracing import Tracing

    from .port import NatsPort
    from .shell import Replica

    name = worker_id(PIPELINE)
    async with await Bus.connect(settings.bus(name, PIPELINE)) as bus:
        metrics, tracing = Metrics(PIPELINE), Tracing.from_environment(PIPELINE)
        replica = Replica(bus, await NatsPort.open(bus, tracing), settings.reconcile_every, metrics, tracing)
        metrics.watch(
            {
                "handled": ("Submissions, cancellations and outcomes taken in.", lambda: replica.handled),
                "reconnects": ("Times the connection to NATS was lost and came back.", lambda: bus.reconnects),
            }
        )
        await bus.serve_info(PIPELINE, {"worker": name}, lambda: {"handled": replica.handled})
        async with health.serving(settings.health_address, health.pages(lambda: bus.connected and replica.ready, metrics.page)):
            await replica.run(stop)
        tracing.close()
