"""x86-64 with AVX-512F: one core with 512-bit vectors, 32 registers and mask registers.

Cache sizes and timing are those of AMD Zen 4 (software optimization guide of family 19h), which issues one 512-bit FMA per
cycle; server cores of Intel issue two.
"""

from __future__ import annotations

from tilewright.protocol.kernel import InstructionLibrary, RegisterFile, Toolchain

from . import core, x86

LANES = 16


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
    lanes={"f32": LANES, "i32": LANES},
    registers=(
        RegisterFile("vector", 32, {"f32": "__m512", "i32": "__m512i", "i16": "__m512i"}),
        RegisterFile("mask", 7, {"i32": "__mmask16"}),
    ),
    instructions=x86.instructions(
        512,
        masked={
            "load_f32": "{dst} = tw_load_ps({mask}, {src});",
            "store_f32": "tw_store_ps({dst}, {mask}, {src});",
            "load_i32": "{dst} = tw_load_epi32({mask}, {src});",
            "store_i32": "tw_store_epi32({dst}, {mask}, {src});",
        },
        madd="tw_madd",
        first_lanes="{mask} = (__mmask16)((1u << ({n})) - 1u);",
        times={
            "zero": (0, 4),
            "load": (8, 1),
            "store": (1, 0.5),
            "load_masked": (8, 1),
            "store_masked": (1, 0.5),
            "broadcast": (8, 2),
            "fma": (4, 1),
            "add_f32": (3, 1),
            "add_i32": (1, 2),
            "load_pairs": (8, 1),
            "broadcast_pair": (8, 2),
            "multiply_pairs": (5, 1),
            "first_lanes": (2, 1),
        },
    ),
    headers=x86.HEADERS,
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
{x86.PREAMBLE}""",
    available='__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")',
    toolchains=(
        Toolchain(
            "native",
            ("gcc", "clang", "cc"),
            ("-O3", "-fno-trapping-math", "-mavx512f", "-mavx512bw", "-mfma", "-mprefer-vector-width=512"),
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
    caches=x86.CACHES,
)


class Avx512(core.Core):
    """Target ``avx512``: parameters `l1_kib`, `l2_kib` and `l3_kib`."""

    name = "avx512"
    lanes = LANES
    fmas_per_cycle = 1
    vectors = 32
    clock_ghz = 2.85
    source = "AMD family 19h optimization guide"
    sizes = (32, 1024, 32768)
    library = LIBRARY
