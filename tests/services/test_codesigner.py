"""The co-designer service: no design is taken at its word, and the winner is never worse than the baseline."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec
import pytest

from tilewright import loopnest as ln
from tilewright.protocol.architecture import Architecture, Constraints, DesignSpace, Parameter
from tilewright.protocol.cost import Claim
from tilewright.protocol.design import ScheduledTask
from tilewright.protocol.errors import BrokenPlugin, Cancelled, InvalidInput
from tilewright.protocol.keys import content_key
from tilewright.protocol.mapping import Loop, Mapping
from tilewright.protocol.messages import CodesignJob, MapJob, ProfileJob
from tilewright.protocol.plugin import Budget, DesignCandidate, DesignRequest
from tilewright.services import codesigner, mapper, profiler
from tilewright.services.runtime.host import Host, Unsolvable
from tilewright.testing import samples

from .conftest import Heard, Offer

WORKLOAD = samples.workload()
TASKS = WORKLOAD.tasks


class Sized:
    """The sample architecture with a square array of ``side`` units per side."""

    def architecture(self, side: int = 4) -> Architecture:
        sample = samples.architecture()
        registers, *outer = sample.levels
        grid = {"instances": side * side, "mesh_x": side, "mesh_y": side}
        compute = msgspec.structs.replace(sample.compute, area_mm2=0.01, **grid)
        return msgspec.structs.replace(sample, compute=compute, levels=(msgspec.structs.replace(registers, **grid), *outer))

    def design_space(self) -> DesignSpace:
        return DesignSpace((Parameter("side", "PEs per side", 1, 8, 4, step=2, geometric=True),))

    def constraints(self) -> Constraints:
        return Constraints()


def mappings(rows: int = 1) -> tuple[Mapping, ...]:
    """Outermost mappings of all operators, with some units in parallel."""
    found = []
    for task in TASKS:
        *inner, last = samples.outermost(task.operator, Sized().architecture()).levels
        temporal = tuple(Loop(loop.dim, loop.factor // (rows if loop.dim == "P" else 1)) for loop in last.temporal)
        inner[1] = msgspec.structs.replace(inner[1], spatial=(Loop("P", rows),) if rows > 1 else ())
        found.append(Mapping((*inner, msgspec.structs.replace(last, temporal=temporal))))
    return tuple(found)


def start(rows: int = 1) -> tuple[ScheduledTask, ...]:
    """Schedules on the hardware as it is."""
    architecture = Sized().architecture()
    made = []
    for task, mapping in zip(TASKS, mappings(rows), strict=True):
        cost = ln.cost(ln.Problem(task.operator, architecture), mapping)
        schedule = msgspec.structs.replace(samples.schedule(task.operator, architecture), mapping=mapping, cost=cost)
        made.append(ScheduledTask(schedule, task.count, task.name))
    return tuple(made)


def edp(side: int, rows: int) -> float:
    """EDP of the whole workload, worked out apart from the service."""
    architecture = Sized().architecture(side)
    costs = [(t.count, ln.cost(ln.Problem(t.operator, architecture), m)) for t, m in zip(TASKS, mappings(rows), strict=True)]
    return math.fsum(n * cost.energy_pj for n, cost in costs) * sum(n * cost.cycles for n, cost in costs)


JOB = CodesignJob(WORKLOAD, "sized", {}, "edp", "scripted", Budget(evaluations=100), start=start())


@pytest.fixture
def script(offer: Offer) -> Any:
    """Offers the target and a co-designer that finds what it is told."""

    def install(*candidates: DesignCandidate, job: CodesignJob = JOB) -> None:
        class Scripted:
            options: ClassVar[dict[str, str]] = {}

            def search(self, request: DesignRequest, ctx: Any) -> Iterator[DesignCandidate]:
                assert ctx.plugin("targets", request.target).design_space() == Sized().design_space()
                assert request.start == tuple(task.schedule for task in job.start)
                yield from candidates

        offer("targets", "sized", Sized)
        offer("codesigners", "scripted", Scripted)

    return install


def test_the_best_design_wins_with_its_own_costs(host: Host, heard: Heard, script: Any) -> None:
    script(DesignCandidate({"side": 8}, mappings(2)), DesignCandidate({"side": 2}, mappings(1)))
    found = codesigner.perform(JOB, host)
    assert found.design.cores[0].parameters == {"side": 8}
    assert found.design.cores[0].architecture == Sized().architecture(8)
    assert found.design.value() == pytest.approx(edp(8, 2), rel=1e-12)
    assert found.baseline.value() == pytest.approx(edp(4, 1), rel=1e-12)
    assert found.design.value() < found.baseline.value()
    assert [(task.count, task.name) for task in found.design.tasks] == [(task.count, task.name) for task in TASKS]
    assert {task.schedule.architecture for task in found.design.tasks} == {content_key(Sized().architecture(8))}
    assert {task.schedule.core for task in found.design.tasks} == {found.design.cores[0].name}
    assert [figures["edp"] for figures in heard.partial] == [found.design.value()]


def test_the_baseline_wins_when_nothing_is_better(host: Host, script: Any) -> None:
    job = msgspec.structs.replace(JOB, start=start(2))
    script(DesignCandidate({"side": 4}, mappings(1)), DesignCandidate({"side": 2}, mappings(1)), job=job)
    found = codesigner.perform(job, host)
    assert found.design == found.baseline
    assert found.design.cores[0].architecture == Sized().architecture()
    assert found.design.value() == pytest.approx(edp(4, 2), rel=1e-12)


def test_invalid_designs_are_dropped(host: Host, script: Any) -> None:
    """Two rows in parallel do not fit one unit."""
    script(DesignCandidate({"side": 1}, mappings(2)), DesignCandidate({"side": 2}, mappings(2)))
    assert codesigner.perform(JOB, host).design.cores[0].parameters == {"side": 2}


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (DesignCandidate({"side": 8}, mappings()[:-1]), "gave 2 mappings, expected one for each of 3 operators"),
        (DesignCandidate({"side": 3}, mappings()), "chose side = 3, which is not in the design space of target 'sized'"),
        (DesignCandidate({"sides": 2}, mappings()), "chose sides = 2"),
    ],
)
def test_designs_of_something_else_are_the_plugins_fault(host: Host, script: Any, candidate: DesignCandidate, said: str) -> None:
    script(candidate)
    with pytest.raises(BrokenPlugin, match=said):
        codesigner.perform(JOB, host)


def test_limits_hold_for_every_design(host: Host, script: Any) -> None:
    script(DesignCandidate({"side": 8}, mappings(2)), DesignCandidate({"side": 2}, mappings(2)))
    job = msgspec.structs.replace(JOB, limits={"side": 4})
    assert codesigner.perform(job, host).design.cores[0].parameters == {"side": 2}
    area = msgspec.structs.replace(JOB, limits={"area_mm2": 16 * 0.01 + 1e-9})
    assert codesigner.perform(area, host).design.cores[0].parameters == {"side": 2}


def test_an_area_that_nobody_states_cannot_be_limited(host: Host, script: Any, offer: Offer) -> None:
    script()

    class Bare(Sized):
        def architecture(self, side: int = 4) -> Architecture:
            sized = super().architecture(side)
            return msgspec.structs.replace(sized, compute=msgspec.structs.replace(sized.compute, area_mm2=0.0))

    offer("targets", "sized", Bare)
    with pytest.raises(InvalidInput, match=r"limits.area_mm2: .* states no area, expected a target whose components do"):
        codesigner.perform(msgspec.structs.replace(JOB, limits={"area_mm2": 4.0}, start=()), host)


def test_a_latency_target_is_a_limit(host: Host, script: Any) -> None:
    script(DesignCandidate({"side": 8}, mappings(1)), DesignCandidate({"side": 2}, mappings(2)))
    slow = sum(task.count * task.schedule.cost.cycles for task in start())
    found = codesigner.perform(msgspec.structs.replace(JOB, limits={"cycles": slow - 1}), host)
    assert found.design.cores[0].parameters == {"side": 2}
    assert found.design.cycles < slow


def test_fronts_hold_what_nothing_dominates(host: Host, script: Any) -> None:
    script(*(DesignCandidate({"side": side}, mappings(rows)) for side, rows in ((8, 2), (2, 2), (2, 1), (1, 1))))
    front = codesigner.perform(JOB, host).front
    # The same mappings cost the same on every array here: the smallest array for two rows is left, and the smallest of all.
    assert sorted(point.parameters["side"] for point in front) == [1, 2]
    for point in front:
        assert not any(
            other.area_mm2 <= point.area_mm2 and other.edp <= point.edp and other != point  # type: ignore[operator]
            and other.energy_pj <= point.energy_pj and other.cycles <= point.cycles
            for other in front
        )  # fmt: skip


def test_a_baseline_beyond_the_limits_does_not_win(host: Host, script: Any) -> None:
    script(DesignCandidate({"side": 2}, mappings(1)))
    job = msgspec.structs.replace(JOB, limits={"side": 2})
    found = codesigner.perform(job, host)
    assert found.design.cores[0].parameters == {"side": 2}
    none = msgspec.structs.replace(JOB, limits={"side": 1})
    with pytest.raises(Unsolvable, match="a design of scripted: side is 2, limit 1"):
        codesigner.perform(none, host)


def test_a_baseline_without_some_schedules_loses_to_any_whole_design(host: Host, script: Any) -> None:
    job = msgspec.structs.replace(JOB, start=start(2)[:2])
    script(DesignCandidate({"side": 1}, mappings(1)), job=job)
    found = codesigner.perform(job, host)
    assert found.design.cores[0].parameters == {"side": 1}
    assert len(found.baseline.tasks) == 2


def test_nothing_to_choose_from_is_unsolvable(host: Host, script: Any) -> None:
    job = msgspec.structs.replace(JOB, start=())
    script(job=job)
    with pytest.raises(Unsolvable, match="the baseline: has no schedule for some operators"):
        codesigner.perform(job, host)


def test_unknown_limits_and_foreign_schedules(host: Host, script: Any) -> None:
    script()
    with pytest.raises(InvalidInput, match=r"limits.sid: the target has no such figure; did you mean 'side'\?"):
        codesigner.perform(msgspec.structs.replace(JOB, limits={"sid": 2}), host)
    with pytest.raises(BrokenPlugin, match="the schedule of first is for other hardware than target 'sized' makes now"):
        codesigner.perform(msgspec.structs.replace(JOB, target_parameters={"side": 8}), host)


def test_claims_are_checked(host: Host, script: Any) -> None:
    value = edp(8, 2)
    script(DesignCandidate({"side": 8}, mappings(2), Claim("optimal", "pools", 0.5 * value)))
    claim = codesigner.perform(JOB, host).design.claim
    assert (claim.kind, claim.mapspace, claim.gap) == ("best found", "pools", pytest.approx(1.0))


def test_cancelled_before_anything_was_found(host: Host, script: Any) -> None:
    script()
    host.cancelled = True
    with pytest.raises(Cancelled):
        codesigner.perform(msgspec.structs.replace(JOB, limits={"side": 1}), host)


def test_pareto_on_gemmini_beats_its_baseline(host: Host) -> None:
    profile = profiler.perform(ProfileJob("own", "zoo", "gemmini", workload=WORKLOAD), host)
    begun = []
    for task in profile.workload.tasks:
        job = MapJob(task.operator, profile.architecture, profile.constraints, "edp", "cosa", Budget(evaluations=500))
        schedule = mapper.perform(job, host).schedule
        assert schedule is not None
        begun.append(ScheduledTask(schedule, task.count, task.name))
    job = CodesignJob(WORKLOAD, "gemmini", {}, "edp", "pareto", Budget(evaluations=3000), start=tuple(begun), seed=1)
    found = codesigner.perform(job, host)
    assert found.complete
    assert found.design.value() < found.baseline.value()
    assert found.baseline.tasks == tuple(begun)
    assert codesigner.perform(job, Host(lambda frame: None)) == found
