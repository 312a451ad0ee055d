"""The profiler: a model through its frontend, a target as asked for, and where the time goes at the roofline."""

from __future__ import annotations

from tilewright.protocol.errors import InvalidInput, suggest
from tilewright.protocol.messages import Profile, ProfileJob
from tilewright.protocol.plugin import Kind, Options
from tilewright.protocol.profile import Point
from tilewright.protocol.workload import Workload
from tilewright.services.runtime.host import Host, check_options

from .analysis import asked, points
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
    workload = job.workload if job.workload is not None else load(job, host, _first(job, host))
    operators = tuple(operator_profile(task, resolved.architecture) for task in workload.tasks)
    found: tuple[Point, ...] = ()
    if job.analysis is not None:
        found = points(job, job.analysis, workload, lambda options: load(job, host, options), resolved.architecture, host)
    return Profile(workload, resolved.architecture, resolved.constraints, resolved.design_space, operators, found)


def _first(job: ProfileJob, host: Host) -> Options:
    """The options of the first setting, which is the one that the operators on the target are listed for."""
    if job.analysis is None:
        return job.options
    setting = {name: values[0] for name, values in job.analysis.sweep.items() if values}
    return asked(job.options, setting, job.analysis, host.plugin("conventions", job.analysis.convention))


def load(job: ProfileJob, host: Host, options: Options) -> Workload:
    """Ask the frontend. Only models that it has by name: a message never makes a service open a file."""
    frontend = host.plugin("frontends", job.frontend)
    models = tuple(frontend.models())
    if job.model not in models:
        raise InvalidInput(f"model {job.model!r}: frontend {job.frontend!r} has no such model{suggest(job.model, models)}")
    check_options("frontends", job.frontend, frontend.options, options)
    workload: Workload = frontend.load(job.model, options)
    return workload
