"""The mapper: a mapper plugin searches, everything it finds is scored again by the one cost model, the best becomes a schedule."""

from __future__ import annotations

from tilewright.protocol.cost import Cost, Schedule
from tilewright.protocol.errors import BrokenPlugin, Cancelled, InvalidMapping
from tilewright.protocol.keys import content_key
from tilewright.protocol.mapping import Mapping
from tilewright.protocol.messages import MapJob, Mapped
from tilewright.protocol.plugin import BudgetExhausted, Candidate, Kind, MapRequest
from tilewright.services.runtime.checkpoints import Checkpoint, pack
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
    kept = Checkpoint.read(host.saved)
    before = _scored(kept, job, host) if kept is not None else None
    resume = kept if kept is not None and kept.state is not None and before is not None else None
    used, state = (resume.evaluations, resume.state) if resume is not None else (0, None)
    ctx = host.context("mappers", job.mapper, job.budget, job.seed, observe=tally.add, used=used)
    request = MapRequest(job.operator, job.architecture, job.constraints, job.objective, resume=state, options=job.options)
    best = before if resume is not None else None
    claims = Claims(resume.claims) if resume is not None else Claims()
    refused = stopped = ""
    resumable = False
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
            resumable = resumable or candidate.checkpoint is not None
            if best is not None and (candidate.checkpoint is not None or (improved and not resumable)):
                _keep(host, best[1], candidate.checkpoint, ctx.evaluations, claims)
            if best is not None and job.budget.gap is not None and claims.gap(best[0]) <= job.budget.gap:
                stopped = f"a proven gap of at most {job.budget.gap:.2%}"
                break
    except BudgetExhausted as reached:
        stopped = str(reached)
    complete = not ctx.cut
    if not complete and before is not None and (best is None or before[0] < best[0]):
        best, claims = before, Claims()
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


def _scored(kept: Checkpoint, job: MapJob, host: Host) -> tuple[float, Mapping, Cost] | None:
    """The best mapping of an earlier attempt, scored again; None when it is none for this job."""
    candidate = kept.as_candidate(Candidate)
    if candidate is None:
        return None
    try:
        cost = host.model.cost(job.operator, job.architecture, candidate.mapping, job.constraints)
    except InvalidMapping:
        return None
    return cost.objective(job.objective), candidate.mapping, cost


def _keep(host: Host, mapping: Mapping, state: bytes | None, evaluations: int, claims: Claims) -> None:
    """Have the best so far kept, with the plugin's own state where it yields one."""
    host.save(lambda: pack(Candidate(mapping), evaluations, claims.state, state))
