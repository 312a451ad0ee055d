"""x86-64 with AVX2 and FMA: one core of a desktop or server CPU, its caches as storage levels.

Cache sizes, load and store widths and FMA timing are those of AMD Zen 4 (software optimization guide of family 19h);
Intel's Haswell and later issue the same two 256-bit FMAs per cycle. Energies are the 45 nm figures of Horowitz, ISSCC
2014 (FP32 multiply-add 4.6 pJ; 64 bits from a 32 KiB cache 20 pJ, from 1 MiB 100 pJ; 32 bits from DRAM 640 pJ); the
last-level cache, which that table lacks, is scaled with the square root of its capacity.
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
LANES = 8


class Avx2:
    """Target ``avx2``: parameters `l1_kib`, `l2_kib` and `l3_kib`."""

    def architecture(self, **parameters: int) -> Architecture:
        """The core with these cache sizes, for 32-bit words; `InvalidArchitecture` when one is unknown or out of range."""
        sizes = self.design_space().resolve(parameters)
        words_per_kib = 8192 // WORD_BITS
        return Architecture(
            name="avx2",
            compute=Compute("FMA", instances=2 * LANES, mesh_x=LANES, mesh_y=2, bits=WORD_BITS, energy_pj=4.6),
            levels=(
                _level("Registers", 16 * LANES, 3 * 2 * LANES, 2 * LANES, 0.06),
                _level("L1", sizes["l1_kib"] * words_per_kib, 2 * LANES, LANES, 10.0),
                _level("L2", sizes["l2_kib"] * words_per_kib, LANES, LANES, 50.0),
                _level("L3", sizes["l3_kib"] * words_per_kib, LANES / 2, LANES / 2, 50.0 * math.sqrt(sizes["l3_kib"] / 1024)),
                _level("DRAM", None, 2, 2, 640.0),
            ),
            clock_ghz=2.85,
            source="AMD family 19h optimization guide; Horowitz, ISSCC 2014",
        )

    def design_space(self) -> DesignSpace:
        """Cache sizes."""
        return DesignSpace(
            (
                Parameter("l1_kib", "KiB", 16, 128, 32, step=2, geometric=True),
                Parameter("l2_kib", "KiB", 256, 4096, 1024, step=2, geometric=True),
                Parameter("l3_kib", "KiB", 2048, 131072, 32768, step=2, geometric=True),
            )
        )

    def constraints(self) -> Constraints:
        """A mapping may do anything."""
        return Constraints()

    def instructions(self) -> InstructionLibrary:
        """AVX2 and FMA for f32; AVX2 for i16 pairs summed into i32."""
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
    name: str, space: Space, kind: ElementType, lanes: int = LANES, written: Literal["in", "out", "inout"] = "in"
) -> InstructionOperand:
    return InstructionOperand(name, space, kind, lanes, written)


def _moves(kind: ElementType, zero: str, load: str, store: str, masked: str) -> tuple[Instruction, ...]:
    """Zero, load and store, whole and masked, of eight lanes of four bytes."""
    out, vector, mask = _op("dst", "vector", kind, written="out"), _op("src", "vector", kind), _op("mask", "mask", "i32")
    src = _op("src", "memory", kind)
    return (
        Instruction(f"zero_{kind}", (out,), "dst[i] = 0", f"{{dst}} = {zero};", latency=0, per_cycle=4),
        Instruction(f"load_{kind}", (out, src), "dst[i] = src[i]", f"{{dst}} = {load};", latency=7, per_cycle=2),
        Instruction(f"store_{kind}", (_op("dst", "memory", kind, written="out"), vector), "dst[i] = src[i]", f"{store};"),
        Instruction(
            f"load_masked_{kind}",
            (out, src, mask),
            "dst[i] = src[i] if mask[i] else 0",
            f"{{dst}} = _mm256_maskload_{masked}({{src}}, {{mask}});",
            latency=8,
            per_cycle=2,
        ),
        Instruction(
            f"store_masked_{kind}",
            (_op("dst", "memory", kind, written="inout"), vector, mask),
            "dst[i] = src[i] if mask[i] else dst[i]",
            f"_mm256_maskstore_{masked}({{dst}}, {{mask}}, {{src}});",
            latency=12,
            per_cycle=0.5,
        ),
    )


LIBRARY = InstructionLibrary(
    name="avx2",
    lanes={"f32": 8, "i32": 8},
    registers=(
        RegisterFile("vector", 16, {"f32": "__m256", "i32": "__m256i", "i16": "__m256i"}),
        RegisterFile("mask", 16, {"i32": "__m256i"}),
    ),
    instructions=(
        *_moves("f32", "_mm256_setzero_ps()", "_mm256_loadu_ps({src})", "_mm256_storeu_ps({dst}, {src})", "ps"),
        *_moves(
            "i32",
            "_mm256_setzero_si256()",
            "_mm256_loadu_si256((const __m256i *)({src}))",
            "_mm256_storeu_si256((__m256i *)({dst}), {src})",
            "epi32",
        ),
        Instruction(
            "broadcast",
            (_op("dst", "vector", "f32", written="out"), _op("src", "memory", "f32", lanes=1)),
            "dst[i] = src[0]",
            "{dst} = _mm256_broadcast_ss({src});",
            latency=7,
            per_cycle=2,
        ),
        Instruction(
            "store_word",
            (_op("dst", "memory", "f32", 1, "out"), _op("src", "vector", "f32")),
            "dst[i] = src[0]",
            "_mm_store_ss({dst}, _mm256_castps256_ps128({src}));",
        ),
        Instruction(
            "fma",
            (_op("acc", "vector", "f32", written="inout"), _op("a", "vector", "f32"), _op("b", "vector", "f32")),
            "acc[i] = fma(a[i], b[i], acc[i])",
            "{acc} = _mm256_fmadd_ps({a}, {b}, {acc});",
            latency=4,
            per_cycle=2,
        ),
        Instruction(
            "add_f32",
            (_op("acc", "vector", "f32", written="inout"), _op("a", "vector", "f32")),
            "acc[i] = acc[i] + a[i]",
            "{acc} = _mm256_add_ps({acc}, {a});",
            latency=3,
            per_cycle=2,
        ),
        Instruction(
            "add_i32",
            (_op("acc", "vector", "i32", written="inout"), _op("a", "vector", "i32")),
            "acc[i] = acc[i] + a[i]",
            "{acc} = _mm256_add_epi32({acc}, {a});",
            per_cycle=4,
        ),
        Instruction(
            "load_pairs",
            (_op("dst", "vector", "i16", 2 * LANES, "out"), _op("src", "memory", "i16", 2 * LANES)),
            "dst[2*i+j] = src[2*i+j]",
            "{dst} = _mm256_loadu_si256((const __m256i *)({src}));",
            latency=7,
            per_cycle=2,
        ),
        Instruction(
            "broadcast_pair",
            (_op("dst", "vector", "i16", 2 * LANES, "out"), _op("src", "memory", "i16", 2)),
            "dst[2*i+j] = src[j]",
            "{dst} = _mm256_set1_epi32(tw_pair({src}));",
            latency=7,
            per_cycle=2,
        ),
        Instruction(
            "multiply_pairs",
            (_op("acc", "vector", "i32", written="inout"), _op("a", "vector", "i16", 2 * LANES), _op("b", "vector", "i16", 2 * LANES)),
            "acc[i] = acc[i] + (a[2*i] * b[2*i] + a[2*i+1] * b[2*i+1])",
            "{acc} = _mm256_add_epi32({acc}, _mm256_madd_epi16({a}, {b}));",
            latency=4,
            per_cycle=2,
        ),
        Instruction(
            "first_lanes",
            (_op("mask", "mask", "i32", written="out"), InstructionOperand("n", "scalar")),
            "mask[i] = i < n",
            "{mask} = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)({n})), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));",
            requires=("0 <= n <= 8",),
            latency=2,
        ),
        Instruction(
            "prefetch",
            (_op("src", "memory", "f32", lanes=1),),
            "pass",
            "_mm_prefetch((const char *)({src}), _MM_HINT_T0);",
        ),
        Instruction(
            "prefetch_to_write",
            (_op("dst", "memory", "f32", lanes=1, written="inout"),),
            "pass",
            "__builtin_prefetch({dst}, 1);",
        ),
    ),
    headers=("immintrin.h", "string.h"),
    preamble="""static inline int tw_pair(const int16_t *at) {
    int both;
    memcpy(&both, at, sizeof both);
    return both;
}
""",
    available='__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")',
    toolchains=(Toolchain("native", ("gcc", "clang", "cc"), ("-O3", "-mavx2", "-mfma"), machines=("x86_64", "AMD64")),),
    caches=(Cache("L1", 32 * 1024, 8), Cache("L2", 1024 * 1024, 8), Cache("L3", 32 * 1024 * 1024, 16)),
)
