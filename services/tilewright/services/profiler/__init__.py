"""The profiler: a model through its frontend, a target as asked for, and where the time goes at the roofline."""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.protocol.errors import InvalidInput, suggest
from tilewright.protocol.messages import Profile, ProfileJob
from tilewright.protocol.passes import Loader
from tilewright.protocol.plugin import Kind, Options
from tilewright.protocol.profile import Point
from tilewright.protocol.workload import Workload
from tilewright.services.runtime.host import Host, check_options

from .analysis import points
from .roofline import operator_profile
from .target import resolve

__all__ = ["perform", "plugins"]


def plugins(job: ProfileJob, host: Host) -> tuple[tuple[Kind, str], ...]:
    """The plugins that a job names; what the client gave itself needs none."""
    frontend: tuple[tuple[Kind, str], ...] = (("frontends", job.frontend),) if job.workload is None else ()
    target: tuple[tuple[Kind, str], ...] = (("targets", job.target),) if job.architecture is None else ()
    convention: tuple[tuple[Kind, str], ...] = (("conventions", job.analysis.convention),) if job.analysis is not None else ()
    return (*frontend, *target, *convention)


def perform(job: ProfileJob, host: Host) -> Profile:
    """Workload, resolved target, and every distinct operator at the roofline.

    Raises `InvalidInput` for a model, target, option or parameter that does not exist or cannot have its value.
    """
    resolved = resolve(job, host)
    if job.workload is not None:
        loader, workload = None, job.workload
    else:
        loader = Loader(Named(job, host), job.model)
        workload = loader(_first(job, host))
    operators = tuple(operator_profile(task, resolved.architecture) for task in workload.tasks)
    found: tuple[Point, ...] = ()
    if job.analysis is not None:
        found = points(job, job.analysis, workload, loader, resolved.architecture, host)
    return Profile(workload, resolved.architecture, resolved.constraints, resolved.design_space, operators, found)


def _first(job: ProfileJob, host: Host) -> Options:
    """The options of the first setting, which is the one that the operators on the target are listed for."""
    if job.analysis is None:
        return job.options
    convention = host.plugin("conventions", job.analysis.convention)
    return job.analysis.asked(job.options, job.analysis.settings()[0], any_length=convention.any_length)


class Named:
    """The job's frontend, for models that it has by name only: a message never makes a service open a file."""

    def __init__(self, job: ProfileJob, host: Host) -> None:
        self._name, self._frontend = job.frontend, host.plugin("frontends", job.frontend)
        models = tuple(self._frontend.models())
        if job.model not in models:
            raise InvalidInput(f"model {job.model!r}: frontend {job.frontend!r} has no such model{suggest(job.model, models)}")

    def load(self, source: str, options: Options) -> Workload:
        """Ask the frontend."""
        check_options("frontends", self._name, self._frontend.options, options)
        workload: Workload = self._frontend.load(source, options)
        return workload

    def load_many(self, source: str, options: Sequence[Options]) -> list[Workload]:
        """Ask the frontend for all at once, where it has a way to do that."""
        many = getattr(self._frontend, "load_many", None)
        if many is None:
            return [self.load(source, each) for each in options]
        for each in options:
            check_options("frontends", self._name, self._frontend.options, each)
        found: list[Workload] = many(source, options)
        return found
