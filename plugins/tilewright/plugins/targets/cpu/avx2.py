"""x86-64 with AVX2 and FMA: one core of a desktop or server CPU.

Cache sizes, load and store widths and FMA timing are those of AMD Zen 4 (software optimization guide of family 19h);
Intel's Haswell and later issue the same two 256-bit FMAs per cycle.
"""

from __future__ import annotations

from tilewright.protocol.kernel import InstructionLibrary, RegisterFile, Toolchain

from . import core, x86

LANES = 8


LIBRARY = InstructionLibrary(
    name="avx2",
    lanes={"f32": LANES, "i32": LANES},
    registers=(
        RegisterFile("vector", 16, {"f32": "__m256", "i32": "__m256i", "i16": "__m256i"}),
        RegisterFile("mask", 16, {"i32": "__m256i"}),
    ),
    instructions=x86.instructions(
        256,
        masked={
            "load_f32": "{dst} = _mm256_maskload_ps({src}, {mask});",
            "store_f32": "_mm256_maskstore_ps({dst}, {mask}, {src});",
            "load_i32": "{dst} = _mm256_maskload_epi32({src}, {mask});",
            "store_i32": "_mm256_maskstore_epi32({dst}, {mask}, {src});",
        },
        madd="_mm256_madd_epi16",
        first_lanes="{mask} = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)({n})), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));",
        times={
            "zero": (0, 4),
            "load": (7, 2),
            "load_masked": (8, 2),
            "store_masked": (12, 0.5),
            "broadcast": (7, 2),
            "fma": (4, 2),
            "add_f32": (3, 2),
            "add_i32": (1, 4),
            "load_pairs": (7, 2),
            "broadcast_pair": (7, 2),
            "multiply_pairs": (4, 2),
            "first_lanes": (2, 1),
        },
    ),
    headers=x86.HEADERS,
    preamble=x86.PREAMBLE,
    available='__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")',
    toolchains=(
        Toolchain("native", ("gcc", "clang", "cc"), ("-O3", "-fno-trapping-math", "-mavx2", "-mfma"), machines=("x86_64", "AMD64")),
    ),
    caches=x86.CACHES,
)


class Avx2(core.Core):
    """Target ``avx2``: parameters `l1_kib`, `l2_kib` and `l3_kib`."""

    name = "avx2"
    lanes = LANES
    fmas_per_cycle = 2
    vectors = 16
    clock_ghz = 2.85
    source = "AMD family 19h optimization guide"
    sizes = (32, 1024, 32768)
    library = LIBRARY
