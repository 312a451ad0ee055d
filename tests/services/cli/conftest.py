"""The toy plugins of ``tests/data/toy``, and the answers of a run made of them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tilewright.protocol import registry
from tilewright.protocol.cost import Claim, Infeasible, Schedule, Violation
from tilewright.protocol.design import Core, Design, ScheduledTask
from tilewright.protocol.kernel import Kernel, Verification
from tilewright.protocol.keys import content_key
from tilewright.protocol.messages import Answer, Codesigned, Mapped, OperatorProfile, Profile, RunRequest, Simulated
from tilewright.protocol.run import RunState, StageState, packed
from tilewright.protocol.subjects import STAGES

TOY = Path(__file__).parents[2] / "data" / "toy"


@pytest.fixture(scope="module", autouse=True)
def toy() -> Iterator[Path]:
    """The toy distribution is installed, for the tests of this folder only."""
    sys.path.insert(0, str(TOY))
    importlib.invalidate_caches()
    yield TOY
    sys.path.remove(str(TOY))
    sys.modules.pop("tilewright_toy", None)
    importlib.invalidate_caches()


@pytest.fixture
def answers(toy: Path) -> dict[str, Answer]:
    """Answers of ``run toy-net --target toy``: three distinct layers, of which the last has no mapping."""
    from tilewright_toy import Frontend, Target, whole

    target = Target()
    architecture = target.architecture()
    workload = Frontend().load("toy-net", {})
    cost_model = registry.load("simulators", "analytical")

    def schedule(index: int, **parameters: int) -> Schedule:
        operator, on = workload.tasks[index].operator, target.architecture(**parameters)
        mapping = whole(operator, on)
        return Schedule(
            operator, mapping, cost_model.cost(operator, on, mapping), Claim("best found", "one", gap=0.25), "edp", content_key(on)
        )

    def tasks(**parameters: int) -> tuple[ScheduledTask, ...]:
        return tuple(ScheduledTask(schedule(index, **parameters), task.count, task.name) for index, task in enumerate(workload.tasks[:2]))

    def design(kib: int) -> Design:
        return Design((Core("toy", target.architecture(buffer_kib=kib), {"buffer_kib": kib}),), tasks(buffer_kib=kib), "edp")

    first, second = schedule(0), schedule(1)
    profiles = tuple(
        OperatorProfile(task.name, "contraction", task.count, task.operator.macs, task.operator.flops, 100, 20, 8.5, 256.0, "compute")
        for task in workload.tasks
    )
    infeasible = Infeasible(workload.tasks[2].operator, 7, (Violation("capacity of Buffer", 7, 3.0),), "Buffer 32 -> 64 KiB")
    verified = Verification("verified", cases=12, worst_error=0.125, compiler="cc 12")
    kernel = Kernel(first.operator, "avx2", "gemm", "", "", "", verified, notes=("target 'toy' has no emitter: host kernels",))
    unverified = msgspec.structs.replace(kernel, verification=Verification("not verified", "no C compiler"))
    return {
        "profile-0": Profile(workload, architecture, target.constraints(), target.design_space(), profiles),
        "map-0": Mapped(first),
        "map-1": Mapped(second),
        "map-2": Mapped(infeasible=infeasible),
        "codesign-0": Codesigned(design(4), design(32), evaluations=4),
        "kernel-0": kernel,
        "kernel-1": unverified,
        "simulate-0": Simulated((first.cost, second.cost), "timeloop/1"),
        "simulate-1": Simulated(tuple(task.schedule.cost for task in tasks(buffer_kib=4)), "timeloop/1"),
    }


@pytest.fixture
def state() -> RunState:
    """The state of that run."""
    totals = {"profile": (1, 1), "map": (3, 3), "codesign": (1, 1), "kernel": (3, 2), "simulate": (2, 2)}
    stages = tuple(
        StageState(stage, total, packed((1 << total) - 1), packed((1 << done) - 1), skipped=packed((1 << total) - (1 << done)))
        for stage, (total, done) in ((stage, totals[stage]) for stage in STAGES)
    )
    stages = tuple(msgspec.structs.replace(stage, empty=packed(4), cached=2) if stage.stage == "map" else stage for stage in stages)
    request = RunRequest("toy-net", "toy", frontend="toy", mapper="toy", codesigner="toy")
    notes = ("map: 1 of 3 operators have no valid mapping on toy",)
    return RunState("01kb9a2c3d4e5f6g7h8j", request, status="partial", stages=stages, submitted=1000.0, finished=1002.5, notes=notes)
