"""The kernel generator: the emitter that covers the target, or, where there is none, kernels for this host."""

from __future__ import annotations

import platform

import msgspec

from tilewright.protocol import registry
from tilewright.protocol.errors import BrokenPlugin, InvalidInput, suggest
from tilewright.protocol.kernel import Kernel
from tilewright.protocol.messages import KernelJob
from tilewright.protocol.plugin import EmitRequest, Kind
from tilewright.services.runtime.host import Host, check_options

__all__ = ["perform", "plugins"]

#: Machine -> the target that describes its vector instructions.
HOSTS = {"x86_64": "avx2", "AMD64": "avx2", "aarch64": "neon", "arm64": "neon"}


class Choice(msgspec.Struct, frozen=True):
    """Which emitter makes the kernel, and for which target."""

    emitter: str
    target: str
    #: What a user should know about it.
    note: str = ""


def plugins(job: KernelJob, host: Host) -> tuple[tuple[Kind, str], ...]:
    """The chosen emitter. (The target's instructions are among what it `uses`.)"""
    return (("emitters", choose(job, host).emitter),)


def perform(job: KernelJob, host: Host) -> Kernel:
    """Generate the kernel of one operator.

    A schedule is handed to the emitter only where it is for the target that the kernel is for. Raises `InvalidInput` for
    an unknown option, an emitter that lacks the target, or when not even this host has an emitter.
    """
    choice = choose(job, host)
    emitter = host.plugin("emitters", choice.emitter)
    check_options("emitters", choice.emitter, emitter.options, job.options)
    schedule = job.schedule if choice.target == job.target else None
    request = EmitRequest(job.operator, choice.target, schedule, job.options)
    kernel: Kernel = emitter.emit(request, host.context("emitters", choice.emitter, granted=(f"targets:{choice.target}",)))
    return msgspec.structs.replace(kernel, notes=(*kernel.notes, choice.note)) if choice.note else kernel


def choose(job: KernelJob, host: Host) -> Choice:
    """The emitter that was named, else the first that covers the target, else the first that covers this host."""
    if job.emitter:
        targets = host.plugin("emitters", job.emitter).targets
        if job.target not in targets:
            raise InvalidInput(f"emitter {job.emitter!r} has no kernels for target {job.target!r}{suggest(job.target, targets)}")
        return Choice(job.emitter, job.target)
    covered = _covered(host)
    if job.target in covered:
        return Choice(covered[job.target], job.target)
    machine = platform.machine()
    local = HOSTS.get(machine, "")
    if local not in covered:
        raise InvalidInput(f"no emitter for target {job.target!r}, and none for this host ({machine}){suggest(job.target, covered)}")
    return Choice(covered[local], local, f"target {job.target!r} has no emitter: host kernels")


def _covered(host: Host) -> dict[str, str]:
    """Target -> the emitter for it (the first by name). Broken ones, those of one name and those that want to be named cover nothing."""
    covered: dict[str, str] = {}
    for ref in registry.plugins("emitters"):
        try:
            emitter = host.plugin("emitters", ref.name)
        except (BrokenPlugin, InvalidInput):
            continue
        for target in () if getattr(emitter, "only_by_name", False) else emitter.targets:
            covered.setdefault(target, ref.name)
    return covered
