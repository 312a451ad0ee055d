"""What a service counts, for Prometheus (``/metrics``): with the extra ``observability``, else nothing is counted.

Labels are stages, states and results, never runs: a label that grows with the work would fill the server that keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .health import TEXT

#: Upper bounds of the histogram of job times, in seconds.
SECONDS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600)
MISSING = b"metrics need another package: pip install 'tilewright[observability]'\n"


class Metrics:
    """The counters of one service process."""

    def __init__(self, service: str) -> None:
        self._registry: Any = None
        try:
            import prometheus_client as prometheus
        except ImportError:
            return
        self._registry = prometheus.CollectorRegistry()
        self._labels = {"service": service}

        def make(kind: Any, name: str, text: str, *labels: str, **settings: Any) -> Any:
            made = kind(f"tilewright_{name}", text, ("service", *labels), registry=self._registry, **settings)
            return made if labels else made.labels(service)

        self._jobs = make(prometheus.Counter, "jobs", "Jobs by how they ended; cached: somebody had the answer.", "status")
        self._seconds = make(prometheus.Histogram, "job_seconds", "Wall clock of a job in work, in seconds.", buckets=SECONDS)
        self._redeliveries = make(prometheus.Counter, "redeliveries", "Jobs that somebody had before.")
        self._improvements = make(prometheus.Counter, "improvements", "Better answers that searches found.")
        self._queue = make(prometheus.Gauge, "queue_messages", "Messages of a work queue.", "queue", "state")
        self._gauge: Callable[[str, str], Any] = lambda name, text: make(prometheus.Gauge, name, text)
        self._page = prometheus.generate_latest
        self._type = prometheus.CONTENT_TYPE_LATEST

    def watch(self, gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        """Gauges that are read when somebody asks: name -> what it is, and how to read it."""
        if self._registry is not None:
            for name, (text, read) in gauges.items():
                self._gauge(name, text).set_function(read)

    def ended(self, status: str, seconds: float) -> None:
        """A job has ended."""
        if self._registry is not None:
            self._jobs.labels(*self._labels.values(), status).inc()
            self._seconds.observe(seconds)

    def redelivered(self) -> None:
        """A job came that somebody had before."""
        if self._registry is not None:
            self._redeliveries.inc()

    def improved(self) -> None:
        """A search found something better."""
        if self._registry is not None:
            self._improvements.inc()

    def queue(self, name: str, waiting: int, in_work: int) -> None:
        """How much a queue holds."""
        if self._registry is not None:
            for state, count in (("waiting", waiting), ("in work", in_work)):
                self._queue.labels(*self._labels.values(), name, state).set(count)

    def page(self) -> tuple[int, str, bytes]:
        """The answer to ``/metrics``."""
        if self._registry is None:
            return 404, TEXT, MISSING
        return 200, self._type, self._page(self._registry)
