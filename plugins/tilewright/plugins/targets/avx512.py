"""x86-64 with AVX-512F: one core with 512-bit vectors, 32 registers and mask registers, its caches as storage levels.

Cache sizes and timing are those of AMD Zen 4 (software optimization guide of family 19h), which issues one 512-bit FMA per
cycle; server cores of Intel issue two. Energies are the 45 nm figures of Horowitz, ISSCC 2014 (FP32 multiply-add 4.6 pJ; 64
bits from a 32 KiB cache 20 pJ, from 1 MiB 100 pJ; 32 bits from DRAM 640 pJ); the last-level cache, which that table lacks,
is scaled with the square root of its capacity.
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
LANES = 16


class Avx512:
    """Target ``avx512``: parameters `l1_kib`, `l2_kib` and `l3_kib`."""

    def architecture(self, **parameters: int) -> Architecture:
        """The core with these cache sizes, for 32-bit words; `InvalidArchitecture` when one is unknown or out of range."""
        sizes = self.design_space().resolve(parameters)
        words_per_kib = 8192 // WORD_BITS
        return Architecture(
            name="avx512",
            compute=Compute("FMA", instances=LANES, mesh_x=LANES, bits=WORD_BITS, energy_pj=4.6),
            levels=(
                _level("Registers", 32 * LANES, 3 * LANES, LANES, 0.06),
                _level("L1", sizes["l1_kib"] * words_per_kib, LANES, LANES / 2, 10.0),
                _level("L2", sizes["l2_kib"] * words_per_kib, LANES / 2, LANES / 2, 50.0),
                _level("L3", sizes["l3_kib"] * words_per_kib, LANES / 4, LANES / 4, 50.0 * math.sqrt(sizes["l3_kib"] / 1024)),
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
        """AVX-512F for f32, and for i16 pairs summed into i32 (AVX-512BW)."""
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


def _moves(kind: ElementType, suffix: str, c_type: str, pointer: str) -> tuple[Instruction, ...]:
    """Zero, load and store, whole and masked, of 16 lanes of four bytes."""
    out, inout = _op("dst", "vector", kind, written="out"), _op("dst", "memory", kind, written="inout")
    src, mask = _op("src", "memory", kind), _op("mask", "mask", "i32")
    vector = _op("src", "vector", kind)
    return (
        Instruction(f"zero_{kind}", (out,), "dst[i] = 0", f"{{dst}} = _mm512_setzero_{c_type}();", latency=0, per_cycle=4),
        Instruction(
            f"load_{kind}",
            (out, src),
            "dst[i] = src[i]",
            f"{{dst}} = _mm512_loadu_{suffix}({{src}});",
            latency=8,
        ),
        Instruction(
            f"store_{kind}",
            (_op("dst", "memory", kind, written="out"), vector),
            "dst[i] = src[i]",
            f"_mm512_storeu_{suffix}({{dst}}, {{src}});",
            per_cycle=0.5,
        ),
        Instruction(
            f"load_masked_{kind}",
            (out, src, mask),
            "dst[i] = src[i] if mask[i] else 0",
            f"{{dst}} = tw_load_{pointer}({{mask}}, {{src}});",
            latency=8,
        ),
        Instruction(
            f"store_masked_{kind}",
            (inout, vector, mask),
            "dst[i] = src[i] if mask[i] else dst[i]",
            f"tw_store_{pointer}({{dst}}, {{mask}}, {{src}});",
            per_cycle=0.5,
        ),
    )


def _emulated(suffix: str, element: str, vector: str, load: str, store: str) -> str:
    """Masked accesses, word by word."""
    return f"""static inline {vector} tw_load_{suffix}(__mmask16 mask, const void *from) {{
    {element} all[16] = {{0}};
    for (int i = 0; i < 16; ++i)
        if (mask >> i & 1) all[i] = ((const {element} *)from)[i];
    return {load}(all);
}}
static inline void tw_store_{suffix}(void *to, __mmask16 mask, {vector} value) {{
    {element} all[16];
    {store}(all, value);
    for (int i = 0; i < 16; ++i)
        if (mask >> i & 1) (({element} *)to)[i] = all[i];
}}
"""


LIBRARY = InstructionLibrary(
    name="avx512",
    lanes={"f32": 16, "i32": 16},
    registers=(
        RegisterFile("vector", 32, {"f32": "__m512", "i32": "__m512i", "i16": "__m512i"}),
        RegisterFile("mask", 7, {"i32": "__mmask16"}),
    ),
    instructions=(
        *_moves("f32", "ps", "ps", "ps"),
        *_moves("i32", "si512", "si512", "epi32"),
        Instruction(
            "broadcast",
            (_op("dst", "vector", "f32", written="out"), _op("src", "memory", "f32", lanes=1)),
            "dst[i] = src[0]",
            "{dst} = _mm512_set1_ps(*({src}));",
            latency=8,
            per_cycle=2,
        ),
        Instruction(
            "store_word",
            (_op("dst", "memory", "f32", 1, "out"), _op("src", "vector", "f32")),
            "dst[i] = src[0]",
            "_mm_store_ss({dst}, _mm512_castps512_ps128({src}));",
        ),
        Instruction(
            "fma",
            (_op("acc", "vector", "f32", written="inout"), _op("a", "vector", "f32"), _op("b", "vector", "f32")),
            "acc[i] = fma(a[i], b[i], acc[i])",
            "{acc} = _mm512_fmadd_ps({a}, {b}, {acc});",
            latency=4,
            per_cycle=1,
        ),
        Instruction(
            "add_f32",
            (_op("acc", "vector", "f32", written="inout"), _op("a", "vector", "f32")),
            "acc[i] = acc[i] + a[i]",
            "{acc} = _mm512_add_ps({acc}, {a});",
            latency=3,
        ),
        Instruction(
            "add_i32",
            (_op("acc", "vector", "i32", written="inout"), _op("a", "vector", "i32")),
            "acc[i] = acc[i] + a[i]",
            "{acc} = _mm512_add_epi32({acc}, {a});",
            per_cycle=2,
        ),
        Instruction(
            "load_pairs",
            (_op("dst", "vector", "i16", 2 * LANES, "out"), _op("src", "memory", "i16", 2 * LANES)),
            "dst[2*i+j] = src[2*i+j]",
            "{dst} = _mm512_loadu_si512({src});",
            latency=8,
        ),
        Instruction(
            "broadcast_pair",
            (_op("dst", "vector", "i16", 2 * LANES, "out"), _op("src", "memory", "i16", 2)),
            "dst[2*i+j] = src[j]",
            "{dst} = _mm512_set1_epi32(tw_pair({src}));",
            latency=8,
            per_cycle=2,
        ),
        Instruction(
            "multiply_pairs",
            (_op("acc", "vector", "i32", written="inout"), _op("a", "vector", "i16", 2 * LANES), _op("b", "vector", "i16", 2 * LANES)),
            "acc[i] = acc[i] + (a[2*i] * b[2*i] + a[2*i+1] * b[2*i+1])",
            "{acc} = _mm512_add_epi32({acc}, tw_madd({a}, {b}));",
            latency=5,
        ),
        Instruction(
            "first_lanes",
            (_op("mask", "mask", "i32", written="out"), InstructionOperand("n", "scalar")),
            "mask[i] = i < n",
            "{mask} = (__mmask16)((1u << ({n})) - 1u);",
            requires=("0 <= n <= 16",),
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
    preamble=f"""#ifdef SIMDE_X86_AVX512_H
