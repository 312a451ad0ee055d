"""What is said on the bus. An envelope carries one message of a known kind; its payload is one struct of this module."""

from __future__ import annotations

import time
from typing import Any, Literal

import msgspec

from .architecture import Architecture, Constraints, DesignSpace
from .codec import MAX_MESSAGE, decode, encode, typed
from .cost import Cost, Infeasible, Objective, Schedule
from .design import Design, FrontPoint, ScheduledTask
from .errors import InvalidMessage
from .kernel import Kernel
from .plugin import Budget, Options
from .profile import Analysis, Point
from .subjects import STAGES, Stage
from .workload import Operator, Workload


class RunRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a user asked for: everything a run depends on."""

    #: Name in the frontend, or the frontend's source.
    model: str
    target: str
    frontend: str = "zoo"
    frontend_options: Options = {}
    #: Values of the target's design-space parameters.
    target_parameters: dict[str, int] = {}
    #: Stages whose answers are wanted; what they need is run too (`run.closure`).
    stages: tuple[Stage, ...] = STAGES
    objective: Objective = "edp"
    mapper: str = "portfolio"
    mapper_options: Options = {}
    map_budget: Budget = Budget(evaluations=20000)
    codesigner: str = "pareto"
    codesigner_options: Options = {}
    codesign_budget: Budget = Budget(evaluations=20000)
    limits: dict[str, float] = {}
    emitter: str = ""
    emitter_options: Options = {}
    simulator: str = "analytical"
    simulator_options: Options = {}
    seed: int = 0
    #: False: compute everything again (results are still recorded).
    use_cache: bool = True
    #: A workload given by the client itself instead of a frontend (already exported).
    workload: Workload | None = None
    #: An architecture given by the client itself instead of a target plugin.
    architecture: Architecture | None = None
    #: What else the profile should say.
    analysis: Analysis | None = None


class ProfileJob(msgspec.Struct, frozen=True, omit_defaults=True):
    """Load a model and look at it on a target."""

    model: str
    frontend: str
    target: str
    options: Options = {}
    target_parameters: dict[str, int] = {}
    workload: Workload | None = None
    architecture: Architecture | None = None
    analysis: Analysis | None = None


class MapJob(msgspec.Struct, frozen=True, omit_defaults=True):
    """Map one distinct operator."""

    operator: Operator
    architecture: Architecture
    constraints: Constraints
    objective: Objective
    mapper: str
    budget: Budget
    seed: int = 0
    options: Options = {}


class CodesignJob(msgspec.Struct, frozen=True, omit_defaults=True):
    """Search hardware for a workload."""

    workload: Workload
    target: str
    target_parameters: dict[str, int]
    objective: Objective
    codesigner: str
    budget: Budget
    limits: dict[str, float] = {}
    start: tuple[ScheduledTask, ...] = ()
    seed: int = 0
    options: Options = {}


class KernelJob(msgspec.Struct, frozen=True, omit_defaults=True):
    """Generate the kernel of one distinct operator."""

    operator: Operator
    target: str
    #: Empty: the emitter that covers the target, else the host's.
    emitter: str = ""
    schedule: Schedule | None = None
    options: Options = {}


class SimulateJob(msgspec.Struct, frozen=True, omit_defaults=True):
    """Cost the schedules of one design again, from the wire bytes."""

    tasks: tuple[ScheduledTask, ...]
    architecture: Architecture
    simulator: str
    options: Options = {}


class OperatorProfile(msgspec.Struct, frozen=True, omit_defaults=True):
    """One distinct operator on a target's roofline."""

    name: str
    #: ``conv2d``-like operators say ``contraction``; others their function.
    function: str
    count: int
    macs: int
    flops: int
    read_bytes: int
    write_bytes: int
    #: FLOPs per byte.
    arithmetic_intensity: float
    #: Cycles of one occurrence at the roofline.
    cycles: float
    #: ``compute`` or the name of the memory that binds.
    bound_by: str


