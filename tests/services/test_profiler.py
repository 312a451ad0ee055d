"""The profiler: models and targets by name, and rooflines against figures worked out by hand."""

from __future__ import annotations

import msgspec
import pytest

from tilewright.protocol.architecture import Constraints, DesignSpace, SpecialFunctionUnit
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.messages import Profile, ProfileJob
from tilewright.protocol.workload import Workload, elementwise, matmul
from tilewright.services import profiler
from tilewright.services.runtime.host import Host
from tilewright.testing import samples

JOB = ProfileJob("bert-base", "zoo", "gemmini", options={"seq": 128})


def test_a_model_on_a_target(host: Host) -> None:
    profile = profiler.perform(JOB, host)
    target = host.plugin("targets", "gemmini")
    assert profile.architecture == target.architecture()
    assert profile.constraints == target.constraints()
    assert profile.design_space == target.design_space()
    assert sum(each.count * each.macs for each in profile.operators) == profile.workload.macs
    assert len(profile.operators) == len(profile.workload.tasks)


def test_parameters_of_the_target_are_applied(host: Host) -> None:
    job = msgspec.structs.replace(JOB, target_parameters={"pe": 32})
    assert profiler.perform(job, host).architecture.peak_macs_per_cycle == 32 * 32


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "bert-bas"}, "model 'bert-bas': frontend 'zoo' has no such model; did you mean 'bert-base'?"),
        ({"model": "../secret.yaml"}, "frontend 'zoo' has no such model"),
        ({"options": {"sec": 128}}, "options.sec: frontend 'zoo' has no such option; did you mean 'seq'?"),
        ({"options": {"seq": 0}}, "seq"),
        ({"options": {"seq": 100_000}}, "seq"),
        ({"frontend": "zo"}, "frontend 'zo' is not installed; did you mean 'zoo'?"),
        ({"target": "gemini"}, "target 'gemini' is not installed; did you mean 'gemmini'?"),
        ({"target_parameters": {"pes": 16}}, "target_parameters.pes: target 'gemmini' has no such parameter; did you mean 'pe'?"),
        ({"target_parameters": {"pe": 0}}, "target_parameters.pe: 0, expected "),
        ({"target_parameters": {"pe": 1 << 20}}, f"target_parameters.pe: {1 << 20}, expected "),
        ({"architecture": samples.architecture(), "target_parameters": {"pe": 4}}, "'sample' was given whole"),
    ],
)
def test_bad_input_names_field_value_and_expectation(host: Host, changes: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        profiler.perform(msgspec.structs.replace(JOB, **changes), host)
    assert said in str(caught.value)


def profile(*operators: tuple[str, object], unit: SpecialFunctionUnit | None = None) -> Profile:
    architecture = msgspec.structs.replace(samples.architecture(), special_function_unit=unit)
    job = ProfileJob("own", "zoo", "own", workload=Workload.build("own", operators), architecture=architecture)
    host = Host(lambda frame: None)
    assert profiler.plugins(job, host) == ()
    return profiler.perform(job, host)


def test_what_the_client_gives_needs_no_plugin() -> None:
    found = profile(("a", matmul(p=1, c=1, k=1)))
    assert found.constraints == Constraints()
    assert found.design_space == DesignSpace()


def test_roofline_of_contractions() -> None:
    """16 MACs per cycle; DRAM moves 4 words of 8 bits per cycle, reads and writes together."""
    big, thin = profile(
        ("big", matmul(p=64, c=64, k=64)), ("thin", matmul(p=1, c=64, k=64)), ("thin again", matmul(p=1, c=64, k=64))
    ).operators
    assert (big.read_bytes, big.write_bytes, big.macs, big.flops) == (2 * 64 * 64, 64 * 64, 64**3, 2 * 64**3)
    assert (big.cycles, big.bound_by) == (64**3 / 16, "compute")
    assert big.arithmetic_intensity == pytest.approx(2 * 64**3 / (3 * 64 * 64))
    assert (thin.cycles, thin.bound_by, thin.count) == ((64 * 64 + 64 + 64) / 4, "DRAM", 2)


def test_separate_bandwidths_bind_separately() -> None:
    levels = samples.architecture().levels
    memory = msgspec.structs.replace(levels[-1], shared_bandwidth=None, read_bandwidth=64.0, write_bandwidth=1.0, word_bits=16)
    architecture = msgspec.structs.replace(samples.architecture(), levels=(*levels[:-1], memory))
    job = ProfileJob("own", "zoo", "own", workload=Workload.build("own", [("outer", matmul(p=64, c=1, k=64))]), architecture=architecture)
    (outer,) = profiler.perform(job, Host(lambda frame: None)).operators
    assert (outer.cycles, outer.bound_by) == (64 * 64 * 8 / 16, "DRAM")


def test_roofline_of_non_linear_operators() -> None:
    softmax = elementwise("softmax", {"P": 8, "K": 32}, reduced=("K",))
    (slow,) = profile(("softmax", softmax), unit=SpecialFunctionUnit(lanes=1)).operators
    assert (slow.function, slow.cycles, slow.bound_by, slow.macs) == ("softmax", 8 * 32, "compute", 0)
    (fast,) = profile(("softmax", softmax), unit=SpecialFunctionUnit(lanes=16)).operators
    assert (fast.cycles, fast.bound_by) == (2 * 8 * 32 / 4, "DRAM")
    (unpriced,) = profile(("softmax", softmax)).operators
    assert (unpriced.cycles, unpriced.bound_by) == (2 * 8 * 32 / 4, "DRAM (no special function unit)")