/* What this emulation lacks. */
{_emulated("ps", "float", "__m512", "_mm512_loadu_ps", "_mm512_storeu_ps")}\
{_emulated("epi32", "int32_t", "__m512i", "_mm512_loadu_si512", "_mm512_storeu_si512")}\
static inline __m512i tw_madd(__m512i x, __m512i y) {{
    int16_t a[32], b[32];
    int32_t sums[16];
    _mm512_storeu_si512(a, x);
    _mm512_storeu_si512(b, y);
    for (int i = 0; i < 16; ++i) sums[i] = (int32_t)((uint32_t)(a[2 * i] * b[2 * i]) + (uint32_t)(a[2 * i + 1] * b[2 * i + 1]));
    return _mm512_loadu_si512(sums);
}}
#else
#define tw_load_ps _mm512_maskz_loadu_ps
#define tw_store_ps _mm512_mask_storeu_ps
#define tw_load_epi32 _mm512_maskz_loadu_epi32
#define tw_store_epi32 _mm512_mask_storeu_epi32
#define tw_madd _mm512_madd_epi16
#endif
static inline int tw_pair(const int16_t *at) {{
    int both;
    memcpy(&both, at, sizeof both);
    return both;
}}
""",
    available='__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")',
    toolchains=(
        Toolchain(
            "native",
            ("gcc", "clang", "cc"),
            ("-O3", "-mavx512f", "-mavx512bw", "-mfma", "-mprefer-vector-width=512"),
            machines=("x86_64", "AMD64"),
        ),
        Toolchain(
            "SIMDe",
            ("gcc", "clang", "cc"),
            (
                "-O2",
                "-mavx2",
                "-mfma",
                "-Wno-psabi",
                "-DSIMDE_ENABLE_NATIVE_ALIASES",
                "-DTW_AVAILABLE=1",
                "-include",
                "immintrin.h",
                "-include",
                "simde/x86/avx512.h",
            ),
            machines=("x86_64", "AMD64"),
            needs=("/usr/include/simde/x86/avx512.h",),
        ),
    ),
    caches=(Cache("L1", 32 * 1024, 8), Cache("L2", 1024 * 1024, 8), Cache("L3", 32 * 1024 * 1024, 16)),
)
