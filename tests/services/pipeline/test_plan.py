"""The jobs of a run: built from the request and recorded answers, the same whoever builds them."""

from __future__ import annotations

import msgspec
import pytest

from tilewright.protocol.cost import Schedule
from tilewright.protocol.design import Core, Design, ScheduledTask
from tilewright.protocol.errors import InvalidMessage
from tilewright.protocol.messages import (
    Codesigned,
    CodesignJob,
    KernelJob,
    MapJob,
    Mapped,
    Profile,
    ProfileJob,
    RunRequest,
    SimulateJob,
)
from tilewright.protocol.plugin import Budget
from tilewright.protocol.run import RunState, StageState, closure, packed, parse_task
from tilewright.protocol.subjects import STAGES, Stage
from tilewright.protocol.workload import Workload, elementwise
from tilewright.services.pipeline import plan
from tilewright.services.runtime.identity import question

from .fakes import ARCHITECTURE, answer, infeasible, workload

REQUEST = RunRequest(
    "toy",
    "gemmini",
    frontend_options={"seq": 128},
    target_parameters={"pes": 16},
    objective="energy",
    mapper="random",
    mapper_options={"patience": 3},
    map_budget=Budget(evaluations=7),
    codesigner="pareto",
    codesigner_options={"steps": 2},
    codesign_budget=Budget(evaluations=9),
    limits={"area_mm2": 4.0},
    emitter="native",
    emitter_options={"check": True},
    simulator="analytical",
    simulator_options={"trace": False},
    seed=5,
)


@pytest.mark.parametrize(
    ("asked", "all_of_it"),
    [
        (("profile",), ("profile",)),
        (("map",), ("profile", "map")),
        (("codesign",), ("profile", "map", "codesign")),
        (("kernel",), ("profile", "map", "kernel")),
        (("simulate",), ("profile", "map", "simulate")),
        (("simulate", "codesign"), ("profile", "map", "codesign", "simulate")),
        (STAGES, STAGES),
        ((), ()),
    ],
)
def test_closure(asked: tuple[Stage, ...], all_of_it: tuple[Stage, ...]) -> None:
    assert closure(asked) == all_of_it
    assert closure(all_of_it) == all_of_it


def state_with(done: int, empty: int = 0) -> RunState:
    """A run of which the tasks of the bitmap `done` are mapped."""
    stages = tuple(StageState(stage) for stage in STAGES)
    mapped = StageState("map", total=3, done=packed(done), empty=packed(empty))
    return RunState("run", REQUEST, stages=tuple(mapped if stage.stage == "map" else stage for stage in stages))


def answers() -> dict[str, plan.Answer]:
    """What the profiler and the mapper said: the second operator has no valid mapping."""
    found: dict[str, plan.Answer] = {"profile-0": answer(ProfileJob("toy", "zoo", "gemmini"))}
    for index in range(3):
        job = plan.job(REQUEST, f"map-{index}", found)
        assert isinstance(job, MapJob)
        found[f"map-{index}"] = Mapped(infeasible=infeasible(job.operator)) if index == 1 else answer(job)
    return found


def test_profile_job() -> None:
    job = plan.job(msgspec.structs.replace(REQUEST, workload=workload(), architecture=ARCHITECTURE), "profile-0", {})
    assert job == ProfileJob("toy", "zoo", "gemmini", {"seq": 128}, {"pes": 16}, workload(), ARCHITECTURE)
    assert plan.inputs(state_with(0), "profile-0") == ()


def test_map_jobs_are_the_distinct_contractions() -> None:
    found = answers()
    profile = found["profile-0"]
    assert isinstance(profile, Profile)
    assert plan.usable(profile) == 3
    jobs = [plan.job(REQUEST, f"map-{index}", found) for index in range(3)]
    assert [job.operator for job in jobs if isinstance(job, MapJob)] == [op for op in workload().operators if op.is_contraction]
    assert jobs[0] == MapJob(
        workload().operators[0], ARCHITECTURE, profile.constraints, "energy", "random", Budget(evaluations=7), 5, {"patience": 3}
    )
    assert plan.inputs(state_with(0), "map-2") == ("profile-0",)


def test_what_later_stages_can_use() -> None:
    found = answers()
    assert [plan.usable(found[f"map-{index}"]) for index in range(3)] == [1, 0, 1]
    activations = Workload.build("act", [("gelu", elementwise("gelu", {"P": 4}))])
    assert plan.usable(answer(ProfileJob("", "", "", workload=activations))) == 0
    assert plan.usable(answer(plan.job(REQUEST, "kernel-0", found))) == 1


