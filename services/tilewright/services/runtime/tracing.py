"""One trace per run, over NATS headers, by OpenTelemetry: with the extra ``observability`` and an exporter named in the environment.

A run's trace id follows from its id, so whoever works for it, and however often processes die, adds to one trace. A job carries
the span of whoever published it in the W3C header ``traceparent``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

#: Variables of OpenTelemetry; without one nothing is traced.
SWITCHES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def trace_id(run: str) -> int:
    """The id of a run's trace: 16 bytes of the hash of its id, never 0."""
    return int.from_bytes(hashlib.sha256(run.encode()).digest()[:16], "big") or 1


class Tracing:
    """Makes spans of a service; without a provider it makes none."""

    def __init__(self, provider: Any = None) -> None:
        self._tracer = provider.get_tracer("tilewright") if provider is not None else None
        self._provider = provider

    @classmethod
    def from_environment(cls, service: str) -> Tracing:
        """Export by OTLP where the environment says so and the packages are there; else trace nothing."""
        if not any(os.environ.get(name) for name in SWITCHES):
            return cls()
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            return cls()
        provider = TracerProvider(resource=Resource.create({"service.name": f"tilewright-{service}"}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    @contextmanager
    def span(
        self, name: str, run: str, task: str, headers: Mapping[str, str] | None = None, *, delivery: int = 1
    ) -> Iterator[dict[str, str]]:
        """A span of a task of a run, below the one that `headers` name; gives the headers for what is published inside.

        An exception that leaves the context is recorded with it.
        """
        if self._tracer is None:
            yield {}
            return
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        propagator = TraceContextTextMapPropagator()
        kind = SpanKind.CONSUMER if headers is not None else SpanKind.PRODUCER
        known = {"messaging.system": "nats", "tilewright.run": run, "tilewright.task": task, "tilewright.delivery": delivery}
        with self._tracer.start_as_current_span(name, context=_parent(run, headers, propagator), kind=kind, attributes=known):
            carried: dict[str, str] = {}
            propagator.inject(carried)
            yield carried

    def close(self) -> None:
        """Export what is left."""
        if self._provider is not None:
            self._provider.shutdown()


def _parent(run: str, headers: Mapping[str, str] | None, propagator: Any) -> Any:
    """The span in the headers when it is of this run's trace; else the root that all spans of the run share."""
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, get_current_span, set_span_in_context

    if headers:
        found = propagator.extract(dict(headers))
        if get_current_span(found).get_span_context().trace_id == trace_id(run):
            return found
    root = SpanContext(trace_id(run), trace_id(run) & (1 << 64) - 1 or 1, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return set_span_in_context(NonRecordingSpan(root))
