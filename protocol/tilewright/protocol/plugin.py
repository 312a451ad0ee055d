"""The plugin interfaces: what a plugin is asked, what it answers, and the context it works in.

A plugin is a class without constructor arguments, registered under an entry-point group ``tilewright.<kind>.v1``. It is
imported on first use, inside a worker's child process, and instantiated once per job. Requests and answers are structs;
fields may be added within v1, so plugins take what they know and ignore the rest.

Any plugin may have a class attribute ``uses`` (``("kind:name", ...)``, the plugins it reaches through ``ctx.plugin``) and, when
its answers depend on more than code and request (a compiler, the CPU), a method ``environment(ctx) -> str`` that names it:
both are part of what results are cached by.

Life of a search (mappers, codesigners)::

    host: request, ctx ──► search() ──► Candidate ──► host re-scores it, drops it if no better, reports it
                             ▲  │ ctx.evaluate(batch)   (counts against the budget; raises BudgetExhausted)
                             └──┘ ... until it returns, the budget ends, or ctx.cancelled is true

A search must yield its best candidate so far before each long step: what was yielded survives a cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal, Protocol

import msgspec

from .architecture import Architecture, Constraints, DesignSpace
from .cost import Claim, Cost, Objective, Schedule
from .errors import TilewrightError
from .kernel import Kernel
from .mapping import Mapping
from .profile import Counted
from .validation import ValidationReport
from .workload import Operator, Workload

Kind = Literal["frontends", "targets", "mappers", "codesigners", "simulators", "emitters", "formats", "validations", "conventions"]
KINDS: tuple[Kind, ...] = (
    "frontends",
    "targets",
    "mappers",
    "codesigners",
    "simulators",
    "emitters",
    "formats",
    "validations",
    "conventions",
)

#: Option values: what both a command line and a message can say.
Option = bool | int | float | str
Options = dict[str, Option]


class BudgetExhausted(TilewrightError):
    """The search has used what it was given. Let it pass through: the host keeps the best candidate."""


class Budget(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a search may use. Counting budgets are reproducible; `seconds` is a safety cut that marks the result incomplete."""

    #: Mappings (or designs x operators) scored by the cost model.
    evaluations: int | None = None
    seconds: float | None = None
    #: Stop when the proven gap is at most this.
    gap: float | None = None


class MapRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Find the best mapping of one operator."""

    operator: Operator
    architecture: Architecture
    constraints: Constraints = Constraints()
    objective: Objective = "edp"
    #: Mappings to start from (they need not be valid here).
    start: tuple[Mapping, ...] = ()
    #: ``(index, of)``: search only this share of the mapspace.
    subspace: tuple[int, int] = (0, 1)
    #: Search state of an earlier attempt, as yielded in `Candidate.checkpoint`.
    resume: bytes | None = None
    options: Options = {}
    #: Rules of the cost model that differ from its default, by name.
    conventions: Options = {}


class Candidate(msgspec.Struct, frozen=True, omit_defaults=True):
    """A mapping found, with what the plugin can prove about it."""

    mapping: Mapping
    claim: Claim = Claim()
    #: The whole search state, to go on from here.
    checkpoint: bytes | None = None


class WeightedWorkload(msgspec.Struct, frozen=True):
    """A workload and how much it counts."""

    workload: Workload
    weight: float = 1.0


class DesignRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Find the best hardware for some workloads, with the mappings on it."""

    workloads: tuple[WeightedWorkload, ...]
    #: Name of the target whose design space is searched; reach it with ``ctx.plugin("targets", target)``.
    target: str
    objective: Objective = "edp"
    #: Upper limits by name, e.g. ``{"area_mm2": 4.0, "scratchpad_kib": 512}``.
    limits: dict[str, float] = {}
    #: Schedules on the target's default hardware: baseline and warm start.
    start: tuple[Schedule, ...] = ()
    resume: bytes | None = None
    options: Options = {}


class DesignCandidate(msgspec.Struct, frozen=True, omit_defaults=True):
    """A design found: parameter values and one mapping per distinct operator."""

    parameters: dict[str, int]
    #: Mappings in the order of the workloads' tasks, all workloads concatenated, contractions only.
    mappings: tuple[Mapping, ...]
    claim: Claim = Claim()
    checkpoint: bytes | None = None


class EmitRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Generate a kernel for one operator."""

    operator: Operator
    target: str
    schedule: Schedule | None = None
    options: Options = {}


class SimRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Cost some schedules on an architecture."""

    schedules: tuple[Schedule, ...]
    architecture: Architecture
    options: Options = {}


class SimResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """One cost per schedule. `model` equal to the schedules' own model means that nothing independent was learnt."""

    costs: tuple[Cost, ...]
    model: str
    #: Resource -> share of the cycles, per schedule.
    attribution: tuple[dict[str, float], ...] = ()
    #: Why a cost differs from the schedule's own, per schedule.
    reasons: tuple[str, ...] = ()


