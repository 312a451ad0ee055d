"""The profiler: a model through its frontend, a target as asked for, and where the time goes at the roofline."""

from __future__ import annotations

from tilewright.protocol.errors import InvalidInput, suggest
from tilewright.protocol.messages import Profile, ProfileJob
from tilewright.protocol.plugin import Kind
from tilewright.protocol.workload import Workload
from tilewright.services.runtime.host import Host, check_options

from .roofline import operator_profile
from .target import resolve

__all__ = ["perform", "plugins"]


def plugins(job: ProfileJob, host: Host) -> tuple[tuple[Kind, str], ...]:
    """The plugins that a job names; what the client gave itself needs none."""
    frontend: tuple[tuple[Kind, str], ...] = (("frontends", job.frontend),) if job.workload is None else ()
    target: tuple[tuple[Kind, str], ...] = (("targets", job.target),) if job.architecture is None else ()
    return (*frontend, *target)


def perform(job: ProfileJob, host: Host) -> Profile:
    """Workload, resolved target, and every distinct operator at the roofline.

    Raises `InvalidInput` for a model, target, option or parameter that does not exist or cannot have its value.
    """
    workload = job.workload if job.workload is not None else _load(job, host)
    resolved = resolve(job, host)
    operators = tuple(operator_profile(task, resolved.architecture) for task in workload.tasks)
    return Profile(workload, resolved.architecture, resolved.constraints, resolved.design_space, operators)


def _load(job: ProfileJob, host: Host) -> Workload:
    """Ask the frontend. Only models that it has by name: a message never makes a service open a file."""
    frontend = host.plugin("frontends", job.frontend)
    models = tuple(frontend.models())
    if job.model not in models:
        raise InvalidInput(f"model {job.model!r}: frontend {job.frontend!r} has no such model{suggest(job.model, models)}")
    check_options("frontends", job.frontend, frontend.options, job.options)
    workload: Workload = frontend.load(job.model, job.options)
    return workload
