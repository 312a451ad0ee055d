"""The mapper: a mapper plugin searches, everything it finds is scored again by the one cost model, the best becomes a schedule."""

from __future__ import annotations

from tilewright.protocol.cost import Cost, Schedule
from tilewright.protocol.errors import BrokenPlugin, Cancelled, InvalidMapping
from tilewright.protocol.keys import content_key
from tilewright.protocol.mapping import Mapping
from tilewright.protocol.messages import MapJob, Mapped
from tilewright.protocol.plugin import BudgetExhausted, Kind, MapRequest
from tilewright.services.runtime.claims import Claims
from tilewright.services.runtime.host import Host, check_options

from .infeasible import Tally

__all__ = ["perform", "plugins"]


def plugins(job: MapJob, host: Host) -> tuple[tuple[Kind, str], ...]:
    """The mapper, and the cost model that scores what it finds."""
    return (("mappers", job.mapper), ("simulators", "analytical"))


def perform(job: MapJob, host: Host) -> Mapped:
    """Search for the best mapping of one operator.

    Raises `InvalidInput` for an unknown option, and `BrokenPlugin` when nothing that the mapper found is a valid mapping.
    """
    mapper = host.plugin("mappers", job.mapper)
    check_options("mappers", job.mapper, mapper.options, job.options)
    tally = Tally(host.model)
    ctx = host.context("mappers", job.mapper, job.budget, job.seed, observe=tally.add)
    request = MapRequest(job.operator, job.architecture, job.constraints, job.objective, options=job.options)
    best: tuple[float, Mapping, Cost] | None = None
    claims = Claims()
    refused = stopped = ""
    try:
        for candidate in mapper.search(request, ctx):
            try:
                cost = host.model.cost(job.operator, job.architecture, candidate.mapping, job.constraints)
            except InvalidMapping as error:
                refused = str(error)
                continue
            value = cost.objective(job.objective)
            improved = best is None or value < best[0]
            claims.add(candidate.claim, best=improved)
            if improved:
                best = (value, candidate.mapping, cost)
                host.partial(f"best {job.objective}", **{job.objective: value, "evaluations": float(ctx.evaluations)})
            if best is not None and job.budget.gap is not None and claims.gap(best[0]) <= job.budget.gap:
                stopped = f"a proven gap of at most {job.budget.gap:.2%}"
                break
    except BudgetExhausted as reached:
        stopped = str(reached)
    complete = not ctx.cut
    if not complete and not stopped:
        stopped = "stopped by the time limit or a cancellation"
    if best is not None:
        value, mapping, cost = best
        schedule = Schedule(
            operator=job.operator,
            mapping=mapping,
            cost=cost,
            claim=claims.of(value),
            objective=job.objective,
            architecture=content_key(job.architecture),
        )
        return Mapped(schedule=schedule, evaluations=ctx.evaluations, complete=complete, stopped=stopped)
    if host.cancelled:
        raise Cancelled("stopped before anything was found")
    if refused:
        raise BrokenPlugin(f"mapper {job.mapper!r} found only mappings that the cost model rejects: {refused}")
    return Mapped(infeasible=tally.infeasible(job.operator), evaluations=ctx.evaluations, complete=complete, stopped=stopped)
