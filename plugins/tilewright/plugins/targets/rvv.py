"""64-bit RISC-V with the vector extension 1.0: code that does not depend on the length of a vector register.

The caches and the vector unit are those of SiFive's X280 (512-bit vector registers, 32 KiB L1, 512 KiB L2, shared L3 of 2 MiB);
lanes are counted for 128-bit registers, the least that the extension allows, and the code runs at any length. Energies
are the 45 nm figures of Horowitz, ISSCC 2014 (FP32 multiply-add 4.6 pJ; 64 bits from a 32 KiB cache 20 pJ, from 1 MiB 100 pJ;
32 bits from DRAM 640 pJ), scaled with the square root of capacity between them.
"""

from __future__ import annotations

import math
from typing import Literal

from tilewright.protocol.architecture import Architecture, Compute, Constraints, DesignSpace, Level, Parameter
from tilewright.protocol.kernel import (
    Cache,
    ElementType,
    Instruction,
    InstructionLibrary,
    InstructionOperand,
    RegisterFile,
    Space,
    Toolchain,
)

WORD_BITS = 32
LANES = 4


class Rvv:
    """Target ``rvv``: parameters `vector_bits`, `l1_kib`, `l2_kib` and `l3_kib`."""

    def architecture(self, **parameters: int) -> Architecture:
        """The core with these sizes, for 32-bit words; `InvalidArchitecture` when one is unknown or out of range."""
        sizes = self.design_space().resolve(parameters)
        words_per_kib = 8192 // WORD_BITS
        lanes = sizes["vector_bits"] // WORD_BITS
        return Architecture(
            name="rvv",
            compute=Compute("FMA", instances=lanes, mesh_x=lanes, bits=WORD_BITS, energy_pj=4.6),
            levels=(
                _level("Registers", 32 * lanes, 3 * lanes, lanes, 0.06),
                _level("L1", sizes["l1_kib"] * words_per_kib, lanes, lanes, 10.0 * math.sqrt(sizes["l1_kib"] / 32)),
                _level("L2", sizes["l2_kib"] * words_per_kib, lanes / 2, lanes / 2, 50.0 * math.sqrt(sizes["l2_kib"] / 1024)),
                _level("L3", sizes["l3_kib"] * words_per_kib, lanes / 4, lanes / 4, 50.0 * math.sqrt(sizes["l3_kib"] / 1024)),
                _level("DRAM", None, 2, 2, 640.0),
            ),
            clock_ghz=1.5,
            source="SiFive X280 product brief; RISC-V vector extension 1.0; Horowitz, ISSCC 2014",
        )

    def design_space(self) -> DesignSpace:
        """Vector and cache sizes."""
        return DesignSpace(
            (
                Parameter("vector_bits", "bits", 128, 2048, 512, step=2, geometric=True),
                Parameter("l1_kib", "KiB", 16, 128, 32, step=2, geometric=True),
                Parameter("l2_kib", "KiB", 128, 4096, 512, step=2, geometric=True),
                Parameter("l3_kib", "KiB", 512, 131072, 2048, step=2, geometric=True),
            )
        )

    def constraints(self) -> Constraints:
        """A mapping may do anything."""
        return Constraints()

    def instructions(self) -> InstructionLibrary:
        """The vector extension for f32, one register per vector."""
        return LIBRARY


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


def _op(
    name: str, space: Space, kind: ElementType = "f32", lanes: int = LANES, written: Literal["in", "out", "inout"] = "in"
) -> InstructionOperand:
    return InstructionOperand(name, space, kind, lanes, written)


def _toolchain(bits: int) -> Toolchain:
    return Toolchain(
        f"qemu-riscv64, {bits}-bit vectors",
        ("clang-19", "clang"),
        ("--target=riscv64-linux-gnu", "-march=rv64gcv", "-O3", "-static"),
        machines=("x86_64", "AMD64", "aarch64"),
        runner=("qemu-riscv64", "-cpu", f"rv64,v=true,vlen={bits},elen=64"),
        needs=("/usr/riscv64-linux-gnu",),
    )


LIBRARY = InstructionLibrary(
    name="rvv",
    lanes={"f32": LANES},
    registers=(
        RegisterFile(
            "vector",
            32,
            {"f32": "vfloat32m1_t"},
            fill="{register} = __riscv_vle32_v_f32m1((const float *)({pointer}), LANES);",
            spill="__riscv_vse32_v_f32m1((float *)({pointer}), {register}, LANES);",
        ),
        # A count of lanes, for the vector length register.
        RegisterFile("mask", 8, {"i32": "size_t"}),
    ),
    instructions=(
        Instruction("zero", (_op("dst", "vector", written="out"),), "dst[i] = 0", "{dst} = __riscv_vfmv_v_f_f32m1(0.0f, LANES);"),
        Instruction(
            "load",
            (_op("dst", "vector", written="out"), _op("src", "memory")),
            "dst[i] = src[i]",
            "{dst} = __riscv_vle32_v_f32m1({src}, LANES);",
            latency=5,
        ),
        Instruction(
            "store",
            (_op("dst", "memory", written="out"), _op("src", "vector")),
            "dst[i] = src[i]",
            "__riscv_vse32_v_f32m1({dst}, {src}, LANES);",
        ),
        Instruction(
            "fma_scalar",
            (_op("acc", "vector", written="inout"), _op("a", "memory", lanes=1), _op("b", "vector")),
            "acc[i] = fma(a[0], b[i], acc[i])",
            "{acc} = __riscv_vfmacc_vf_f32m1({acc}, *({a}), {b}, LANES);",
            latency=4,
        ),
        Instruction(
            "add",
            (_op("acc", "vector", written="inout"), _op("a", "vector")),
            "acc[i] = acc[i] + a[i]",
            "{acc} = __riscv_vfadd_vv_f32m1({acc}, {a}, LANES);",
            latency=4,
        ),
        Instruction(
            "first_lanes",
            (_op("count", "mask", "i32", written="out"), InstructionOperand("n", "scalar")),
            "count[i] = i < n",
            "{count} = (size_t)({n});",
            requires=("0 <= n",),
        ),
        Instruction(
            "load_first",
            (_op("dst", "vector", written="out"), _op("src", "memory"), _op("count", "mask", "i32")),
            "dst[i] = src[i] if count[i] else any",
            "{dst} = __riscv_vle32_v_f32m1({src}, {count});",
            latency=5,
        ),
        Instruction(
            "store_first",
            (_op("dst", "memory", written="inout"), _op("src", "vector"), _op("count", "mask", "i32")),
            "dst[i] = src[i] if count[i] else dst[i]",
            "__riscv_vse32_v_f32m1({dst}, {src}, {count});",
        ),
    ),
    headers=("riscv_vector.h",),
    scalable="__riscv_vsetvlmax_e32m1()",
    toolchains=(
        Toolchain("native", ("clang", "gcc", "cc"), ("-march=rv64gcv", "-O3"), machines=("riscv64",)),
        _toolchain(128),
        _toolchain(256),
    ),
    caches=(Cache("L1", 32 * 1024, 8), Cache("L2", 512 * 1024, 8), Cache("L3", 2048 * 1024, 16)),
)
