"""Names on the bus: streams, subjects, buckets. Nothing else invents one."""

from __future__ import annotations

from typing import Literal

import msgspec

VERSION = "v1"
PREFIX = f"tw.{VERSION}"

Stage = Literal["profile", "map", "codesign", "kernel", "simulate"]
STAGES: tuple[Stage, ...] = ("profile", "map", "codesign", "kernel", "simulate")

#: Stage -> the service that does it.
SERVICES: dict[Stage, str] = {
    "profile": "profiler",
    "map": "mapper",
    "codesign": "codesigner",
    "kernel": "kernelgen",
    "simulate": "simulator",
}
PIPELINE = "pipeline"

RUN_STREAM = "TW_RUN"
DONE_STREAM = "TW_DONE"
EVENT_STREAM = "TW_EVT"
DEAD_STREAM = "TW_DEAD"
BLOB_STREAM = "TW_BLOB"

RUNS_BUCKET = "tw_runs"
TASKS_BUCKET = "tw_tasks"
RESULTS_BUCKET = "tw_results"
ATTEMPTS_BUCKET = "tw_attempts"
CHECKPOINTS_BUCKET = "tw_checkpoints"

SUBMIT = f"{PREFIX}.run.submit"
CANCEL = f"{PREFIX}.run.cancel"
EventKind = Literal["accepted", "queued", "started", "progress", "partial", "retry", "result", "error", "cancelled", "state", "log"]


def job_stream(stage: Stage) -> str:
    """The work queue of a stage, e.g. ``TW_JOB_PROFILE``."""
    return f"TW_JOB_{stage.upper()}"


def job_subject(stage: Stage, run: str = "*", task: str = "*") -> str:
    """Where the job of a task is published: whether a job is still queued or in work can be asked of the stream by subject.

    Without a task, or a run, it is the filter for all of them: what a stage's stream takes.
    """
    return f"{PREFIX}.job.{stage}.{run}.{task}"


def done_subject(run: str, stage: str) -> str:
    """Where the outcomes of a run's tasks of one stage are published: a server lets each service publish its own stage's only."""
    return f"{PREFIX}.done.{run}.{stage}"


def outcomes_of(run: str) -> str:
    """All outcomes of a run."""
    return f"{PREFIX}.done.{run}.*"


def event_subject(run: str, stage: str, task: str, kind: EventKind) -> str:
    """Where one event is published; `stage` and `task` are ``run`` and ``-`` for events of the run itself."""
    return f"{PREFIX}.evt.{run}.{stage}.{task}.{kind}"


def events_of(run: str) -> str:
    """All events of a run."""
    return f"{PREFIX}.evt.{run}.>"


def cancel_subject(run: str) -> str:
    """Core subject that hurries a cancellation; the flag in the run state is what counts."""
    return f"{PREFIX}.ctl.cancel.{run}"


def dead_subject(stage: str) -> str:
    """Where given-up jobs are kept with their reason."""
    return f"{PREFIX}.dead.{stage}"


def blob_subject(key: str, part: int) -> str:
    """Where one chunk of a blob is kept."""
    return f"{PREFIX}.blob.{key}.{part}"


def blob_parts(key: str) -> str:
    """All chunks of a blob."""
    return f"{PREFIX}.blob.{key}.*"


def durable(stream: str) -> str:
    """The one durable consumer of a work queue."""
    return f"{stream.lower()}_workers"


#: Number of the layout of streams and buckets, kept in their metadata; raised when older code could not work with it.
SCHEMA = 2
SCHEMA_KEY = "tilewright.schema"
#: Deliveries after which a job is no longer offered: a backstop far above what retries and hand-backs need.
MAX_DELIVERIES = 20


class Limits(msgspec.Struct, frozen=True):
    """Sizes and ages that bootstrap gives the streams (seconds, bytes)."""

    job_messages: int = 20_000
    duplicate_window: float = 600.0
    event_age: float = 7 * 86400.0
    result_age: float = 30 * 86400.0
    blob_age: float = 37 * 86400.0
    run_age: float = 30 * 86400.0
    checkpoint_age: float = 7 * 86400.0
    result_bytes: int = 1 << 30
    checkpoint_bytes: int = 1 << 26
    blob_bytes: int = 1 << 31
    event_bytes: int = 1 << 28
    #: Of one work queue.
    queue_bytes: int = 1 << 26