class Document(msgspec.Struct, frozen=True, omit_defaults=True):
    """What files in one format describe; parts that they do not mention are None."""

    operator: Operator | None = None
    architecture: Architecture | None = None
    constraints: Constraints | None = None
    mapping: Mapping | None = None


class Evaluation(Protocol):
    """Costs of a batch (`tilewright.loopnest.Evaluation`): arrays of length `B`."""

    valid: Any
    cycles: Any
    energy_pj: Any


class Context(Protocol):
    """What a plugin may use while it works."""

    #: ``numpy.random.Generator`` seeded from the request.
    rng: Any

    @property
    def budget(self) -> Budget:
        """Budget left; `evaluate` and `charge` count against it."""

    @property
    def cancelled(self) -> bool:
        """True once the run was cancelled, or time is up: return as soon as possible."""

    @property
    def evaluations(self) -> int:
        """Evaluations used so far."""

    def evaluate(self, batch: Any) -> Evaluation:
        """Score a `tilewright.loopnest.Batch`; its length counts against the budget.

        Raises `BudgetExhausted` before scoring more than is left (a batch is cut to what is left first).
        """

    def charge(self, evaluations: int) -> None:
        """Count evaluations made by other means; raises `BudgetExhausted` when none are left."""

    def progress(self, message: str, **figures: float) -> None:
        """Report progress to people; throttled, never part of a result."""

    def plugin(self, kind: Kind, name: str) -> Any:
        """Another plugin; it must be listed in the asking plugin's `uses`, or be the request's target."""


class Frontend(Protocol):
    """Model in, workload out."""

    #: Option name -> one-line help; unknown options are refused before `load` is called.
    options: ClassVar[dict[str, str]]

    def models(self) -> Sequence[str]:
        """Names that `load` accepts besides files; empty when it only reads files."""

    def load(self, source: str, options: Options) -> Workload:
        """Build the workload; `InvalidInput` when the source or an option is wrong."""


class Target(Protocol):
    """A hardware target."""

    def architecture(self, **parameters: int) -> Architecture:
        """The architecture with these design-space parameters, the others at their defaults."""

    def design_space(self) -> DesignSpace:
        """What may change."""

    def constraints(self) -> Constraints:
        """The mapspace it honours."""


class Mapper(Protocol):
    """A mapping optimizer."""

    options: ClassVar[dict[str, str]]

    def search(self, request: MapRequest, ctx: Context) -> Iterator[Candidate]:
        """Yield better and better mappings; see the module docstring for when."""


class Codesigner(Protocol):
    """A hardware + mapping optimizer."""

    options: ClassVar[dict[str, str]]

    def search(self, request: DesignRequest, ctx: Context) -> Iterator[DesignCandidate]:
        """Yield better and better designs."""


class Simulator(Protocol):
    """Says what schedules cost."""

    options: ClassVar[dict[str, str]]

    def run(self, request: SimRequest, ctx: Context) -> SimResult:
        """Cost each schedule; `InvalidInput` when one is invalid on the architecture."""


class Emitter(Protocol):
    """Generates kernels. One with a true attribute ``only_by_name`` is never chosen for a target unless it is named."""

    options: ClassVar[dict[str, str]]
    #: Targets it emits for.
    targets: ClassVar[tuple[str, ...]]

    def emit(self, request: EmitRequest, ctx: Context) -> Kernel:
        """Generate (and verify where possible) the kernel."""


class Format(Protocol):
    """Reads and writes descriptions in a file format."""

    def read(self, paths: Sequence[str]) -> Document:
        """Parse files into one document; `InvalidInput` names file, line, column and what was expected."""

    def write(self, document: Document) -> dict[str, str]:
        """File name -> text that describes the document."""


class Validation(Protocol):
    """Re-measures Tilewright against reference data."""

    options: ClassVar[dict[str, str]]

    def run(self, path: str | None, options: Options) -> ValidationReport:
        """Compare on a file (``.gz`` too), or on the data shipped with the suite."""


class Convention(Protocol):
    """How operations and bytes are counted."""

    options: ClassVar[dict[str, str]]
    #: True: lengths beyond those that a model has positions for are counted all the same.
    any_length: ClassVar[bool]

    def count(self, workload: Workload, options: Options) -> Sequence[Counted]:
        """Figures of every node that the convention counts, in the order of the workload; others are left out."""


#: Kind -> (interface, methods that must be callable).
INTERFACES: dict[Kind, tuple[type, tuple[str, ...]]] = {
    "frontends": (Frontend, ("models", "load")),
    "targets": (Target, ("architecture", "design_space", "constraints")),
    "mappers": (Mapper, ("search",)),
    "codesigners": (Codesigner, ("search",)),
    "simulators": (Simulator, ("run",)),
    "emitters": (Emitter, ("emit",)),
    "formats": (Format, ("read", "write")),
    "validations": (Validation, ("run",)),
    "conventions": (Convention, ("count",)),
}
