"""A core with three caches as an architecture, and what its instruction operands look like.

Energies are the 45 nm figures of Horowitz, ISSCC 2014 (FP32 multiply-add 4.6 pJ; 64 bits from a 32 KiB cache 20 pJ, from 1 MiB
100 pJ; 32 bits from DRAM 640 pJ), scaled with the square root of capacity between and beyond them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from tilewright.protocol.architecture import Architecture, Compute, DesignSpace, Level, Parameter
from tilewright.protocol.kernel import ElementType, InstructionOperand, Space

WORD_BITS = 32
_HOROWITZ = "Horowitz, ISSCC 2014"


def architecture(
    name: str,
    sizes: Mapping[str, int],
    *,
    lanes: int,
    fmas_per_cycle: int,
    vectors: int,
    clock_ghz: float,
    source: str,
    l1_writes: float = 0.5,
) -> Architecture:
    """One core for 32-bit words.

    `sizes` has l1_kib, l2_kib and l3_kib; `lanes` are words of a vector, `vectors` registers. Words per cycle follow the words that
    its multiply-adds take (`F`): registers 3 F, L1 F (writes `l1_writes` F), L2 F/2, L3 F/4.
    """
    words = lanes * fmas_per_cycle
    per_kib = 8192 // WORD_BITS
    l1, l2, l3 = (sizes[f"l{level}_kib"] for level in (1, 2, 3))
    return Architecture(
        name=name,
        compute=Compute("FMA", instances=words, mesh_x=lanes, mesh_y=fmas_per_cycle, bits=WORD_BITS, energy_pj=4.6),
        levels=(
            _level("Registers", vectors * lanes, 3 * words, words, 0.06),
            _level("L1", l1 * per_kib, words, words * l1_writes, 10.0 * math.sqrt(l1 / 32)),
            _level("L2", l2 * per_kib, words / 2, words / 2, 50.0 * math.sqrt(l2 / 1024)),
            _level("L3", l3 * per_kib, words / 4, words / 4, 50.0 * math.sqrt(l3 / 1024)),
            _level("DRAM", None, 2, 2, 640.0),
        ),
        clock_ghz=clock_ghz,
        source=f"{source}; {_HOROWITZ}",
    )


def design_space(l1: int, l2: int, l3: int, *more: Parameter, least_l2: int = 256, least_l3: int = 2048) -> DesignSpace:
    """Cache sizes in KiB around the given ones, and further parameters."""
    return DesignSpace(
        (
            *more,
            Parameter("l1_kib", "KiB", 16, 128, l1, step=2, geometric=True),
            Parameter("l2_kib", "KiB", least_l2, 4096, l2, step=2, geometric=True),
            Parameter("l3_kib", "KiB", least_l3, 131072, l3, step=2, geometric=True),
        )
    )


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
