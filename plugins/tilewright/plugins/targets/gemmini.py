"""Gemmini as DOSA models it: a square weight-stationary array under an accumulator and a scratchpad.

Sizes follow from three numbers, as in DOSA (https://github.com/ucb-bar/dosa, BSD-2-Clause, ``gemmini/arch``): the array
is ``pe x pe``; the accumulator is one bank of 32-bit words per column; the scratchpad reads and writes rows of ``pe``
bytes; DRAM moves 8 words per cycle. The energies are DOSA's fits to Accelergy and CACTI at 40 nm, the areas our fit to
the same tools' (`loopnest.estimators`). The defaults are those of Gemmini's own default configuration: 16 x 16, 256 KiB,
64 KiB; their area in Gemmini's floor plan (DAC 2021, figure 6, 22 nm) is 0.116 + 0.544 + 0.146 mm2.

What it does not model: the single port of a scratchpad bank, instruction issue, DMA latency (a cycle-level simulator's
business), and leakage.
"""

from __future__ import annotations

from tilewright.protocol.architecture import (
    Architecture,
    Compute,
    Constraints,
    DesignSpace,
    Estimator,
    Level,
    LevelConstraint,
    Parameter,
    Price,
    SpecialFunctionUnit,
)
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS

KIB = 1024
#: pJ of one 32-bit integer addition at 45 nm, charged per scalar operation of a non-linear function.
SCALAR_PJ = 0.1


class Gemmini:
    """Target ``gemmini``: parameters `pe` (side of the array), `scratchpad_kib` and `accumulator_kib`."""

    def architecture(self, **parameters: int) -> Architecture:
        """The accelerator with these sizes; `InvalidArchitecture` when one is unknown or out of range."""
        sizes = self.design_space().resolve(parameters)
        pe, scratchpad, accumulator = sizes["pe"], sizes["scratchpad_kib"], sizes["accumulator_kib"]
        rows = -(-scratchpad * KIB // pe)
        partial_sums = -(-accumulator * KIB // (4 * pe))
        return Architecture(
            name="gemmini",
            compute=Compute("MAC", pe * pe, mesh_x=pe * pe, energy_pj=Estimator("dosa-mac"), area_mm2=Estimator("accelergy-pe-area")),
            levels=(
                _level("Registers", "dosa-register", (WEIGHTS,), capacity_bits=8, instances=pe * pe, mesh_x=pe * pe),
                _level(
                    "Accumulator",
                    "dosa-accumulator",
                    (OUTPUTS,),
                    capacity_bits=32 * partial_sums,
                    word_bits=32,
                    instances=pe,
                    mesh_x=pe,
                    shared_bandwidth=2,
                    area_mm2=Estimator("accelergy-accumulator-area"),
                ),
                _level(
                    "Scratchpad",
                    "dosa-scratchpad",
                    (WEIGHTS, INPUTS),
                    capacity_bits=8 * rows * pe,
                    block_words=pe,
                    shared_bandwidth=2 * pe,
                    area_mm2=Estimator("accelergy-scratchpad-area"),
                ),
                _level("DRAM", "dosa-dram", (WEIGHTS, INPUTS, OUTPUTS), block_words=64, shared_bandwidth=8),
            ),
            special_function_unit=SpecialFunctionUnit(lanes=pe, energy_pj=SCALAR_PJ),
            source="ucb-bar/dosa gemmini/arch; areas fitted to Accelergy at 40 nm; one special-function lane per column",
        )

    def design_space(self) -> DesignSpace:
        """The limits within which DOSA draws hardware."""
        return DesignSpace(
            (
                Parameter("pe", "PEs per side", low=2, high=128, default=16),
                Parameter("scratchpad_kib", "KiB", low=1, high=2048, default=256),
                Parameter("accumulator_kib", "KiB", low=1, high=2048, default=64),
            )
        )

    def constraints(self) -> Constraints:
        """Input channels go down the rows (reduced into the accumulator), output channels across the columns."""
        return Constraints(
            (
                LevelConstraint("Registers", spatial_dims=(), keep=(WEIGHTS,)),
                LevelConstraint("Accumulator", spatial_dims=("C",), keep=(OUTPUTS,)),
                LevelConstraint("Scratchpad", spatial_dims=("K",), keep=(WEIGHTS, INPUTS)),
                LevelConstraint("DRAM", spatial_dims=(), keep=(WEIGHTS, INPUTS, OUTPUTS)),
            )
        )


def _level(name: str, estimator: str, keeps: tuple[str, ...], **fields: Price) -> Level:
    energy = Estimator(estimator)
    return Level(name, keeps=keeps, read_energy_pj=energy, fill_energy_pj=energy, update_energy_pj=energy, **fields)  # type: ignore[arg-type]
