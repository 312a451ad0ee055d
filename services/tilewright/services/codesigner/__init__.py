"""The co-designer: a plugin searches hardware and mappings together, the one cost model scores what it finds again.

The winner is never worse than the baseline: the schedules found on the target as it is are the first design.
"""

from __future__ import annotations

from functools import partial

from msgspec.structs import replace

from tilewright.protocol.architecture import Architecture
from tilewright.protocol.design import Core, Design
from tilewright.protocol.errors import BrokenPlugin, Cancelled, InvalidMapping
from tilewright.protocol.keys import content_key
from tilewright.protocol.messages import Codesigned, CodesignJob
from tilewright.protocol.plugin import BudgetExhausted, DesignCandidate, DesignRequest, Kind, WeightedWorkload
from tilewright.services.runtime.checkpoints import Checkpoint, pack
from tilewright.services.runtime.claims import Claims
from tilewright.services.runtime.host import Host, Unsolvable, check_options

from .fronts import front, point
from .limits import Limits
from .scoring import CORE, Scorer

__all__ = ["perform", "plugins"]


def plugins(job: CodesignJob, host: Host) -> tuple[tuple[Kind, str], ...]:
    """The co-designer, the target whose hardware it changes, and the cost model that scores what it finds."""
    return (("codesigners", job.codesigner), ("targets", job.target), ("simulators", "analytical"))


def perform(job: CodesignJob, host: Host) -> Codesigned:
    """Search for the best hardware.

    Raises `InvalidInput` for an unknown option or limit, `BrokenPlugin` when a design is not one of this workload and
    target, and `Unsolvable` when neither the baseline nor any design found keeps the limits.
    """
    codesigner = host.plugin("codesigners", job.codesigner)
    check_options("codesigners", job.codesigner, codesigner.options, job.options)
    scorer = Scorer(job, host)
    baseline = _baseline(job, scorer)
    limits = Limits(job.limits, scorer.space, baseline.cores[0].architecture)
    best = baseline if scorer.covers(baseline) and limits.exceeded(baseline) == "" else None
    refused = "" if best is not None else f"the baseline: {limits.exceeded(baseline) or 'has no schedule for some operators'}"
    claims = Claims()
    points = [point(best)] if best is not None else []
    ctx = host.context("codesigners", job.codesigner, job.budget, job.seed, granted=(f"targets:{job.target}",))
    try:
        for candidate in codesigner.search(_request(job), ctx):
            try:
                found = scorer.design(candidate)
            except InvalidMapping as error:
                refused = f"a design of {job.codesigner}: {error}"
                continue
            if exceeded := limits.exceeded(found):
                refused = f"a design of {job.codesigner}: {exceeded}"
                continue
            points.append(point(found))
            improved = best is None or found.value() < best.value()
            claims.add(candidate.claim, best=improved)
            if improved:
                best = found
                host.save(partial(pack, candidate, ctx.evaluations, claims.state, None))
                host.partial(f"best {job.objective}", **{job.objective: best.value(), "evaluations": float(ctx.evaluations)})
    except BudgetExhausted:
        pass
    complete = not ctx.cut
    if not complete and (before := _before(host, scorer)) is not None and limits.exceeded(before) == "":
        points.append(point(before))
        if best is None or before.value() < best.value():
            best, claims = before, Claims()
    if best is None and host.cancelled:
        raise Cancelled("stopped before anything was found")
    if best is None:
        raise Unsolvable(f"no design of target {job.target!r} keeps the limits and runs every operator; {refused}")
    best = replace(best, claim=claims.of(best.value()))
    return Codesigned(design=best, baseline=baseline, evaluations=ctx.evaluations, complete=complete, front=front(points))


def _before(host: Host, scorer: Scorer) -> Design | None:
    """The best design of an earlier attempt, scored again; None when there is none for this job."""
    kept = Checkpoint.read(host.saved)
    candidate = kept.as_candidate(DesignCandidate) if kept is not None else None
    if candidate is None:
        return None
    try:
        return scorer.design(candidate)
    except (InvalidMapping, BrokenPlugin):
        return None


def _request(job: CodesignJob) -> DesignRequest:
    return DesignRequest(
        workloads=(WeightedWorkload(job.workload),),
        target=job.target,
        objective=job.objective,
        limits=job.limits,
        start=tuple(task.schedule for task in job.start),
        options=job.options,
    )


def _baseline(job: CodesignJob, scorer: Scorer) -> Design:
    """The schedules that were found on the target as it is; `BrokenPlugin` when they are of other hardware."""
    architecture: Architecture = scorer.architecture(job.target_parameters)
    for task in job.start:
        if task.schedule.architecture != content_key(architecture):
            raise BrokenPlugin(f"start: the schedule of {task.name} is for other hardware than target {job.target!r} makes now")
    return Design((Core(CORE, architecture, job.target_parameters),), job.start, job.objective)
