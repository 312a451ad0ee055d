"""The conformance suite on the targets, and what each one refuses."""

from __future__ import annotations

import pytest

from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput
from tilewright.testing.targets import TargetConformance


class TestGemmini(TargetConformance):
    name = "gemmini"


class TestSimba(TargetConformance):
    name = "simba"


class TestTpuLike(TargetConformance):
    name = "tpu_like"


class TestEyeriss(TargetConformance):
    name = "eyeriss"


class TestNvdlaSmall(TargetConformance):
    name = "nvdla_small"


class TestNvdlaLarge(TargetConformance):
    name = "nvdla_large"


@pytest.mark.parametrize(
    ("target", "parameters", "message"),
    [
        ("gemmini", {"pe": 1}, "pe: 1, expected an integer from 2 to 128 PEs per side"),
        ("gemmini", {"scratchpad_kib": 4096}, "scratchpad_kib: 4096, expected an integer from 1 to 2048 KiB"),
        ("gemmini", {"accumulator_kib": True}, "accumulator_kib: True, expected an integer from 1 to 2048 KiB"),
        (
            "gemmini",
            {"scratchpad_kb": 128},
            "design-space parameter 'scratchpad_kb' is unknown; did you mean 'scratchpad_kib'?",
        ),
        ("simba", {"pes": 0}, "pes: 0, expected an integer from 4 to 256 PEs"),
        ("tpu_like", {"side": 1000}, "side: 1000, expected an integer from 4 to 256 PEs per side"),
        ("eyeriss", {"colums": 4}, "design-space parameter 'colums' is unknown; did you mean 'columns'?"),
    ],
)
def test_bad_parameters(target: str, parameters: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        registry.load("targets", target).architecture(**parameters)
    assert str(caught.value) == message


@pytest.mark.parametrize("target", ["gemmini", "simba", "tpu_like", "eyeriss"])
def test_any_integer_within_the_limits_builds(target: str) -> None:
    """A design that a search did not visit (an odd size) is hardware too."""
    plugin = registry.load("targets", target)
    for parameter in plugin.design_space().parameters:
        plugin.architecture(**{parameter.name: parameter.low + 1})


def test_gemmini_unrolls_channels_only() -> None:
    constraints = registry.load("targets", "gemmini").constraints()
    spatial = {level.level: level.spatial_dims for level in constraints.levels}
    assert spatial == {"Registers": (), "Accumulator": ("C",), "Scratchpad": ("K",), "DRAM": ()}
