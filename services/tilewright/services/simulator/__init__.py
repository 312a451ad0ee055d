"""The simulator: the schedules of one design, costed again from the bytes that came over the wire."""

from __future__ import annotations

from tilewright.protocol.errors import BrokenPlugin, InvalidInput
from tilewright.protocol.keys import content_key
from tilewright.protocol.messages import Simulated, SimulateJob
from tilewright.protocol.plugin import Kind, SimRequest, SimResult
from tilewright.services.runtime.host import Host, check_options

__all__ = ["perform", "plugins"]


def plugins(job: SimulateJob, host: Host) -> tuple[tuple[Kind, str], ...]:
    """The simulator."""
    return (("simulators", job.simulator),)


def perform(job: SimulateJob, host: Host) -> Simulated:
    """One cost per task, beside the predicted one.

    Raises `InvalidInput` for an unknown option, a schedule of other hardware, or one that the simulator rejects.
    """
    simulator = host.plugin("simulators", job.simulator)
    check_options("simulators", job.simulator, simulator.options, job.options)
    schedules = tuple(task.schedule for task in job.tasks)
    key = content_key(job.architecture)
    for index, schedule in enumerate(schedules):
        if schedule.architecture != key:
            raise InvalidInput(
                f"tasks.{index}.schedule.architecture: {schedule.architecture}, expected that of {job.architecture.name}, {key}"
            )
    request = SimRequest(schedules, job.architecture, job.options)
    result: SimResult = simulator.run(request, host.context("simulators", job.simulator))
    if len(result.costs) != len(schedules):
        raise BrokenPlugin(f"simulator {job.simulator!r} gave {len(result.costs)} costs for {len(schedules)} schedules")
    same = all(schedule.cost.model == cost.model for schedule, cost in zip(schedules, result.costs, strict=True))
    return Simulated(costs=result.costs, model=result.model, same_model=same, attribution=result.attribution, reasons=result.reasons)