def test_codesign_starts_from_what_is_mapped() -> None:
    found = answers()
    assert plan.inputs(state_with(0b111, 0b010), "codesign-0") == ("profile-0", "map-0", "map-2")
    job = plan.job(REQUEST, "codesign-0", found)
    assert isinstance(job, CodesignJob)
    first, _, third = [task.operator for task in plan.contractions(workload())]
    assert [(task.schedule.operator, task.count) for task in job.start] == [(first, 2), (third, 1)]
    assert (job.workload, job.target, job.target_parameters, job.limits) == (
        workload().nameless(),
        "gemmini",
        {"pes": 16},
        {"area_mm2": 4.0},
    )
    assert (job.codesigner, job.budget, job.seed, job.options) == ("pareto", Budget(evaluations=9), 5, {"steps": 2})


def test_renamed_layers_are_the_same_question() -> None:
    """Every job after the profile is equal for a network whose names alone are others."""
    found = answers()
    profile = found["profile-0"]
    assert isinstance(profile, Profile)
    nodes = tuple(msgspec.structs.replace(node, id=f"x{node.id}", module=f"y{node.module}") for node in profile.workload.nodes)
    other = dict(found)
    other["profile-0"] = msgspec.structs.replace(profile, workload=msgspec.structs.replace(profile.workload, name="other", nodes=nodes))
    for task in ("map-0", "codesign-0", "kernel-2", "simulate-0"):
        assert question(plan.job(REQUEST, task, found)) == question(plan.job(REQUEST, task, other))


def test_kernel_job() -> None:
    found = answers()
    assert plan.inputs(state_with(0b111), "kernel-2") == ("map-2",)
    mapped = found["map-2"]
    assert isinstance(mapped, Mapped)
    assert mapped.schedule is not None
    assert plan.job(REQUEST, "kernel-2", found) == KernelJob(
        mapped.schedule.operator, "gemmini", "native", mapped.schedule, {"check": True}
    )


def test_simulate_jobs_are_the_base_and_the_winner() -> None:
    found = answers()
    state = state_with(0b111, 0b010)
    assert plan.inputs(state, "simulate-0") == ("profile-0", "map-0", "map-2")
    assert plan.inputs(state, "simulate-1") == ("codesign-0",)
    found["codesign-0"] = answer(plan.job(REQUEST, "codesign-0", found))
    base, winner = (plan.job(REQUEST, f"simulate-{index}", found) for index in range(2))
    assert isinstance(base, SimulateJob)
    assert base == SimulateJob(plan.base_design(found), ARCHITECTURE, "analytical", {"trace": False})
    assert isinstance(winner, SimulateJob)
    assert len(winner.tasks) == 2


def test_each_core_of_a_winner_is_simulated_with_its_own_tasks() -> None:
    found = answers()
    tasks = plan.base_design(found)

    def on(core: str, task: ScheduledTask) -> ScheduledTask:
        schedule: Schedule = msgspec.structs.replace(task.schedule, core=core)
        return msgspec.structs.replace(task, schedule=schedule)

    wide = msgspec.structs.replace(ARCHITECTURE, name="wide")
    cores = (Core("small", ARCHITECTURE), Core("wide", wide))
    design = Design(cores, (on("wide", tasks[0]), on("small", tasks[1])), "edp")
    found["codesign-0"] = Codesigned(design, design)
    assert plan.usable(found["codesign-0"]) == 2
    first, second = (plan.job(REQUEST, f"simulate-{index}", found) for index in (1, 2))
    assert isinstance(first, SimulateJob)
    assert isinstance(second, SimulateJob)
    assert (first.architecture.name, [task.name for task in first.tasks]) == ("toy", ["block.2"])
    assert (second.architecture.name, [task.name for task in second.tasks]) == ("wide", ["block.0"])


def test_names() -> None:
    profile = answers()["profile-0"]
    assert isinstance(profile, Profile)
    tasks = ("profile-0", "map-1", "codesign-0", "kernel-2", "simulate-0", "simulate-1", "simulate-2")
    assert [plan.name(REQUEST, task, profile) for task in tasks] == [
        "toy",
        "block.1",
        "pareto on gemmini",
        "block.2",
        "base design",
        "winning design",
        "winning design, core 2",
    ]
    assert plan.name(REQUEST, "map-1", None) == "map-1"


@pytest.mark.parametrize("task", ["map", "map-", "map-01", "map--1", "mop-1", "map-1 ", "map-1234567", ""])
def test_what_is_no_task(task: str) -> None:
    with pytest.raises(InvalidMessage, match="expected <stage>-<index>"):
        parse_task(task)
