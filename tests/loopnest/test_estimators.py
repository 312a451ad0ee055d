"""Named energies: against the tables they come from, and what they refuse."""

from __future__ import annotations

import nests
import pytest

from tilewright import loopnest as ln
from tilewright.loopnest.estimators import ESTIMATORS, price, size_of_level
from tilewright.protocol.architecture import Architecture, Compute, Estimator, Level
from tilewright.protocol.errors import InvalidArchitecture


@pytest.mark.parametrize(
    ("level", "name", "expected"),
    [
        # Timeloop's own printed energies for CoSA's Simba: pJ per access of a block.
        (Level("Registers", 8, cluster_size=64), "timeloop-sram", 0.4890075376884422),
        (Level("AccumulationBuffer", 64 * 24, 24, cluster_size=8), "timeloop-sram", 1.5753768844221105),
        (Level("WeightBuffer", 16384 * 8, block_words=8), "timeloop-sram", 7.115577889447236),
        (Level("InputBuffer", 4096 * 8, block_words=8), "timeloop-sram", 4.703517587939698),
        (Level("GlobalBuffer", 65536 * 8, block_words=8), "timeloop-sram", 16.763819095477388),
        (Level("DRAM", block_words=64), "timeloop-dram", 6400.0),
        # DOSA's fit at 128 KiB and 2 KiB per column.
        (Level("Accumulator", 512 * 32, 32, instances=16, mesh_x=16), "dosa-accumulator", 2.141),
        (
            Level("Scratchpad", 131072 * 8, block_words=16),
            "dosa-scratchpad",
            59.30624 / 16 * 16 + 16 * (0.49 + 0.02513 * 128 - 59.30624 / 16),
        ),
        (Level("Registers", 8, instances=256, mesh_x=256), "dosa-register", 0.48746172),
    ],
)
def test_levels(level: Level, name: str, expected: float) -> None:
    assert price(Estimator(name), size_of_level(level), "here") == pytest.approx(expected, rel=1e-12)


def test_compute() -> None:
    assert ESTIMATORS["timeloop-multiplier"]({"bits": 8}) == 0.25
    assert ESTIMATORS["dosa-mac"]({}) == 0.5608


def test_parameters_overrule_the_component() -> None:
    assert price(Estimator("timeloop-dram", {"word_bits": 16}), size_of_level(Level("DRAM")), "here") == 200.0


def test_every_estimator_states_its_source() -> None:
    for name, function in ESTIMATORS.items():
        if name == "free":
            continue
        assert function.__doc__, name
        assert any(origin in function.__doc__ for origin in ("Timeloop", "DOSA", "Accelergy")), name


def test_unknown_names_and_missing_sizes_are_errors() -> None:
    def problem(energy: Estimator) -> ln.Problem:
        architecture = Architecture(
            "a", Compute("MAC", 1), (Level("DRAM", keeps=nests.TENSORS, read_energy_pj=energy, fill_energy_pj=1.0),)
        )
        return ln.Problem(nests.matmul(p=2, c=2, k=2), architecture)

    with pytest.raises(
        InvalidArchitecture, match=r"DRAM.read_energy_pj: estimator 'timeloop-drum' is unknown; did you mean 'timeloop-dram'"
    ):
        problem(Estimator("timeloop-drum"))
    with pytest.raises(InvalidArchitecture, match=r"DRAM.read_energy_pj: estimator 'timeloop-sram' needs 'capacity_words'"):
        problem(Estimator("timeloop-sram"))


def test_a_level_without_energy_is_an_error() -> None:
    op = nests.matmul(p=2, c=2, k=2)
    with pytest.raises(InvalidArchitecture, match=r"DRAM.read_energy_pj: no energy per access .*'free'"):
        ln.Problem(op, Architecture("a", Compute("MAC", 1), (Level("DRAM", keeps=nests.TENSORS),)))
    idealized = Level("DRAM", keeps=nests.TENSORS, read_energy_pj=Estimator("free"))
    assert ln.Problem(op, Architecture("a", Compute("MAC", 1), (idealized,))).prices.read == [0.0]
