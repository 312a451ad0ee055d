"""Run state as it is stored: what the pipeline decides on, and what ``show`` reads."""

from __future__ import annotations

from typing import Literal

import msgspec

from .messages import Failure, Record, RunRequest
from .subjects import Stage

RunStatus = Literal["running", "done", "partial", "failed", "cancelled"]
#: Exit code of the CLI for each final status.
EXIT_CODES: dict[RunStatus, int] = {"done": 0, "partial": 3, "failed": 1, "cancelled": 4}


class StageState(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tasks of one stage as bitmaps (bit i = task i), so that ten thousand tasks fit in a few KB."""

    stage: Stage
    #: Number of tasks; -1 until it is known.
    total: int = -1
    #: Tasks whose job was published.
    sent: bytes = b""
    done: bytes = b""
    failed: bytes = b""
    cached: int = 0
    #: Task -> generation, for tasks that were sent again.
    generations: dict[int, int] = {}
    first_failure: Failure | None = None


class RunState(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of a run (KV ``tw_runs``, key = run id, changed only by compare-and-swap)."""

    run: str
    request: RunRequest
    status: RunStatus = "running"
    stages: tuple[StageState, ...] = ()
    cancelled: bool = False
    submitted: float = 0.0
    finished: float = 0.0
    failure: Failure | None = None
    #: Things a user should know.
    notes: tuple[str, ...] = ()


class TaskRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one task (KV ``tw_tasks``, key ``<run>.<task>``, first writer wins)."""

    task: str
    #: Name for people, e.g. the module of the operator's first occurrence.
    name: str
    status: Literal["done", "failed", "cancelled"]
    #: Key in the result store.
    result: str = ""
    #: sha256 of the encoded answer: what run digests are made of.
    answer: str = ""
    failure: Failure | None = None
    cached: bool = False
    complete: bool = True
    record: Record | None = None
