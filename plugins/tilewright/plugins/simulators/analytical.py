"""The ``analytical`` simulator: the one exact cost model, as a plugin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tilewright import loopnest as ln
from tilewright.protocol.architecture import Architecture, Constraints
from tilewright.protocol.cost import Cost, Schedule, Violation
from tilewright.protocol.errors import InvalidInput, InvalidMapping
from tilewright.protocol.mapping import Mapping
from tilewright.protocol.plugin import Context, Options, SimRequest, SimResult
from tilewright.protocol.workload import Operator

#: Energies may differ by the order of additions only.
TOLERANCE = 1e-9
SEMANTICS: tuple[ln.Semantics, ...] = ("timeloop", "walk")


class Analytical:
    """The analytical model of `tilewright.loopnest`, with the reference tool's semantics unless a walk is asked for.

    Besides `run`, hosts of searches reach the cost model through these methods (they never import it):

    * `evaluate` scores a batch that a plugin passed to ``ctx.evaluate``;
    * `cost` scores one mapping again, before it becomes a schedule;
    * `violations` says what rejected the mappings of an evaluation, for `Infeasible`;
    * `check` says what is wrong with some mappings, in words;
    * `explain` takes one figure of a mapping's cost down to its formula and coefficients.
    """

    options: ClassVar[dict[str, str]] = {
        "semantics": "timeloop or walk (what a true walk moves; ragged loops need it); default: that of each schedule's own cost",
        "release": "2025 or 2022: the release of Timeloop whose traffic rules are followed",
        "outputs": "timeloop, zigzag or accelforge: how accesses of the result count",
        "latency": "overlapped, roofline (AccelForge) or first-load (ZigZag): how cycles combine",
        "array": "none, systolic or systolic-prefetch: fill and drain of a weight-stationary array (SCALE-Sim)",
        "peer_transfers": "true: words that a neighbour just received come from it (Timeloop's default mode)",
    }

    def run(self, request: SimRequest, ctx: Context) -> SimResult:
        """Cost every schedule from its mapping.

        Raises `InvalidInput` naming schedule and figure when a mapping is invalid on the architecture, or when a
        schedule's own cost, made by this very model, says something else than its mapping does.
        """
        costs = []
        for index, schedule in enumerate(request.schedules):
            name = f"schedule {index}" + (f" on core {schedule.core}" if schedule.core else "")
            problem = _problem(schedule, request.architecture, request.options)
            try:
                cost = ln.cost(problem, schedule.mapping)
            except InvalidMapping as error:
                raise InvalidMapping(f"{name}: {error}" if len(request.schedules) > 1 else str(error)) from None
            _agree(name, schedule, cost)
            costs.append(cost)
        models = sorted({cost.model for cost in costs}) or [f"timeloop/{ln.VERSION}"]
        return SimResult(tuple(costs), " ".join(models), tuple(_attribution(cost) for cost in costs))

    def evaluate(self, batch: ln.Batch) -> ln.Evaluation:
        """Score a batch: ``valid``, ``cycles``, ``energy_pj``, ``edp`` and details, one entry per mapping."""
        return ln.evaluate(batch)

    def cost(
        self,
        operator: Operator,
        architecture: Architecture,
        mapping: Mapping,
        constraints: Constraints | None = None,
        semantics: ln.Semantics = "timeloop",
    ) -> Cost:
        """The cost of one mapping, as rows; `InvalidMapping` names what is exceeded, where and by how much."""
        return ln.cost(ln.Problem(operator, architecture, constraints, semantics), mapping)

    def violations(self, evaluation: ln.Evaluation) -> tuple[Violation, ...]:
        """Which checks rejected how many mappings of an evaluation, and the least excess of each."""
        return ln.violations(evaluation)

    def check(self, operator: Operator, architecture: Architecture, mappings: Sequence[Mapping]) -> tuple[str, ...]:
        """What is wrong with each mapping, with the excess; empty strings for valid ones."""
        problem = ln.Problem(operator, architecture)
        return tuple(ln.reasons(ln.check(ln.Batch.from_mappings(problem, mappings))))

    def explain(
        self, schedule: Schedule, architecture: Architecture, figure: str = "energy", options: Options | None = None
    ) -> ln.Explanation:
        """One figure of a schedule (``energy``, ``cycles``, ``edp``, ``DRAM.Inputs.reads``, ...) as a tree; print it with ``str``.

        `options` are those of `run`. Raises `InvalidInput` for an unknown figure, with those that are near.
        """
        return ln.explain(_problem(schedule, architecture, options or {}), schedule.mapping, figure)


def _problem(schedule: Schedule, architecture: Architecture, options: Options) -> ln.Problem:
    """Under the rules that the options state, else under those of the schedule's own cost."""
    own = schedule.cost.model.partition("/")[0]
    default = own if own in SEMANTICS else "walk" if schedule.mapping.is_ragged else "timeloop"
    wanted = str(options.get("semantics", default))
    if wanted not in SEMANTICS:
        raise InvalidInput(f"semantics: {wanted!r}, expected {' or '.join(SEMANTICS)}")
    rules: dict[str, object] = {name: value for name, value in options.items() if name != "semantics"}
    if not rules and own == wanted:
        rules.update(name.partition("=")[::2] for name in schedule.cost.conventions)
    semantics: ln.Semantics = "walk" if wanted == "walk" else "timeloop"
    return ln.Problem(schedule.operator, architecture, semantics=semantics, conventions=ln.Conventions.parse(rules))


def _agree(name: str, schedule: Schedule, cost: Cost) -> None:
    own = schedule.cost
    if (own.model, own.conventions) != (cost.model, cost.conventions):
        return
    for figure in ("cycles", "energy_pj"):
        said, found = getattr(own, figure), getattr(cost, figure)
        if abs(said - found) > TOLERANCE * abs(found):
            raise InvalidInput(f"{name}: its cost says {figure} = {said}, but its mapping has {found} under {cost.model}")


def _attribution(cost: Cost) -> dict[str, float]:
    """What share of the cycles each resource is busy."""
    return {row.resource: row.cycles / cost.cycles for row in cost.latency}
