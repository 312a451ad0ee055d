"""Simba as CoSA's published configuration has it (https://github.com/ucb-bar/cosa, BSD-2-Clause, ``simba.yaml``).

A global buffer over PEs; each PE has an input buffer over eight lanes; each lane a weight buffer, an accumulation buffer
and an eight-wide vector of multipliers with a one-word weight register each. Energies are Timeloop's built-in ones. Only
DRAM has a limited bandwidth (20 words per cycle, half for reads and half for writes), and the network costs nothing:
that is how CoSA is evaluated, not how Simba was built.
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
    SpecialFunctionUnit,
)
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS

LANES = 8
VECTOR = 8
#: Words of a block access of the weight, input and global buffers, and of DRAM.
BLOCK, DRAM_BLOCK = 8, 64
DRAM_WORDS_PER_CYCLE = 20
#: pJ of one 32-bit integer addition at 45 nm, charged per scalar operation of a non-linear function.
SCALAR_PJ = 0.1


class Simba:
    """Target ``simba``: parameters `pes` and the sizes of the four buffers."""

    def architecture(self, **parameters: int) -> Architecture:
        """The accelerator with these sizes; `InvalidArchitecture` when one is unknown or out of range."""
        sizes = self.design_space().resolve(parameters)
        pes = sizes["pes"]
        lanes = pes * LANES
        macs = lanes * VECTOR
        return Architecture(
            name="simba",
            compute=Compute("MAC", macs, mesh_x=macs, energy_pj=Estimator("timeloop-multiplier")),
            levels=(
                _sram("Registers", (WEIGHTS,), capacity_bits=8, instances=macs, cluster_size=LANES * VECTOR),
                _sram(
                    "AccumulationBuffer",
                    (OUTPUTS,),
                    capacity_bits=24 * sizes["accumulation_words"],
                    word_bits=24,
                    instances=lanes,
                    cluster_size=LANES,
                ),
                _sram("WeightBuffer", (WEIGHTS,), capacity_bits=8192 * sizes["weight_kib"], block_words=BLOCK, instances=lanes),
                _sram("InputBuffer", (INPUTS,), capacity_bits=8192 * sizes["input_kib"], block_words=BLOCK, instances=pes),
                _sram("GlobalBuffer", (INPUTS, OUTPUTS), capacity_bits=8192 * sizes["global_kib"], block_words=BLOCK, instances=1),
                Level(
                    "DRAM",
                    block_words=DRAM_BLOCK,
                    read_bandwidth=DRAM_WORDS_PER_CYCLE / 2,
                    write_bandwidth=DRAM_WORDS_PER_CYCLE / 2,
                    keeps=(WEIGHTS, INPUTS, OUTPUTS),
                    read_energy_pj=Estimator("timeloop-dram"),
                    fill_energy_pj=Estimator("timeloop-dram"),
                    update_energy_pj=Estimator("timeloop-dram"),
                ),
            ),
            special_function_unit=SpecialFunctionUnit(lanes=LANES, energy_pj=SCALAR_PJ),
            source="ucb-bar/cosa simba.yaml with Timeloop's built-in energies; the special-function unit is an assumption",
        )

    def design_space(self) -> DesignSpace:
        """A quarter to sixteen times the published PEs, and buffers from an eighth to eight times theirs."""
        return DesignSpace(
            (
                Parameter("pes", "PEs", low=4, high=256, default=16, step=2, geometric=True),
                Parameter("accumulation_words", "24-bit words per lane", low=8, high=512, default=64, step=2, geometric=True),
                Parameter("weight_kib", "KiB per lane", low=2, high=128, default=16, step=2, geometric=True),
                Parameter("input_kib", "KiB per PE", low=1, high=32, default=4, step=2, geometric=True),
                Parameter("global_kib", "KiB", low=8, high=512, default=64, step=2, geometric=True),
            )
        )

    def constraints(self) -> Constraints:
        """Any dim may be spatial wherever there is a fan-out. Buffers hold no tensors but their own; these may bypass them."""
        return Constraints(tuple(LevelConstraint(name, spatial_dims=()) for name in ("Registers", "WeightBuffer", "DRAM")))


def _sram(
    name: str,
    keeps: tuple[str, ...],
    *,
    capacity_bits: int,
    instances: int,
    word_bits: int = 8,
    block_words: int = 1,
    cluster_size: int = 1,
) -> Level:
    energy = Estimator("timeloop-sram")
    return Level(
        name,
        capacity_bits=capacity_bits,
        word_bits=word_bits,
        block_words=block_words,
        instances=instances,
        mesh_x=instances,
        cluster_size=cluster_size,
        keeps=keeps,
        may_keep=keeps,
        read_energy_pj=energy,
        fill_energy_pj=energy,
        update_energy_pj=energy,
    )
