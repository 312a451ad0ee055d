"""Run state as it is stored: what the pipeline decides on, and what ``show`` reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from .errors import InvalidMessage
from .messages import Failure, Record, RunRequest
from .subjects import STAGES, Stage

RunStatus = Literal["running", "done", "partial", "failed", "cancelled"]
#: Exit code of the CLI for each final status (a failed run has that of its failure).
EXIT_CODES: dict[RunStatus, int] = {"done": 0, "partial": 3, "failed": 1, "cancelled": 4}

#: Stage -> the stages whose answers its jobs are built from. `simulate` also waits for `codesign` where a run has both.
NEEDS: dict[Stage, tuple[Stage, ...]] = {
    "profile": (),
    "map": ("profile",),
    "codesign": ("profile", "map"),
    "kernel": ("profile", "map"),
    "simulate": ("profile", "map"),
}

_RUN = re.compile(r"[0-9A-Za-z_-]{1,64}")
_TASK = re.compile(rf"({'|'.join(STAGES)})-(0|[1-9][0-9]{{0,5}})")


def closure(stages: Iterable[Stage]) -> tuple[Stage, ...]:
    """The stages that a run for `stages` goes through, in order: ``kernel`` alone needs ``profile`` and ``map`` before it."""
    wanted = set(stages)
    for stage in reversed(STAGES):
        if stage in wanted:
            wanted.update(NEEDS[stage])
    return tuple(stage for stage in STAGES if stage in wanted)


def check_run(run: str) -> None:
    """Raise `InvalidMessage` unless `run` can be the id of a run: one token of a subject and one word of a key."""
    if not _RUN.fullmatch(run):
        raise InvalidMessage(f"run: {run!r}, expected 1 to 64 letters, digits, - and _")


def task_id(stage: Stage, index: int) -> str:
    """``<stage>-<index>``."""
    return f"{stage}-{index}"


def parse_task(task: str) -> tuple[Stage, int]:
    """Stage and index of a task id; `InvalidMessage` when it is none."""
    match = _TASK.fullmatch(task)
    if match is None:
        raise InvalidMessage(f"task: {task!r}, expected <stage>-<index> with a stage of {', '.join(STAGES)}")
    stage: Stage = msgspec.convert(match[1], Stage)
    return stage, int(match[2])


def bits(stored: bytes) -> int:
    """A stored bitmap as an integer (bit i = task i)."""
    return int.from_bytes(stored, "little")


def packed(tasks: int) -> bytes:
    """An integer bitmap as it is stored."""
    return tasks.to_bytes((tasks.bit_length() + 7) // 8, "little")


def members(tasks: int) -> Iterator[int]:
    """Indices of the bits of an integer bitmap that are set, ascending."""
    while tasks:
        low = tasks & -tasks
        yield low.bit_length() - 1
        tasks ^= low


class StageState(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tasks of one stage as bitmaps (bit i = task i), so that ten thousand tasks fit in a few KB."""

    stage: Stage
    #: Number of tasks; -1 until it is known.
    total: int = -1
    #: Tasks whose job is with a worker, or was.
    sent: bytes = b""
    #: Tasks with an answer.
    done: bytes = b""
    #: The part of `done` whose answer later stages cannot use (no valid mapping was found).
    empty: bytes = b""
    failed: bytes = b""
    #: Tasks that are left out because what they need does not exist.
    skipped: bytes = b""
    #: What the answers hold for later stages: contraction operators (profile), schedules (map), cores of the design (codesign).
    usable: int = 0
    #: Answers that were in the store already.
    cached: int = 0
    #: Raised when lost jobs are sent again; part of their message ids.
    generation: int = 0
    first_failure: Failure | None = None

    @property
    def settled(self) -> int:
        """Tasks that need nothing any more, as an integer bitmap."""
        return bits(self.done) | bits(self.failed) | bits(self.skipped)

    @property
    def outstanding(self) -> int:
        """Tasks that were sent and have no outcome yet, as an integer bitmap."""
        return bits(self.sent) & ~self.settled

    @property
    def complete(self) -> bool:
        """True when all its tasks are settled."""
        return self.total >= 0 and self.settled == (1 << self.total) - 1

    @property
    def counts(self) -> dict[str, int]:
        """Number of tasks that are ``done`` (``empty`` among them), ``failed``, ``skipped`` and ``outstanding``."""
        maps = {"done": self.done, "empty": self.empty, "failed": self.failed, "skipped": self.skipped}
        return {name: bits(each).bit_count() for name, each in maps.items()} | {"outstanding": self.outstanding.bit_count()}


class RunState(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of a run (KV ``tw_runs``, key = run id, changed only by compare-and-swap)."""

    run: str
    #: What was asked for; without workload and architecture when `blob` holds the whole of it.
    request: RunRequest
    #: Blob key of the encoded request, when it carries a workload or an architecture.
    blob: str = ""
    status: RunStatus = "running"
    #: The closure of the stages that were asked for, in order.
    stages: tuple[StageState, ...] = ()
    #: Wall clock, seconds.
    submitted: float = 0.0
    finished: float = 0.0
    #: Why the run failed, or the first thing that is missing from a partial one.
    failure: Failure | None = None
    #: Things a user should know.
    notes: tuple[str, ...] = ()

    @property
    def active(self) -> bool:
        """True until the run ends; a worker starts no job of a run that is not active."""
        return self.status == "running"

    @property
    def cancelled(self) -> bool:
        """True once somebody cancelled it: running jobs stop, queued ones are dropped."""
        return self.status == "cancelled"

    @property
    def exit_code(self) -> int | None:
        """What the CLI ends with; None while it runs."""
        if self.status == "running":
            return None
        if self.status == "failed" and self.failure is not None:
            return self.failure.exit_code
        return EXIT_CODES[self.status]

    def stage(self, name: Stage) -> StageState | None:
        """The state of one stage; None when the run does not go through it."""
        return next((stage for stage in self.stages if stage.stage == name), None)


def cancel(state: RunState, time: float) -> RunState:
    """The state once the run is cancelled; a run that has ended stays as it is."""
    return msgspec.structs.replace(state, status="cancelled", finished=time) if state.active else state


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
    #: What the answer holds for later stages, as in `StageState.usable`; 0: nothing.
    usable: int = 0
    failure: Failure | None = None
    cached: bool = False
    complete: bool = True
    record: Record | None = None
