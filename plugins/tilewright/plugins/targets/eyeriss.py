"""An Eyeriss-like row-stationary array: the sizes of Timeloop's ``eyeriss-256`` example.

A ``columns x rows`` mesh of 16-bit PEs, each with separate register files for partial sums, weights and inputs, under a
global buffer for inputs and outputs. The energies only keep the ratios of the Eyeriss paper (ISCA 2016: register file 1,
buffer 6 per word, DRAM 200); they are not a technology's, so no memory size may change with them. The area is that of the
chip (JSSC 2017: 3.5 x 3.5 mm2 of core in 65 nm, 168 PEs), in proportion to the PEs, their share of the buffer included.
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

WORD_BITS = 16
#: Words of a block access of the global buffer and of DRAM.
BLOCK = 4
#: Words of each register file per PE.
PARTIAL_SUMS, FILTER_WORDS, INPUT_WORDS = 16, 192, 12
GLOBAL_WORDS = 65536
#: mm2 per PE in 65 nm.
PE_MM2 = 3.5 * 3.5 / 168
#: Scalar operation of a non-linear function, in units of a multiply-accumulate.
SCALAR_PJ = 1.0


class Eyeriss:
    """Target ``eyeriss``: parameters `columns` and `rows` of the array and `dram_words` (per cycle and direction)."""

    def architecture(self, **parameters: int) -> Architecture:
        """The accelerator with these sizes; `InvalidArchitecture` when one is unknown or out of range."""
        sizes = self.design_space().resolve(parameters)
        columns, rows = sizes["columns"], sizes["rows"]
        pes = columns * rows
        return Architecture(
            name="eyeriss",
            compute=Compute("MAC", pes, mesh_x=columns, mesh_y=rows, bits=WORD_BITS, energy_pj=1.0, area_mm2=PE_MM2),
            levels=(
                _register_file("PsumRegFile", OUTPUTS, columns, rows, PARTIAL_SUMS, (0.9, 0.8, 1.1)),
                _register_file("WeightRegFile", WEIGHTS, columns, rows, FILTER_WORDS, (1.0, 1.2, 1.2)),
                _register_file("InputRegFile", INPUTS, columns, rows, INPUT_WORDS, (0.7, 0.75, 0.75)),
                _memory("GlobalBuffer", (INPUTS, OUTPUTS), GLOBAL_WORDS * WORD_BITS, 16, (24.0, 28.0, 28.0)),
                _memory("DRAM", (WEIGHTS, INPUTS, OUTPUTS), None, sizes["dram_words"], (800.0, 820.0, 820.0)),
            ),
            special_function_unit=SpecialFunctionUnit(lanes=columns, energy_pj=SCALAR_PJ),
            source="sizes of Timeloop's eyeriss-256, energies in Eyeriss-like ratios, area of JSSC 2017; special-function unit assumed",
        )

    def design_space(self) -> DesignSpace:
        """The array and the DRAM port: what the given energies do not depend on."""
        return DesignSpace(
            (
                Parameter("columns", "PEs", low=2, high=64, default=16, step=2, geometric=True),
                Parameter("rows", "PEs", low=2, high=64, default=16, step=2, geometric=True),
                Parameter("dram_words", "words/cycle", low=1, high=64, default=4, step=2, geometric=True),
            )
        )

    def constraints(self) -> Constraints:
        """Row stationary: filter rows and output rows spread over the array, repeated over channels."""
        return Constraints(
            (
                LevelConstraint("PsumRegFile", spatial_dims=(), keep=(OUTPUTS,)),
                LevelConstraint("WeightRegFile", spatial_dims=(), keep=(WEIGHTS,)),
                LevelConstraint("InputRegFile", spatial_dims=(), keep=(INPUTS,)),
                LevelConstraint("GlobalBuffer", spatial_dims=("S", "Q", "C", "K"), keep=(INPUTS, OUTPUTS)),
                LevelConstraint("DRAM", spatial_dims=(), keep=(WEIGHTS, INPUTS, OUTPUTS)),
            )
        )


def _register_file(name: str, tensor: str, columns: int, rows: int, words: int, energy: tuple[float, float, float]) -> Level:
    return Level(
        name,
        capacity_bits=words * WORD_BITS,
        word_bits=WORD_BITS,
        instances=columns * rows,
        mesh_x=columns,
        mesh_y=rows,
        read_bandwidth=2,
        write_bandwidth=2,
        keeps=(tensor,),
        read_energy_pj=energy[0],
        fill_energy_pj=energy[1],
        update_energy_pj=energy[2],
    )


def _memory(name: str, keeps: tuple[str, ...], capacity_bits: int | None, bandwidth: int, energy: tuple[float, float, float]) -> Level:
    return Level(
        name,
        capacity_bits=capacity_bits,
        word_bits=WORD_BITS,
        block_words=BLOCK,
        read_bandwidth=bandwidth,
        write_bandwidth=bandwidth,
        keeps=keeps,
        read_energy_pj=energy[0],
        fill_energy_pj=energy[1],
        update_energy_pj=energy[2],
    )
