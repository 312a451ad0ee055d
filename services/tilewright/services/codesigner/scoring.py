"""Designs from what a plugin found: hardware made by the target, every mapping scored on it."""

from __future__ import annotations

from collections.abc import Mapping as Dict

from tilewright.protocol.architecture import Architecture, Constraints, DesignSpace
from tilewright.protocol.cost import Claim, Schedule
from tilewright.protocol.design import Core, Design, ScheduledTask
from tilewright.protocol.errors import BrokenPlugin
from tilewright.protocol.keys import content_key
from tilewright.protocol.messages import CodesignJob
from tilewright.protocol.plugin import DesignCandidate
from tilewright.services.runtime.host import Host

#: Name of the one core of a design.
CORE = "core"


class Scorer:
    """Scores designs of one job."""

    def __init__(self, job: CodesignJob, host: Host) -> None:
        self._job = job
        self._model = host.model
        self._target = host.plugin("targets", job.target)
        self._constraints: Constraints = self._target.constraints()
        self._tasks = tuple(task for task in job.workload.tasks if task.operator.is_contraction)
        self.space: DesignSpace = self._target.design_space()

    def architecture(self, parameters: Dict[str, int]) -> Architecture:
        """The target's hardware with these parameters."""
        architecture: Architecture = self._target.architecture(**parameters)
        return architecture

    def covers(self, design: Design) -> bool:
        """True when a design has a schedule for every contraction of the workload."""
        return {task.operator for task in self._tasks} <= {task.schedule.operator for task in design.tasks}

    def design(self, candidate: DesignCandidate) -> Design:
        """A candidate as a design.

        Raises `InvalidMapping` when a mapping does not fit the hardware, `BrokenPlugin` when the candidate is not of this
        workload or outside of the design space.
        """
        self._check(candidate)
        architecture = self.architecture(candidate.parameters)
        key = content_key(architecture)
        scheduled = []
        for task, mapping in zip(self._tasks, candidate.mappings, strict=True):
            cost = self._model.cost(task.operator, architecture, mapping, self._constraints)
            schedule = Schedule(task.operator, mapping, cost, Claim(), self._job.objective, key, CORE)
            scheduled.append(ScheduledTask(schedule, task.count, task.name))
        return Design((Core(CORE, architecture, candidate.parameters),), tuple(scheduled), self._job.objective)

    def _check(self, candidate: DesignCandidate) -> None:
        plugin = f"codesigner {self._job.codesigner!r}"
        if len(candidate.mappings) != len(self._tasks):
            raise BrokenPlugin(f"{plugin} gave {len(candidate.mappings)} mappings, expected one for each of {len(self._tasks)} operators")
        values = {parameter.name: parameter.values for parameter in self.space.parameters}
        for name, value in candidate.parameters.items():
            if value not in values.get(name, ()):
                raise BrokenPlugin(f"{plugin} chose {name} = {value}, which is not in the design space of target {self._job.target!r}")
