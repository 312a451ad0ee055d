"""What AVX2 and AVX-512 have in common: the same instructions on vectors of 256 or 512 bits."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tilewright.protocol.kernel import Cache, ElementType, Instruction, InstructionOperand

from .core import operand

#: Cache sizes of AMD Zen 4.
CACHES = (Cache("L1", 32 * 1024, 8), Cache("L2", 1024 * 1024, 8), Cache("L3", 32 * 1024 * 1024, 16))
PREAMBLE = """static inline int tw_pair(const int16_t *at) {
    int both;
    memcpy(&both, at, sizeof both);
    return both;
}
"""
HEADERS = ("immintrin.h", "string.h")


def instructions(
    bits: int, masked: Mapping[str, str], madd: str, first_lanes: str, times: Mapping[str, tuple[int, float]]
) -> tuple[Instruction, ...]:
    """f32, and i16 pairs summed into i32.

    `masked` has the templates ``load_f32, store_f32, load_i32, store_i32``, `madd` is the C function that multiplies pairs,
    `first_lanes` the template that makes a mask; `times` says (latency, per cycle) by instruction, without the type where both agree.
    """
    lanes = bits // 32
    p = f"_mm{bits}"
    pairs = 2 * lanes
    out, acc = operand("dst", "vector", "i16", pairs, "out"), operand("acc", "vector", "f32", lanes, "inout")
    sums = operand("acc", "vector", "i32", lanes, "inout")

    def vector(name: str, kind: ElementType, count: int = lanes) -> InstructionOperand:
        return operand(name, "vector", kind, count)

    made = [
        *_moves("f32", lanes, f"{p}_setzero_ps()", f"{p}_loadu_ps({{src}})", f"{p}_storeu_ps({{dst}}, {{src}})", masked),
        *_moves(
            "i32",
            lanes,
            f"{p}_setzero_si{bits}()",
            f"{p}_loadu_si{bits}((const __m{bits}i *)({{src}}))",
            f"{p}_storeu_si{bits}((__m{bits}i *)({{dst}}), {{src}})",
            masked,
        ),
        Instruction(
            "broadcast",
            (operand("dst", "vector", "f32", lanes, "out"), operand("src", "memory", "f32", 1)),
            "dst[i] = src[0]",
            f"{{dst}} = {p}_set1_ps(*({{src}}));",
        ),
        Instruction(
            "store_word",
            (operand("dst", "memory", "f32", 1, "out"), vector("src", "f32")),
            "dst[i] = src[0]",
            f"_mm_store_ss({{dst}}, {p}_castps{bits}_ps128({{src}}));",
        ),
        Instruction(
            "fma",
            (acc, vector("a", "f32"), vector("b", "f32")),
            "acc[i] = fma(a[i], b[i], acc[i])",
            f"{{acc}} = {p}_fmadd_ps({{a}}, {{b}}, {{acc}});",
        ),
        Instruction("add_f32", (acc, vector("a", "f32")), "acc[i] = acc[i] + a[i]", f"{{acc}} = {p}_add_ps({{acc}}, {{a}});"),
        Instruction("add_i32", (sums, vector("a", "i32")), "acc[i] = acc[i] + a[i]", f"{{acc}} = {p}_add_epi32({{acc}}, {{a}});"),
        Instruction(
            "load_pairs",
            (out, operand("src", "memory", "i16", pairs)),
            "dst[2*i+j] = src[2*i+j]",
            f"{{dst}} = {p}_loadu_si{bits}((const __m{bits}i *)({{src}}));",
        ),
        Instruction(
            "broadcast_pair",
            (out, operand("src", "memory", "i16", 2)),
            "dst[2*i+j] = src[j]",
            f"{{dst}} = {p}_set1_epi32(tw_pair({{src}}));",
        ),
        Instruction(
            "multiply_pairs",
            (sums, vector("a", "i16", pairs), vector("b", "i16", pairs)),
            "acc[i] = acc[i] + (a[2*i] * b[2*i] + a[2*i+1] * b[2*i+1])",
            f"{{acc}} = {p}_add_epi32({{acc}}, {madd}({{a}}, {{b}}));",
        ),
        Instruction(
            "first_lanes",
            (operand("mask", "mask", "i32", lanes, "out"), InstructionOperand("n", "scalar")),
            "mask[i] = i < n",
            first_lanes,
            requires=(f"0 <= n <= {lanes}",),
        ),
        Instruction("prefetch", (operand("src", "memory", "f32", 1),), "pass", "_mm_prefetch((const char *)({src}), _MM_HINT_T0);"),
        Instruction("prefetch_to_write", (operand("dst", "memory", "f32", 1, "inout"),), "pass", "__builtin_prefetch({dst}, 1);"),
    ]
    return tuple(_timed(each, times) for each in made)


def _moves(kind: ElementType, lanes: int, zero: str, load: str, store: str, masked: Mapping[str, str]) -> list[Instruction]:
    """Zero, load and store, whole and masked, of lanes of four bytes."""
    out, vector = operand("dst", "vector", kind, lanes, "out"), operand("src", "vector", kind, lanes)
    mask, src = operand("mask", "mask", "i32", lanes), operand("src", "memory", kind, lanes)
    to, partly = operand("dst", "memory", kind, lanes, "out"), operand("dst", "memory", kind, lanes, "inout")
    return [
        Instruction(f"zero_{kind}", (out,), "dst[i] = 0", f"{{dst}} = {zero};"),
        Instruction(f"load_{kind}", (out, src), "dst[i] = src[i]", f"{{dst}} = {load};"),
        Instruction(f"store_{kind}", (to, vector), "dst[i] = src[i]", f"{store};"),
        Instruction(f"load_masked_{kind}", (out, src, mask), "dst[i] = src[i] if mask[i] else 0", masked[f"load_{kind}"]),
        Instruction(f"store_masked_{kind}", (partly, vector, mask), "dst[i] = src[i] if mask[i] else dst[i]", masked[f"store_{kind}"]),
    ]


def _timed(instruction: Instruction, times: Mapping[str, tuple[int, float]]) -> Instruction:
    """With its latency and throughput."""
    for name in (instruction.name, instruction.name.removesuffix("_f32").removesuffix("_i32")):
        if name in times:
            latency, per_cycle = times[name]
            return msgspec.structs.replace(instruction, latency=latency, per_cycle=per_cycle)
    return instruction
