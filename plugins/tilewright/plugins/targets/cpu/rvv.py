"""64-bit RISC-V with the vector extension 1.0: code that does not depend on the length of a vector register.

The caches and the vector unit are those of SiFive's X280 (512-bit vector registers, 32 KiB L1, 512 KiB L2, shared L3 of 2 MiB);
lanes are counted for 128-bit registers, the least that the extension allows, and the code runs at any length.
"""

from __future__ import annotations

from collections.abc import Mapping

from tilewright.protocol.architecture import Parameter
from tilewright.protocol.kernel import (
    Cache,
    Instruction,
    InstructionLibrary,
    InstructionOperand,
    RegisterFile,
    Toolchain,
)

from . import core
from .core import operand

LANES = 4


def _toolchain(bits: int) -> Toolchain:
    return Toolchain(
        f"qemu-riscv64, {bits}-bit vectors",
        ("clang-19", "clang"),
        ("--target=riscv64-linux-gnu", "-march=rv64gcv", "-O3", "-fno-trapping-math", "-static"),
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
        Instruction("zero", (operand("dst", "vector", "f32", LANES, "out"),), "dst[i] = 0", "{dst} = __riscv_vfmv_v_f_f32m1(0.0f, LANES);"),
        Instruction(
            "load",
            (operand("dst", "vector", "f32", LANES, "out"), operand("src", "memory", "f32", LANES)),
            "dst[i] = src[i]",
            "{dst} = __riscv_vle32_v_f32m1({src}, LANES);",
            latency=5,
        ),
        Instruction(
            "store",
            (operand("dst", "memory", "f32", LANES, "out"), operand("src", "vector", "f32", LANES)),
            "dst[i] = src[i]",
            "__riscv_vse32_v_f32m1({dst}, {src}, LANES);",
        ),
        Instruction(
            "fma_scalar",
            (operand("acc", "vector", "f32", LANES, "inout"), operand("a", "memory", "f32", 1), operand("b", "vector", "f32", LANES)),
            "acc[i] = fma(a[0], b[i], acc[i])",
            "{acc} = __riscv_vfmacc_vf_f32m1({acc}, *({a}), {b}, LANES);",
            latency=4,
        ),
        Instruction(
            "add",
            (operand("acc", "vector", "f32", LANES, "inout"), operand("a", "vector", "f32", LANES)),
            "acc[i] = acc[i] + a[i]",
            "{acc} = __riscv_vfadd_vv_f32m1({acc}, {a}, LANES);",
            latency=4,
        ),
        Instruction(
            "first_lanes",
            (operand("count", "mask", "i32", LANES, "out"), InstructionOperand("n", "scalar")),
            "count[i] = i < n",
            "{count} = (size_t)({n});",
            requires=("0 <= n",),
        ),
        Instruction(
            "load_first",
            (
                operand("dst", "vector", "f32", LANES, "out"),
                operand("src", "memory", "f32", LANES),
                operand("count", "mask", "i32", LANES),
            ),
            "dst[i] = src[i] if count[i] else any",
            "{dst} = __riscv_vle32_v_f32m1({src}, {count});",
            latency=5,
        ),
        Instruction(
            "store_first",
            (
                operand("dst", "memory", "f32", LANES, "inout"),
                operand("src", "vector", "f32", LANES),
                operand("count", "mask", "i32", LANES),
            ),
            "dst[i] = src[i] if count[i] else dst[i]",
            "__riscv_vse32_v_f32m1({dst}, {src}, {count});",
        ),
    ),
    headers=("riscv_vector.h",),
    scalable="__riscv_vsetvlmax_e32m1()",
    toolchains=(
        Toolchain("native", ("clang", "gcc", "cc"), ("-march=rv64gcv", "-O3", "-fno-trapping-math"), machines=("riscv64",)),
        _toolchain(128),
        _toolchain(256),
    ),
    caches=(Cache("L1", 32 * 1024, 8), Cache("L2", 512 * 1024, 8), Cache("L3", 2048 * 1024, 16)),
)


class Rvv(core.Core):
    """Target ``rvv``: parameters `vector_bits`, `l1_kib`, `l2_kib` and `l3_kib`."""

    name = "rvv"
    lanes = LANES
    fmas_per_cycle = 1
    vectors = 32
    clock_ghz = 1.5
    source = "SiFive X280 product brief; RISC-V vector extension 1.0"
    sizes = (32, 512, 2048)
    least = (128, 512)
    l1_writes = 1
    more = (Parameter("vector_bits", "bits", 128, 2048, 512, step=2, geometric=True),)
    library = LIBRARY

    def lanes_of(self, sizes: Mapping[str, int]) -> int:
        """Words of a vector with these parameters."""
        return sizes["vector_bits"] // core.WORD_BITS
