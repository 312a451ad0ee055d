"""64-bit Arm with Neon: one core of the kind that the micro-kernel generation paper measured on, NVIDIA's Carmel.

Caches (64 KiB / 4 ways, 2 MiB / 16 ways, 4 MiB / 16 ways) and the two 128-bit FMAs per cycle at 2.265 GHz are those of the
paper's machine (Jetson AGX Xavier); FMA latency is that of Arm's Cortex-A76 optimization guide.
"""

from __future__ import annotations

from tilewright.protocol.kernel import (
    Cache,
    ElementType,
    Instruction,
    InstructionLibrary,
    InstructionOperand,
    RegisterFile,
    Toolchain,
)

from . import core
from .core import operand

LANES = 4


def _arithmetic(kind: ElementType, lanes: int, suffix: str) -> tuple[Instruction, ...]:
    """All that a kernel of one float type needs. Neon has no masks: a count of lanes takes their place, for edges only."""
    out, inout = operand("dst", "vector", kind, lanes, "out"), operand("acc", "vector", kind, lanes, "inout")
    src, mask = operand("src", "memory", kind, lanes), operand("count", "mask", "i32", lanes)
    to, partly = operand("dst", "memory", kind, lanes, "out"), operand("dst", "memory", kind, lanes, "inout")
    vector, a, b = (operand(name, "vector", kind, lanes) for name in ("src", "a", "b"))
    word, lane, n = operand("src", "memory", kind, 1), InstructionOperand("lane", "immediate"), InstructionOperand("n", "scalar")
    # (name, operands, semantics, template, latency, per cycle). `vfmaq`, never `vmlaq`, which compilers may issue as two instructions.
    table: tuple[tuple[str, tuple[InstructionOperand, ...], str, str, int, float], ...] = (
        ("zero", (out,), "dst[i] = 0", "{dst} = vdupq_n_$(0);", 2, 2),
        ("load", (out, src), "dst[i] = src[i]", "{dst} = vld1q_$({src});", 5, 2),
        ("store", (to, vector), "dst[i] = src[i]", "vst1q_$({dst}, {src});", 1, 1),
        ("broadcast", (out, word), "dst[i] = src[0]", "{dst} = vld1q_dup_$({src});", 7, 2),
        ("fma", (inout, a, b), "acc[i] = fma(a[i], b[i], acc[i])", "{acc} = vfmaq_$({acc}, {a}, {b});", 4, 2),
        ("fma_lane", (inout, a, b, lane), "acc[i] = fma(a[lane], b[i], acc[i])", "{acc} = vfmaq_laneq_$({acc}, {b}, {a}, {lane});", 4, 2),
        ("add", (inout, a), "acc[i] = acc[i] + a[i]", "{acc} = vaddq_$({acc}, {a});", 2, 2),
        ("first", (operand("count", "mask", "i32", lanes, "out"), n), "count[i] = i < n", "{count} = (int)({n});", 1, 1),
        ("load_first", (out, src, mask), "dst[i] = src[i] if count[i] else 0", "{dst} = tw_load_$({src}, {count});", 12, 1),
        ("store_first", (partly, vector, mask), "dst[i] = src[i] if count[i] else dst[i]", "tw_store_$({dst}, {src}, {count});", 12, 1),
    )
    limits = {"lane": (f"0 <= lane < {lanes}",), "n": (f"0 <= n <= {lanes}",)}
    return tuple(
        Instruction(
            f"{name}_{kind}",
            operands,
            semantics,
            template.replace("$", suffix),
            tuple(limit for each in operands for limit in limits.get(each.name, ())),
            latency,
            per_cycle,
        )
        for name, operands, semantics, template, latency, per_cycle in table
    )


def _partial(suffix: str, element: str, vector: str, lanes: int) -> str:
    return f"""static inline {vector} tw_load_{suffix}(const {element} *from, int count) {{
    {element} all[{lanes}] = {{0}};
    for (int i = 0; i < count; ++i) all[i] = from[i];
    return vld1q_{suffix}(all);
}}
static inline void tw_store_{suffix}({element} *to, {vector} value, int count) {{
    {element} all[{lanes}];
    vst1q_{suffix}(all, value);
    for (int i = 0; i < count; ++i) to[i] = all[i];
}}
"""


_HALF = "__ARM_FEATURE_FP16_VECTOR_ARITHMETIC"
LIBRARY = InstructionLibrary(
    name="neon",
    lanes={"f32": 4, "f16": 8},
    registers=(RegisterFile("vector", 32, {"f32": "float32x4_t", "f16": "float16x8_t"}), RegisterFile("mask", 8, {"i32": "int"})),
    instructions=(
        *_arithmetic("f32", 4, "f32"),
        *_arithmetic("f16", 8, "f16"),
        Instruction("prefetch", (operand("src", "memory", "f32", 1),), "pass", "__builtin_prefetch({src});"),
        Instruction("prefetch_to_write", (operand("dst", "memory", "f32", 1, "inout"),), "pass", "__builtin_prefetch({dst}, 1);"),
    ),
    # SIMDe, where it emulates Neon, is included by the command line.
    preamble=f"""#ifndef SIMDE_ARM_NEON_H
#include <arm_neon.h>
#endif
{_partial("f32", "float", "float32x4_t", 4)}#ifdef {_HALF}
{_partial("f16", "float16_t", "float16x8_t", 8)}#endif
""",
    toolchains=(
        Toolchain("native", ("gcc", "clang", "cc"), ("-O3", "-fno-trapping-math", "-march=armv8.2-a+fp16"), machines=("aarch64", "arm64")),
        Toolchain(
            "qemu-aarch64",
            ("aarch64-linux-gnu-gcc",),
            ("-O3", "-fno-trapping-math", "-march=armv8.2-a+fp16", "-static"),
            machines=("x86_64", "AMD64", "riscv64"),
            runner=("qemu-aarch64",),
        ),
        Toolchain(
            "SIMDe",
            ("gcc", "clang", "cc"),
            ("-O2", "-mavx2", "-mfma", "-DSIMDE_ENABLE_NATIVE_ALIASES", "-DTW_AVAILABLE=1", "-include", "simde/arm/neon.h"),
            machines=("x86_64", "AMD64"),
            fuses=False,
            lacks=("f16",),
            needs=("/usr/include/simde/arm/neon.h",),
        ),
    ),
    caches=(Cache("L1", 64 * 1024, 4), Cache("L2", 2048 * 1024, 16), Cache("L3", 4096 * 1024, 16)),
)


class Neon(core.Core):
    """Target ``neon``: parameters `l1_kib`, `l2_kib` and `l3_kib`."""

    name = "neon"
    lanes = LANES
    fmas_per_cycle = 2
    vectors = 32
    clock_ghz = 2.265
    source = "arXiv 2310.17408, section 4"
    sizes = (64, 2048, 4096)
    library = LIBRARY
