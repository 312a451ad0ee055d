"""A core with three caches as an architecture, and what its instruction operands look like.

Energies are the 45 nm figures of Horowitz, ISSCC 2014 (FP32 multiply-add 4.6 pJ; 64 bits from a 32 KiB cache 20 pJ, from 1 MiB
100 pJ; 32 bits from DRAM 640 pJ), scaled with the square root of capacity between and beyond them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

from tilewright.protocol.architecture import Architecture, Compute, Constraints, DesignSpace, Level, Parameter
from tilewright.protocol.kernel import ElementType, InstructionLibrary, InstructionOperand, Space

WORD_BITS = 32
_HOROWITZ = "Horowitz, ISSCC 2014"


class Core:
    """A target; subclasses say what it has."""

    name: ClassVar[str]
    #: Words of a vector, multiply-adds of whole vectors per cycle, vector registers.
    lanes: ClassVar[int]
    fmas_per_cycle: ClassVar[int]
    vectors: ClassVar[int]
    clock_ghz: ClassVar[float]
    source: ClassVar[str]
    #: L1, L2 and L3 in KiB, and the least that the last two may become.
    sizes: ClassVar[tuple[int, int, int]]
    least: ClassVar[tuple[int, int]] = (256, 2048)
    #: Words that L1 takes per cycle, as a share of those it gives.
    l1_writes: ClassVar[float] = 0.5
    #: Parameters besides cache sizes.
    more: ClassVar[tuple[Parameter, ...]] = ()
    library: ClassVar[InstructionLibrary]

    def architecture(self, **parameters: int) -> Architecture:
        """The core with these cache sizes, for 32-bit words; `InvalidArchitecture` when one is unknown or out of range.

        Words per cycle follow the words that its multiply-adds take (`F`): registers 3 F, L1 F, L2 F/2, L3 F/4.
        """
        sizes = self.design_space().resolve(parameters)
        lanes = self.lanes_of(sizes)
        words = lanes * self.fmas_per_cycle
        per_kib = 8192 // WORD_BITS
        l1, l2, l3 = (sizes[f"l{level}_kib"] for level in (1, 2, 3))
        return Architecture(
            name=self.name,
            compute=Compute("FMA", instances=words, mesh_x=lanes, mesh_y=self.fmas_per_cycle, bits=WORD_BITS, energy_pj=4.6),
            levels=(
                _level("Registers", self.vectors * lanes, 3 * words, words, 0.06),
                _level("L1", l1 * per_kib, words, words * self.l1_writes, 10.0 * math.sqrt(l1 / 32)),
                _level("L2", l2 * per_kib, words / 2, words / 2, 50.0 * math.sqrt(l2 / 1024)),
                _level("L3", l3 * per_kib, words / 4, words / 4, 50.0 * math.sqrt(l3 / 1024)),
                _level("DRAM", None, 2, 2, 640.0),
            ),
            clock_ghz=self.clock_ghz,
            source=f"{self.source}; {_HOROWITZ}",
        )

    def lanes_of(self, sizes: Mapping[str, int]) -> int:
        """Words of a vector with these parameters."""
        return self.lanes

    def design_space(self) -> DesignSpace:
        """Cache sizes, and what else may change."""
        (l1, l2, l3), (least_l2, least_l3) = self.sizes, self.least
        return DesignSpace(
            (
                *self.more,
                Parameter("l1_kib", "KiB", 16, 128, l1, step=2, geometric=True),
                Parameter("l2_kib", "KiB", least_l2, 4096, l2, step=2, geometric=True),
                Parameter("l3_kib", "KiB", least_l3, 131072, l3, step=2, geometric=True),
            )
        )

    def constraints(self) -> Constraints:
        """A mapping may do anything."""
        return Constraints()

    def instructions(self) -> InstructionLibrary:
        """What the kernel emitters may use."""
        return self.library


def operand(name: str, space: Space, kind: ElementType, lanes: int, access: Literal["in", "out", "inout"] = "in") -> InstructionOperand:
    """An operand of an instruction."""
    return InstructionOperand(name, space, kind, lanes, access)


def _level(name: str, words: int | None, read: float, write: float, energy_pj: float) -> Level:
    return Level(
        name,
        capacity_bits=None if words is None else words * WORD_BITS,
        word_bits=WORD_BITS,
        read_bandwidth=read,
        write_bandwidth=write,
        keeps=("Weights", "Inputs", "Outputs"),
        read_energy_pj=energy_pj,
        fill_energy_pj=energy_pj,
        update_energy_pj=energy_pj,
    )
