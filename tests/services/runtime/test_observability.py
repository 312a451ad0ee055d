"""What a service counts, and the traces that its messages carry."""

from __future__ import annotations

import builtins
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from tilewright.protocol.bus import Bus
from tilewright.protocol.messages import RunRequest
from tilewright.protocol.run import RunState
from tilewright.services.pipeline.port import NatsPort
from tilewright.services.pipeline.reduce import PublishJob
from tilewright.services.runtime.metrics import Metrics
from tilewright.services.runtime.tracing import Tracing, trace_id
from tilewright.services.runtime.worker import Stop, Worker

from .conftest import Bench, Jobs


def samples(metrics: Metrics) -> dict[tuple[str, str], float]:
    """Name and last label of each sample -> its value."""
    status, _, body = metrics.page()
    assert status == 200
    found = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            assert sample.labels["service"] == "mapper"
            found[sample.name, list(sample.labels.values())[-1]] = sample.value
    return found


def test_what_is_counted() -> None:
    metrics = Metrics("mapper")
    metrics.ended("done", 2.0)
    metrics.ended("cached", 0.01)
    metrics.redelivered()
    metrics.improved()
    metrics.queue("TW_JOB_MAP", 3, 1)
    metrics.watch({"busy_slots": ("Jobs in work.", lambda: 2)})
    found = samples(metrics)
    assert (found["tilewright_jobs_total", "done"], found["tilewright_jobs_total", "cached"]) == (1, 1)
    assert (found["tilewright_job_seconds_count", "mapper"], found["tilewright_job_seconds_sum", "mapper"]) == (2, 2.01)
    assert found["tilewright_redeliveries_total", "mapper"] == found["tilewright_improvements_total", "mapper"] == 1
    assert (found["tilewright_queue_messages", "waiting"], found["tilewright_queue_messages", "in work"]) == (3, 1)
    assert found["tilewright_busy_slots", "mapper"] == 2


def test_without_the_package_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith(("prometheus_client", "opentelemetry")):
            raise ImportError(name)
        return original(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    metrics = Metrics("mapper")
    metrics.ended("done", 1.0)
    metrics.redelivered()
    metrics.improved()
    metrics.queue("TW_JOB_MAP", 1, 1)
    metrics.watch({"slots": ("Slots.", lambda: 1)})
    status, _, body = metrics.page()
    assert (status, b"tilewright[observability]" in body) == (404, True)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    with Tracing.from_environment("mapper").span("x", "run", "map-0") as headers:
        assert headers == {}


@pytest.fixture
def spans() -> Iterator[tuple[Tracing, InMemorySpanExporter]]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = Tracing(provider)
    yield tracing, exporter
    tracing.close()


def parent(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


def own(span: ReadableSpan) -> int:
    return span.get_span_context().span_id


def test_one_trace_per_run_whoever_adds_to_it(spans: tuple[Tracing, InMemorySpanExporter]) -> None:
    tracing, exporter = spans
    with tracing.span("publish map", "run1", "map-0") as headers:
        pass
    with tracing.span("process map", "run1", "map-0", headers, delivery=2):
        pass
    with tracing.span("process map", "run1", "map-1", {}):
        pass
    with tracing.span("process map", "run2", "map-0", headers):  # headers of another run: whoever sent them is not believed
        pass
    first, second, third, other = exporter.get_finished_spans()
    assert {span.get_span_context().trace_id for span in (first, second, third)} == {trace_id("run1")}
    assert other.get_span_context().trace_id == trace_id("run2") != trace_id("run1")
    assert parent(second) == own(first)
    assert parent(first) == parent(third) != own(first)
    assert second.attributes is not None
    assert (second.attributes["tilewright.task"], second.attributes["tilewright.delivery"]) == ("map-0", 2)
    with pytest.raises(ValueError, match="it failed"), tracing.span("x", "run1", ""):
        raise ValueError("it failed")
    assert exporter.get_finished_spans()[-1].events[0].name == "exception"


def test_nothing_is_traced_unless_the_environment_says_where_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    with Tracing.from_environment("mapper").span("x", "run", "map-0") as headers:
        assert headers == {}


async def test_headers_travel_over_the_bus(
    bench: Bench, bus: Bus, jobs: Jobs, settings: Any, spans: tuple[Tracing, InMemorySpanExporter]
) -> None:
    """The job carries the span of whoever published it; the outcome that of the worker."""
    tracing, exporter = spans
    metrics, stop = Metrics("mapper"), Stop()
    with tracing.span("publish map", "run", "map-0") as headers:
        pass
    worker = Worker(bus, "map", settings, "mapper-x", stop, metrics, tracing)
    bench.adopt(worker, stop)
    await bench.publish(jobs.job(), headers=headers)
    _, outcome = await bench.outcome()
    assert outcome.status == "done"
    await bench.close()
    published, processed = exporter.get_finished_spans()
    assert (processed.name, parent(processed)) == ("process map", own(published))
    assert bench.last_headers["traceparent"].split("-")[2] == f"{own(processed):016x}"
    found = samples(metrics)
    assert found["tilewright_jobs_total", "done"] == found["tilewright_improvements_total", "mapper"] == 1


async def test_the_pipeline_publishes_with_a_span(bus: Bus, spans: tuple[Tracing, InMemorySpanExporter]) -> None:
    tracing, exporter = spans
    port = await NatsPort.open(bus, tracing)
    await port.send(RunState("run", RunRequest("toy-net", "toy")), [PublishJob("profile", 0, 0)])
    delivery = await (await bus.queue("TW_JOB_PROFILE")).fetch()
    assert delivery is not None
    (span,) = exporter.get_finished_spans()
    assert delivery.headers["traceparent"].split("-")[1:3] == [f"{trace_id('run'):032x}", f"{own(span):016x}"]


def test_the_dashboard_shows_what_is_counted() -> None:
    """Every metric that a panel names is one of a worker or of the pipeline, and every one of them is shown."""
    metrics = Metrics("mapper")
    metrics.ended("done", 1.0)
    metrics.queue("TW_RUN", 0, 0)
    metrics.watch({name: ("", lambda: 0) for name in ("slots", "busy_slots", "reconnects")})
    offered = {name for name, _ in samples(metrics)} - {"tilewright_job_seconds_count", "tilewright_job_seconds_sum"}
    offered = {name for name in offered if not name.endswith("_created")}
    dashboard = json.loads((Path(__file__).parents[3] / "deploy" / "grafana" / "tilewright.json").read_text())
    shown = {name for panel in dashboard["panels"] for target in panel["targets"] for name in re.findall(r"tilewright_\w+", target["expr"])}
    assert shown == offered
