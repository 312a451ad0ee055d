"""A TPU-like weight-stationary array: the ``tpu_like`` architecture that ZigZag ships and several tools have been run on.

A ``side x side`` mesh of 8-bit multipliers, output channels on one axis and input channels on the other; each PE has one
16-bit partial sum and around it a weight register file, so that weights rest while outputs come and go; an SRAM for inputs
and outputs (weights bypass it); DRAM with one shared 64-bit port. The energies are ZigZag's inputs for these sizes, so only
numbers that they do not depend on may change.

Partial sums that leave the array count as the SRAM's 8-bit words here, where ZigZag counts 16-bit ones.
"""

from __future__ import annotations

from tilewright.protocol.architecture import (
    Architecture,
    Compute,
    Constraints,
    DesignSpace,
    Level,
    LevelConstraint,
    Parameter,
    SpecialFunctionUnit,
)
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS

SRAM_BITS = 16_777_216
#: Bits of one SRAM access, per cycle and port.
SRAM_ACCESS_BITS = 2048
#: Bits of one DRAM access.
DRAM_ACCESS_BITS = 64
#: pJ of one 32-bit integer addition at 45 nm, charged per scalar operation of a non-linear function.
SCALAR_PJ = 0.1


class TpuLike:
    """Target ``tpu_like``: parameters `side` (of the array) and `dram_words` (per cycle)."""

    def architecture(self, **parameters: int) -> Architecture:
        """The accelerator with these sizes; `InvalidArchitecture` when one is unknown or out of range."""
        sizes = self.design_space().resolve(parameters)
        side = sizes["side"]
        return Architecture(
            name="tpu_like",
            compute=Compute("MAC", side * side, mesh_x=side, mesh_y=side, energy_pj=0.04),
            levels=(
                _register("OutputRegister", OUTPUTS, side, capacity_bits=16, word_bits=16, energy=0.021),
                _register("WeightRegister", WEIGHTS, side, capacity_bits=1024, word_bits=8, energy=0.095),
                Level(
                    "SRAM",
                    capacity_bits=SRAM_BITS,
                    block_words=SRAM_ACCESS_BITS // 8,
                    read_bandwidth=SRAM_ACCESS_BITS // 8,
                    write_bandwidth=SRAM_ACCESS_BITS // 8,
                    keeps=(INPUTS, OUTPUTS),
                    read_energy_pj=416.16,
                    fill_energy_pj=378.4,
                    update_energy_pj=378.4,
                ),
                Level(
                    "DRAM",
                    block_words=DRAM_ACCESS_BITS // 8,
                    shared_bandwidth=sizes["dram_words"],
                    keeps=(WEIGHTS, INPUTS, OUTPUTS),
                    read_energy_pj=700,
                    fill_energy_pj=750,
                    update_energy_pj=750,
                ),
            ),
            special_function_unit=SpecialFunctionUnit(lanes=side, energy_pj=SCALAR_PJ),
            source="ZigZag's tpu_like inputs; the special-function unit is an assumption: one lane per column",
        )

    def design_space(self) -> DesignSpace:
        """The array and the DRAM port: what the given energies do not depend on."""
        return DesignSpace(
            (
                Parameter("side", "PEs per side", low=4, high=256, default=32, step=2, geometric=True),
                Parameter("dram_words", "words/cycle", low=1, high=256, default=8, step=2, geometric=True),
            )
        )

    def constraints(self) -> Constraints:
        """Output channels along one axis of the array, input channels along the other."""
        return Constraints(
            (
                LevelConstraint("OutputRegister", spatial_dims=(), keep=(OUTPUTS,)),
                LevelConstraint("WeightRegister", spatial_dims=(), keep=(WEIGHTS,)),
                LevelConstraint("SRAM", spatial_dims=("K", "C"), keep=(INPUTS, OUTPUTS)),
                LevelConstraint("DRAM", spatial_dims=(), keep=(WEIGHTS, INPUTS, OUTPUTS)),
            )
        )


def _register(name: str, tensor: str, side: int, *, capacity_bits: int, word_bits: int, energy: float) -> Level:
    return Level(
        name,
        capacity_bits=capacity_bits,
        word_bits=word_bits,
        instances=side * side,
        mesh_x=side,
        mesh_y=side,
        keeps=(tensor,),
        read_energy_pj=energy,
        fill_energy_pj=energy,
        update_energy_pj=energy,
    )
