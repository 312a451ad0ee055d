"""The kernel generator: which emitter makes the kernel, and what the user is told about it."""

from __future__ import annotations

import platform
from typing import Any, ClassVar

import msgspec
import pytest

from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.kernel import Kernel, Verification
from tilewright.protocol.messages import KernelJob
from tilewright.protocol.plugin import EmitRequest
from tilewright.services import kernelgen
from tilewright.services.runtime.host import Host
from tilewright.services.runtime.identity import Code
from tilewright.testing import samples

from .conftest import Offer

OPERATOR = samples.OPERATORS["matmul"]


def emitter(*covered: str) -> type:
    """An emitter that says in its kernel what it was asked for."""

    class Made:
        targets: ClassVar[tuple[str, ...]] = covered
        options: ClassVar[dict[str, str]] = {"fast": "or not"}

        def emit(self, request: EmitRequest, ctx: Any) -> Kernel:
            asked = f"{request.target} {'with' if request.schedule else 'without'} schedule"
            return Kernel(
                request.operator, request.target, "kernel", asked, "", "", Verification("not verified", "made up"), notes=("own",)
            )

    return Made


def made(host: Host, **changes: Any) -> Kernel:
    schedule = samples.schedule(OPERATOR, samples.architecture())
    return kernelgen.perform(KernelJob(OPERATOR, "toy", schedule=schedule, **changes), host)


def test_the_emitter_that_covers_the_target_is_chosen(host: Host, offer: Offer) -> None:
    offer("emitters", "other", emitter("another"))
    offer("emitters", "toy_emitter", emitter("another", "toy"))
    kernel = made(host)
    assert (kernel.source, kernel.target, kernel.notes) == ("toy with schedule", "toy", ("own",))
    assert kernelgen.plugins(KernelJob(OPERATOR, "toy"), host) == (("emitters", "toy_emitter"),)
    assert kernelgen.plugins(KernelJob(OPERATOR, "another"), host) == (("emitters", "other"),)


def test_an_emitter_that_wants_to_be_named_is_not_chosen(host: Host, offer: Offer) -> None:
    class Slow(emitter("toy")):  # type: ignore[misc]
        only_by_name = True

    offer("emitters", "aa_slow", Slow)
    offer("emitters", "toy_emitter", emitter("toy"))
    assert kernelgen.plugins(KernelJob(OPERATOR, "toy"), host) == (("emitters", "toy_emitter"),)
    assert kernelgen.plugins(KernelJob(OPERATOR, "toy", emitter="aa_slow"), host) == (("emitters", "aa_slow"),)


def test_a_target_without_an_emitter_gets_host_kernels_and_is_told(host: Host, offer: Offer, monkeypatch: pytest.MonkeyPatch) -> None:
    offer("emitters", "for_arm", emitter("neon"))
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    kernel = made(host)
    assert kernel.source == "neon without schedule", "the schedule is for other hardware"
    assert (kernel.target, kernel.notes) == ("neon", ("own", "target 'toy' has no emitter: host kernels"))


def test_not_even_the_host(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "s390x")
    with pytest.raises(InvalidInput, match=r"no emitter for target 'toy', and none for this host \(s390x\); expected one of "):
        made(host)


def test_an_emitter_that_was_named_must_cover_the_target(host: Host, offer: Offer) -> None:
    offer("emitters", "toy_emitter", emitter("toy"))
    offer("emitters", "aa", emitter("toys"))
    assert made(host, emitter="toy_emitter").target == "toy"
    with pytest.raises(InvalidInput, match=r"emitter 'aa' has no kernels for target 'toy'; did you mean 'toys'\?"):
        made(host, emitter="aa")
    with pytest.raises(InvalidInput, match=r"emitter 'toyemitter' is not installed; did you mean 'toy_emitter'\?"):
        made(host, emitter="toyemitter")
    with pytest.raises(InvalidInput, match=r"options.fst: emitter 'toy_emitter' has no such option; did you mean 'fast'\?"):
        made(host, options={"fst": True})


def test_a_broken_emitter_takes_nothing_down(host: Host, offer: Offer) -> None:
    def broken() -> None:
        raise ImportError("no such library")

    offer("emitters", "aa_broken", broken)
    offer("emitters", "toy_emitter", emitter("toy"))
    assert made(host).target == "toy"


def test_the_compiler_is_part_of_the_question(host: Host, offer: Offer) -> None:
    version = "compiler 1"

    class Compiling(emitter("toy")):  # type: ignore[misc]
        def environment(self, ctx: Any) -> str:
            return version

    offer("emitters", "compiling", Compiling)
    job = KernelJob(OPERATOR, "toy")

    def key() -> str:
        return Code().key("kernel", job, kernelgen, (("targets", "gemmini"), ("emitters", "compiling")), host)

    first = key()
    assert key() == first
    version = "compiler 2"
    assert key() != first


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the native emitter's instructions are those of x86-64")
def test_native_kernels_for_a_target_without_emitter() -> None:
    host = Host(lambda frame: None)
    job = KernelJob(OPERATOR, "simba", options={"tile": "4x16"})
    assert kernelgen.plugins(job, host) == (("emitters", "native"),)
    kernel = kernelgen.perform(job, host)
    assert kernel.target == "avx2"
    assert "target 'simba' has no emitter: host kernels" in kernel.notes
    assert kernel.verification.status == "verified" or kernel.verification.reason
    direct = kernelgen.perform(msgspec.structs.replace(job, target="avx2"), host)
    assert (direct.source, direct.target) == (kernel.source, "avx2")
    assert "target 'simba' has no emitter: host kernels" not in direct.notes
