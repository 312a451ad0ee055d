"""The shape of a run: how many tasks each stage has, which answers a task needs, and the job it becomes.

Tasks of ``map`` and ``kernel`` have the index of their operator among the workload's distinct contraction operators;
``simulate-0`` is the base design, ``simulate-1`` and up are the cores of the winning one. Everything here is a function
of the request and of recorded answers, so whoever computes a job, and however often, computes the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import msgspec

from tilewright.protocol.design import ScheduledTask
from tilewright.protocol.messages import (
    Answer,
    Codesigned,
    CodesignJob,
    Job,
    KernelJob,
    MapJob,
    Mapped,
    Profile,
    ProfileJob,
    RunRequest,
    SimulateJob,
)
from tilewright.protocol.run import NEEDS, RunState, StageState, bits, members, parse_task, task_id
from tilewright.protocol.subjects import Stage
from tilewright.protocol.workload import Task, Workload

#: Task id -> its answer.
Answers = Mapping[str, Answer]

PROFILE = task_id("profile", 0)
CODESIGN = task_id("codesign", 0)


def contractions(workload: Workload) -> tuple[Task, ...]:
    """The distinct operators that have mappings. Non-linear ones are reported by the profile and not mapped."""
    return tuple(task for task in workload.tasks if task.operator.is_contraction)


def usable(answer: Answer) -> int:
    """How much later stages can take from an answer: operators of a profile, schedules of a mapping, cores of a design."""
    if isinstance(answer, Profile):
        return len(contractions(answer.workload))
    if isinstance(answer, Mapped):
        return int(answer.schedule is not None)
    if isinstance(answer, Codesigned):
        return len(answer.design.cores)
    return 1


def ready(stages: Mapping[Stage, StageState], stage: Stage) -> bool:
    """True when every stage that `stage` waits for is complete."""
    waits: tuple[Stage, ...] = (*NEEDS[stage], "codesign") if stage == "simulate" and "codesign" in stages else NEEDS[stage]
    return all(stages[need].complete for need in waits)


def expand(stages: Mapping[Stage, StageState], stage: Stage) -> tuple[int, int]:
    """Number of tasks of a stage that is `ready`, and the bitmap of those that are left out for want of a schedule."""
    if stage == "profile":
        return 1, 0
    if stage == "map":
        return stages["profile"].usable, 0
    scheduled = _scheduled(stages["map"])
    if not scheduled:
        return 0, 0
    if stage == "kernel":
        total = stages["map"].total
        return total, (1 << total) - 1 & ~scheduled
    if stage == "simulate" and "codesign" in stages:
        return 1 + stages["codesign"].usable, 0
    return 1, 0


def _scheduled(stage: StageState) -> int:
    return bits(stage.done) & ~bits(stage.empty)


def inputs(state: RunState, task: str) -> tuple[str, ...]:
    """The tasks whose answers the job of `task` is built from."""
    stage, index = parse_task(task)
    if stage == "profile":
        return ()
    if stage == "map":
        return (PROFILE,)
    if stage == "kernel":
        return (task_id("map", index),)
    if stage == "simulate" and index:
        return (CODESIGN,)
    mapped = state.stage("map")
    return (PROFILE, *(task_id("map", each) for each in members(_scheduled(mapped) if mapped else 0)))


def job(request: RunRequest, task: str, answers: Answers) -> Job:
    """The job of a task, from the whole request and the answers of its `inputs`."""
    stage, index = parse_task(task)
    if stage == "profile":
        return ProfileJob(
            model=request.model,
            frontend=request.frontend,
            target=request.target,
            options=request.frontend_options,
            target_parameters=request.target_parameters,
            workload=request.workload,
            architecture=request.architecture,
            analysis=request.analysis,
        )
    if stage == "map":
        profile = cast(Profile, answers[PROFILE])
        return MapJob(
            operator=contractions(profile.workload)[index].operator,
            architecture=profile.architecture,
            constraints=profile.constraints,
            objective=request.objective,
            mapper=request.mapper,
            budget=request.map_budget,
            seed=request.seed,
            options=request.mapper_options,
        )
    if stage == "codesign":
        return CodesignJob(
            workload=cast(Profile, answers[PROFILE]).workload.nameless(),
            target=request.target,
            target_parameters=request.target_parameters,
            objective=request.objective,
            codesigner=request.codesigner,
            budget=request.codesign_budget,
            limits=request.limits,
            start=tuple(msgspec.structs.replace(task, name=str(at)) for at, task in enumerate(base_design(answers))),
            seed=request.seed,
            options=request.codesigner_options,
        )
    if stage == "kernel":
        schedule = cast(Mapped, answers[task_id("map", index)]).schedule
        assert schedule is not None, "a kernel task exists only where there is a schedule"
        return KernelJob(
            operator=schedule.operator,
            target=request.target,
            emitter=request.emitter,
            schedule=schedule,
            options=request.emitter_options,
        )
    if index == 0:
        tasks, architecture = base_design(answers), cast(Profile, answers[PROFILE]).architecture
    else:
        design = cast(Codesigned, answers[CODESIGN]).design
        core = design.cores[index - 1]
        tasks = tuple(each for each in design.tasks if len(design.cores) == 1 or each.schedule.core == core.name)
        architecture = core.architecture
    return SimulateJob(tasks=tasks, architecture=architecture, simulator=request.simulator, options=request.simulator_options)


def base_design(answers: Answers) -> tuple[ScheduledTask, ...]:
    """The schedules found on the target as it is, with counts and names, in the order of the workload."""
    found = []
    for index, task in enumerate(contractions(cast(Profile, answers[PROFILE]).workload)):
        mapped = cast(Mapped | None, answers.get(task_id("map", index)))
        if mapped is not None and mapped.schedule is not None:
            found.append(ScheduledTask(mapped.schedule, task.count, task.name))
    return tuple(found)


def name(request: RunRequest, task: str, profile: Profile | None) -> str:
    """What people call a task; operators have the name of their first occurrence (their task id without a profile)."""
    stage, index = parse_task(task)
    if stage == "profile":
        return request.model
    if stage == "codesign":
        return f"{request.codesigner} on {request.target}"
    if stage == "simulate":
        return "base design" if index == 0 else "winning design" if index == 1 else f"winning design, core {index}"
    tasks = contractions(profile.workload) if profile is not None else ()
    return tasks[index].name if index < len(tasks) else task