class Profile(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer of the profiler: the workload, the target as resolved, and where the time goes."""

    workload: Workload
    architecture: Architecture
    constraints: Constraints
    design_space: DesignSpace
    operators: tuple[OperatorProfile, ...]
    #: What the job's `analysis` asked for, one per setting.
    points: tuple[Point, ...] = ()


class Mapped(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer of the mapper: a schedule, or why there is none."""

    schedule: Schedule | None = None
    infeasible: Infeasible | None = None
    evaluations: int = 0
    #: False: a time limit or a cancellation cut the search.
    complete: bool = True
    #: What of the budget ended the search; empty when it ended by itself.
    stopped: str = ""


class Codesigned(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer of the co-designer: the winner and the baseline it was compared with."""

    design: Design
    baseline: Design
    evaluations: int = 0
    complete: bool = True
    #: Designs on the fronts EDP-area or energy-latency of all that was found, by energy.
    front: tuple[FrontPoint, ...] = ()


class Simulated(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer of the simulator: a cost per task beside the predicted one."""

    costs: tuple[Cost, ...]
    model: str
    #: True when the simulator's model is the one that predicted: nothing independent was learnt.
    same_model: bool = True
    attribution: tuple[dict[str, float], ...] = ()
    #: Why each cost differs from the predicted one, where the simulator says it.
    reasons: tuple[str, ...] = ()


Job = ProfileJob | MapJob | CodesignJob | KernelJob | SimulateJob
Answer = Profile | Mapped | Codesigned | Kernel | Simulated

JOBS: dict[Stage, type] = {"profile": ProfileJob, "map": MapJob, "codesign": CodesignJob, "kernel": KernelJob, "simulate": SimulateJob}
ANSWERS: dict[Stage, type] = {"profile": Profile, "map": Mapped, "codesign": Codesigned, "kernel": Kernel, "simulate": Simulated}


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a task failed, for people and for exit codes."""

    #: ``bad input`` (exit 2), ``broken plugin``, ``crash``, ``limit``, ``exception``, ``infeasible``.
    reason: str
    message: str
    exit_code: int = 1


class Submit(msgspec.Struct, frozen=True, omit_defaults=True):
    """CLI -> pipeline: start a run."""

    request: RunRequest
    #: Blob key of the encoded request, when it carries a workload or an architecture; `request` is then without them.
    blob: str = ""


class Cancel(msgspec.Struct, frozen=True, omit_defaults=True):
    """CLI -> pipeline: stop the run that the envelope names, and keep what it has found."""


class StartJob(msgspec.Struct, frozen=True, omit_defaults=True):
    """Pipeline -> service: do one task. Large jobs travel as a blob."""

    stage: Stage
    job: Any = None
    #: Blob key of the encoded job, when it is not inline.
    blob: str = ""
    use_cache: bool = True


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """Service -> pipeline: how a task ended. Exactly one of `result` and `failure` is set, unless it was cancelled."""

    stage: Stage
    status: Literal["done", "failed", "cancelled"]
    #: Key in the result store.
    result: str = ""
    #: sha256 of the encoded answer.
    answer: str = ""
    failure: Failure | None = None
    #: The answer was in the store already.
    cached: bool = False
    #: The answer was cut by a time limit, so it stays with this run.
    complete: bool = True
    record: Record | None = None


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who did it, and how: never hashed, never compared."""

    worker: str
    started: float
    seconds: float
    cpu_seconds: float = 0.0
    attempts: int = 1
    plugin: str = ""


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something for people to see; losing one changes no result."""

    text: str = ""
    figures: dict[str, float] = {}
    failure: Failure | None = None
    cached: bool = False
    worker: str = ""


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message that nobody can use, or a job that was given up; the envelope names its run and task where they are known."""

    reason: str
    #: Where it was published.
    subject: str
    #: Its bytes.
    message: bytes
    #: True: only the beginning was kept.
    truncated: bool = False


#: Kind on the wire -> (payload, version).
MESSAGES: dict[str, tuple[type, int]] = {
    "run.submit": (Submit, 1),
    "run.cancel": (Cancel, 1),
    "job.start": (StartJob, 1),
    "task.outcome": (Outcome, 1),
    "event": (Event, 1),
    "dead": (DeadLetter, 1),
}
_KINDS = {payload: kind for kind, (payload, _) in MESSAGES.items()}


class Envelope(msgspec.Struct, frozen=True, omit_defaults=True):
    """Around every message."""

    #: Key of `MESSAGES`.
    kind: str
    #: Version of that kind's payload.
    schema: int
    #: Run id.
    run: str
    payload: Any
    #: ``<stage>-<index>``; empty for messages about the run.
    task: str = ""
    #: Raised only by the reducer, when it sends a task again.
    generation: int = 0
    #: Wall clock when sent, informational.
    sent: float = 0.0
    #: Wall clock after which the work is pointless; 0: never.
    deadline: float = 0.0


class UnknownMessage(InvalidMessage):
    """A kind or schema that this version does not know (a newer sender, perhaps)."""


def pack(payload: msgspec.Struct, run: str, *, task: str = "", generation: int = 0, deadline: float = 0.0) -> bytes:
    """Wrap and encode a message; `InvalidMessage` when it is larger than any reader accepts (`codec.MAX_MESSAGE`)."""
    kind = _KINDS[type(payload)]
    data = encode(Envelope(kind, MESSAGES[kind][1], run, payload, task, generation, time.time(), deadline))
    if len(data) > MAX_MESSAGE:
        raise InvalidMessage(f"{kind} of {len(data)} bytes, expected at most {MAX_MESSAGE}: its large parts travel as blobs")
    return data


def unpack(data: bytes) -> tuple[Envelope, Any]:
    """Decode a message to its envelope and typed payload.

    Raises `InvalidMessage`, or its subclass `UnknownMessage` for a kind or schema that this version does not know.
    """
    envelope = decode(data, Envelope)
    payload, version = MESSAGES.get(envelope.kind, (None, 0))
    if payload is None or envelope.schema > version:
        known = ", ".join(f"{kind}/{schema}" for kind, (_, schema) in MESSAGES.items())
        raise UnknownMessage(f"message kind {envelope.kind}/{envelope.schema} is unknown, expected one of {known}")
    return envelope, typed(envelope.payload, payload)
