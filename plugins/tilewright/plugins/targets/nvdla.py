"""NVDLA as DOSA's baselines describe it: a convolution buffer over accumulators over lanes that reduce input channels.

``nvdla_small`` has 8 x 8 lanes and 128 KiB, ``nvdla_large`` 64 x 16 lanes and 512 KiB (input channels x output channels),
accumulators of 512 and 256 double-buffered words per output channel, reads and writes of 64 + 64 and 128 + 64 bytes per
cycle, and 8 bytes per cycle from DRAM (ucb-bar/dosa, BSD-2-Clause, ``dataset/hw/nvdla``). Channels may be spatial as
NVDLA has them; loop factors and orders are free, so a result here is at least as good as the accelerator's own schedule.

Energies are DOSA's fits at 40 nm, so that figures compare with ``gemmini``; the accelerator's own technology differs.
Areas are NVIDIA's synthesis estimates at 28 nm, all memories included (nvdla.org primer): 0.91 mm2 for 64 MACs and 128 KB. For
1,024 MACs the published 3.0 mm2 have 256 KB; the other 256 KB are taken as 0.68 mm2, by the difference of the rows
with 64 and with 128 MACs less their MACs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tilewright.protocol.architecture import (
    Architecture,
    Compute,
    Constraints,
    DesignSpace,
    Estimator,
    Level,
    LevelConstraint,
    SpecialFunctionUnit,
)
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS

KIB = 1024
#: pJ of one 32-bit integer addition at 45 nm, charged per scalar operation of a non-linear function.
SCALAR_PJ = 0.1


@dataclass(frozen=True)
class _Sizes:
    name: str
    #: Lanes along input and output channels.
    inputs: int
    outputs: int
    buffer_kib: int
    partial_sums: int
    read_bytes: int
    write_bytes: int
    area_mm2: float


class _Nvdla:
    """One published configuration: nothing about it may change."""

    _sizes: _Sizes

    def architecture(self, **parameters: int) -> Architecture:
        """The accelerator; `InvalidArchitecture` for any parameter."""
        self.design_space().resolve(parameters)
        s = self._sizes
        lanes = s.inputs * s.outputs
        return Architecture(
            name=s.name,
            compute=Compute("MAC", lanes, mesh_x=lanes, energy_pj=Estimator("dosa-mac"), area_mm2=s.area_mm2 / lanes),
            levels=(
                _level("Registers", "dosa-register", (WEIGHTS,), capacity_bits=8, instances=lanes, mesh_x=lanes),
                _level(
                    "Accumulator",
                    "dosa-accumulator",
                    (OUTPUTS,),
                    capacity_bits=32 * s.partial_sums,
                    word_bits=32,
                    multiple_buffering=2,
                    instances=s.outputs,
                    mesh_x=s.outputs,
                ),
                _level(
                    "ConvolutionBuffer",
                    "dosa-scratchpad",
                    (WEIGHTS, INPUTS),
                    capacity_bits=8 * s.buffer_kib * KIB,
                    read_bandwidth=s.read_bytes,
                    write_bandwidth=s.write_bytes,
                ),
                _level("DRAM", "dosa-dram", (WEIGHTS, INPUTS, OUTPUTS), block_words=64, shared_bandwidth=8),
            ),
            special_function_unit=SpecialFunctionUnit(lanes=s.outputs, energy_pj=SCALAR_PJ),
            source="ucb-bar/dosa dataset/hw/nvdla; energies fitted at 40 nm, area of nvdla.org's primer at 28 nm",
        )

    def design_space(self) -> DesignSpace:
        """Empty: a baseline."""
        return DesignSpace()

    def constraints(self) -> Constraints:
        """Input channels are reduced below the accumulators, output channels spread over them."""
        return Constraints(
            (
                LevelConstraint("Registers", spatial_dims=(), keep=(WEIGHTS,)),
                LevelConstraint("Accumulator", spatial_dims=("C",), keep=(OUTPUTS,)),
                LevelConstraint("ConvolutionBuffer", spatial_dims=("K",), keep=(WEIGHTS, INPUTS)),
                LevelConstraint("DRAM", spatial_dims=(), keep=(WEIGHTS, INPUTS, OUTPUTS)),
            )
        )


class NvdlaSmall(_Nvdla):
    """Target ``nvdla_small``."""

    _sizes = _Sizes("nvdla_small", 8, 8, 128, 512, 64, 64, 0.91)


class NvdlaLarge(_Nvdla):
    """Target ``nvdla_large``."""

    _sizes = _Sizes("nvdla_large", 64, 16, 512, 256, 128, 64, 3.0 + 0.68)


def _level(name: str, estimator: str, keeps: tuple[str, ...], **fields: Any) -> Level:
    energy = Estimator(estimator)
    return Level(name, keeps=keeps, read_energy_pj=energy, fill_energy_pj=energy, update_energy_pj=energy, **fields)
