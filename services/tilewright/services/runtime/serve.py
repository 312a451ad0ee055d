"""Being one service: connect, serve until a signal comes, leave without losing anything.

``python -m tilewright.services.runtime.serve NAME`` (or ``tilewright serve NAME``). The first SIGTERM or SIGINT stops
fetching, lets running jobs go on for the grace period of the settings, and hands the rest back at once; the second ends
the process on the spot, and the server gives its jobs to others after ack_wait.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys

from tilewright.protocol import registry
from tilewright.protocol.bus import Bus
from tilewright.protocol.errors import InvalidInput, TilewrightError, suggest
from tilewright.protocol.keys import worker_id
from tilewright.protocol.messages import MESSAGES
from tilewright.protocol.plugin import Kind
from tilewright.protocol.subjects import PIPELINE, SERVICES, Stage

from . import health, logs
from . import settings as runtime_settings
from .metrics import Metrics
from .settings import Settings
from .tracing import Tracing
from .worker import Stop, Worker

#: Service -> the kinds of plugins it calls.
CALLS: dict[str, tuple[Kind, ...]] = {
    "profiler": ("frontends", "targets"),
    "mapper": ("mappers",),
    "codesigner": ("codesigners", "targets"),
    "kernelgen": ("emitters",),
    "simulator": ("simulators",),
    PIPELINE: (),
}
_STAGES: dict[str, Stage] = {service: stage for stage, service in SERVICES.items()}


async def serve(service: str, settings: Settings) -> None:
    """Be a service until a signal comes. Raises `InvalidInput` for an unknown one and `NoConnection` when there is no server."""
    if service not in CALLS:
        raise InvalidInput(f"service {service!r} is unknown{suggest(service, CALLS)}")
    stop = Stop()
    _obey_signals(stop, settings.grace)
    if service == PIPELINE:
        await importlib.import_module("tilewright.services.pipeline").serve(settings, stop.asked)
        return
    name = worker_id(service)
    async with await Bus.connect(settings.bus(name, service)) as bus:
        metrics, tracing = Metrics(service), Tracing.from_environment(service)
        worker = Worker(bus, _STAGES[service], settings, name, stop, metrics, tracing)
        metrics.watch(
            {
                "slots": ("Jobs that may be in work at once.", lambda: settings.slots),
                "busy_slots": ("Jobs in work.", lambda: worker.stats()["busy"]),
                "reconnects": ("Times the connection to NATS was lost and came back.", lambda: bus.reconnects),
            }
        )
        await bus.serve_info(service, describe(service, settings, name), worker.stats)
        async with health.serving(settings.health_address, health.pages(lambda: bus.connected and worker.ready, metrics.page)):
            await worker.run()
        tracing.close()


def describe(service: str, settings: Settings, name: str) -> dict[str, str]:
    """What a service says of itself on discovery; no plugin is imported for it."""
    schemas = ", ".join(f"{kind}/{version}" for kind, (_, version) in MESSAGES.items())
    offered: dict[str, str] = {kind: ", ".join(ref.name for ref in registry.plugins(kind)) for kind in CALLS[service]}
    return {"worker": name, "slots": str(settings.slots), "schemas": schemas, **offered}


def _obey_signals(stop: Stop, grace: float) -> None:
    loop = asyncio.get_running_loop()

    def signalled() -> None:
        if stop.asked.is_set():
            # The kernel kills what the slots run: see `lifeline`.
            os._exit(0)
        stop.asked.set()
        loop.call_later(grace, stop.over.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)


def main() -> int:
    """Serve what the command line names; the exit code is 0 after a signal, else that of the error."""
    try:
        settings = runtime_settings.load()
        logs.configure(settings.log_format)
        asyncio.run(serve(sys.argv[1] if len(sys.argv) > 1 else "", settings))
    except TilewrightError as error:
        print(f"tilewright serve: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
