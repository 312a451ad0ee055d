"""The native emitter as a user meets it: operators in, verified C out; checked against numpy at full size."""

from __future__ import annotations

import shutil

import msgspec
import numpy as np
import pytest
from emitter_kit import TOY, Context, call, load, needs_avx2, needs_compiler, with_template

from tilewright.plugins.emitters.native import Native
from tilewright.plugins.emitters.native.semantics import InvalidInstruction
from tilewright.plugins.emitters.native.source import generate
from tilewright.plugins.emitters.native.verify import WrongKernel, verify
from tilewright.plugins.targets.cpu import Avx2
from tilewright.protocol.errors import InvalidInput, InvalidOperator
from tilewright.protocol.plugin import EmitRequest
from tilewright.protocol.workload import batched_matmul, conv2d, depthwise, elementwise, matmul
from tilewright.testing.emitters import EmitterConformance


class TestConformance(EmitterConformance):
    name = "native"


def test_a_target_without_instructions_is_refused():
    with pytest.raises(InvalidInput, match="'bare' has no instruction library, expected one of avx2, avx512, neon, rvv"):
        _emit(matmul(p=4, c=4, k=4), "bare", Context(bare=object))


def _emit(operator, target="avx2", context=None, **options):
    return Native().emit(EmitRequest(operator, target, options=options), context or Context())


def _random(*shape):
    return np.random.default_rng(sum(shape)).uniform(-1, 1, shape).astype(np.float32)


def _close(result, exact, terms):
    """Within the rounding bound of a sum of `terms` products of numbers below one."""
    np.testing.assert_allclose(result, exact, rtol=0, atol=(terms + 2) * terms * 2.0**-24)


def _reference_convolution(x, w, stride, padding):
    """x[N, C, height, width], w[C, K, R, S] with R along the width -> [N, K, Q, P], in float64, by shifted products."""
    k, r, s = w.shape[1:]
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    p, q = (x.shape[3] - r) // stride + 1, (x.shape[2] - s) // stride + 1
    out = np.zeros((x.shape[0], k, q, p))
    for i in range(r):
        for j in range(s):
            patch = x[:, :, j : j + (q - 1) * stride + 1 : stride, i : i + (p - 1) * stride + 1 : stride]
            out += np.einsum("ncqp,ck->nkqp", patch, w[:, :, i, j].astype(np.float64))
    return out


@needs_avx2
@pytest.mark.parametrize("shape", [(128, 768, 40), (1, 300, 70), (7, 7, 512)])
def test_matrix_products_agree_with_numpy_at_full_size(tmp_path, shape):
    m, k, n = shape
    kernel = _emit(matmul(p=m, c=k, k=n, bits=32))
    assert kernel.verification.status == "verified"
    assert 0 < kernel.verification.worst_error <= 1
    x, w, y = _random(m, k), _random(k, n), np.empty((m, n), np.float32)
    call(load(kernel, tmp_path), kernel.name, x, w, y)
    _close(y, x.astype(np.float64) @ w, k)


@needs_avx2
def test_attention_with_shared_key_heads_agrees_with_numpy(tmp_path):
    kernel = _emit(batched_matmul(g=2, h=3, p=17, c=20, k=31, bits=32), tile="3x16")
    x, w, y = _random(2, 3, 17, 20), _random(2, 20, 31), np.empty((2, 3, 17, 31), np.float32)
    call(load(kernel, tmp_path), kernel.name, x, w, y)
    _close(y, np.einsum("ghpc,gck->ghpk", x.astype(np.float64), w), 20)


@needs_avx2
@pytest.mark.parametrize(
    ("taps", "stride", "padding", "channels", "filters", "size", "batch"),
    [(3, 1, 1, 5, 9, 14, 2), (7, 2, 3, 3, 16, 28, 1), (1, 1, 0, 12, 7, 9, 1), (1, 2, 0, 4, 6, 11, 1)],
)
def test_convolutions_agree_with_numpy(tmp_path, taps, stride, padding, channels, filters, size, batch):
    out = (size + 2 * padding - taps) // stride + 1
    operator = conv2d(
        r=taps, s=taps, p=out, q=out, c=channels, k=filters, n=batch, stride=(stride, stride), padding=(padding, padding),
        extent=(size, size), bits=32,
    )  # fmt: skip
    kernel = _emit(operator, tile="3x16")
    x, w, y = _random(batch, channels, size, size), _random(channels, filters, taps, taps), np.empty((batch, filters, out, out), np.float32)
    call(load(kernel, tmp_path), kernel.name, x, w, y)
    _close(y, _reference_convolution(x, w, stride, padding), channels * taps * taps)


@needs_avx2
def test_depthwise_and_grouped_convolutions_are_verified():
    assert _emit(depthwise(r=3, s=3, p=14, q=14, g=8, padding=(1, 1), bits=32), tile="2x16").verification.status == "verified"
    assert _emit(conv2d(r=3, s=3, p=7, q=7, c=4, k=4, g=2, padding=(1, 1), bits=32), tile="2x16").verification.status == "verified"


@needs_avx2
@pytest.mark.parametrize("tile", ["6x16", "4x24", "8x8", "3x32", "1x8"])
def test_register_tiles_are_verified_over_all_edges(tile):
    kernel = _emit(matmul(p=128, c=64, k=96, bits=32), tile=tile)
    rows, columns = map(int, tile.split("x"))
    assert kernel.tiles[0] == (rows, columns)
    assert len(kernel.tiles) == rows * columns // 8
    # The test visits every row and column count up to one tile and beyond, under three kinds of packing.
    assert kernel.verification.cases >= 3 * rows * columns
    assert [step[:2] for step in kernel.steps] == ["V1", "V2", "V3", "V4", "V5", "V6"]


@needs_compiler
def test_a_made_up_instruction_set_gives_verified_kernels():
    context = Context(toy=type("Toy", (), {"instructions": lambda self: TOY}))
    for operator in (matmul(p=9, c=7, k=11, bits=32), conv2d(r=3, s=3, p=6, q=5, c=2, k=3, padding=(1, 1), bits=32)):
        kernel = _emit(operator, "toy", context)
        assert kernel.verification.status == "verified"
        assert kernel.tiles[0][0] * kernel.tiles[0][1] // 4 <= 10


@needs_compiler
def test_a_wrong_instruction_never_reaches_a_kernel():
    wrong = with_template(TOY, "add", "for (int i = 0; i < 3; ++i) {y}.x[i] += {x}.x[i];")
    with pytest.raises(InvalidInstruction, match="instruction 'add' is refused"):
        _emit(matmul(p=9, c=7, k=11), "toy", Context(toy=type("Toy", (), {"instructions": lambda self: wrong})))


@needs_avx2
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("total / count + (index < total % count)", "total / count + 1"),
        ("accumulate || kb", "accumulate"),
        ("x >= 0 && x < v->extent[r]", "x < v->extent[r]"),
        ("B += b_step", "B += b_step + (k == 5)"),
        ("acc_1_0 = _mm256_fmadd_ps(a_1, b_0, acc_1_0)", "acc_1_0 = _mm256_fmadd_ps(a_0, b_0, acc_1_0)"),
        ("_mm256_maskstore_ps(C, mask, acc_0_0)", "_mm256_storeu_ps(C, acc_0_0)"),
        ("_mm256_maskload_ps(B, mask)", "_mm256_loadu_ps(B)"),
    ],
)
def test_the_kernels_own_test_finds_mistakes(right, wrong):
    library = Avx2().instructions()
    operator = conv2d(r=3, s=3, p=9, q=9, c=9, k=33, padding=(1, 1)) if "extent" in right else matmul(p=13, c=33, k=33)
    plan = Native().plan(EmitRequest(operator, "avx2", options={"tile": "4x16"}), library)
    code = generate(plan)
    assert right in code.source
    broken = type(code)(code.source.replace(right, wrong), code.header, code.test)
    with pytest.raises(WrongKernel, match="failed"):
        verify(plan, broken)


def test_equal_requests_give_equal_bytes():
    operator = conv2d(r=3, s=3, p=14, q=14, c=8, k=8, padding=(1, 1))
    plan = [Native().plan(EmitRequest(operator, "avx2"), Avx2().instructions()) for _ in range(2)]
    assert generate(plan[0]) == generate(plan[1])


def test_without_a_compiler_the_kernel_is_not_verified_and_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    kernel = _emit(matmul(p=4, c=4, k=4, bits=32))
    assert kernel.verification.status == "not verified"
    assert "no C compiler (gcc, clang, cc)" in kernel.verification.reason or "do not run on" in kernel.verification.reason
    assert "tw_avx2_4x4x4" in kernel.source


@needs_compiler
def test_a_machine_without_the_instructions_is_named():
    absent = msgspec.structs.replace(TOY, available="0")
    kernel = _emit(matmul(p=4, c=4, k=4), "toy", Context(toy=type("Toy", (), {"instructions": lambda self: absent})))
    assert (kernel.verification.status, kernel.verification.reason) == ("not verified", "this machine lacks toy")


def test_words_of_other_widths_are_said_to_be_computed_in_f32(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _emit(matmul(p=4, c=4, k=4, bits=8)).notes == ("computes in f32; the operator's words have 8 bits",)
    assert _emit(matmul(p=4, c=4, k=4, bits=32)).notes == ()


@pytest.mark.parametrize("tile", ["16x6", "6", "ax8", "6x12"])
def test_a_malformed_tile_is_refused(tile):
    with pytest.raises(InvalidInput, match="tile"):
        _emit(matmul(p=4, c=4, k=4), tile=tile)


def test_a_tile_beyond_the_registers_is_refused():
    with pytest.raises(InvalidInput, match="tile: 8x16 needs 19 vector registers"):
        _emit(matmul(p=4, c=4, k=4), tile="8x16")


def test_operators_that_are_no_contraction_are_refused():
    with pytest.raises(InvalidOperator, match="function: 'softmax', expected a contraction"):
        _emit(elementwise("softmax", {"P": 4, "K": 4}, reduced=("K",)))


@pytest.mark.skipif(shutil.which("clang-19") is None and shutil.which("clang") is None, reason="no clang")
@needs_avx2
def test_clang_agrees(monkeypatch):
    clang = "clang" if shutil.which("clang") else "clang-19"
    library = Avx2().instructions()
    chain = msgspec.structs.replace(library.toolchains[0], compilers=(clang,))
    library = msgspec.structs.replace(library, toolchains=(chain,))
    context = Context(avx2=type("Clang", (), {"instructions": lambda self: library}))
    kernel = _emit(matmul(p=50, c=40, k=70, bits=32), context=context)
    assert kernel.verification.status == "verified"
    assert kernel.verification.compiler.startswith("clang")


SMALL = matmul(p=5, c=37, k=21, bits=32)


def _turned(operator, *names):
    """With the indices of some operands exchanged: they lie in memory column by column."""
    tensors = tuple(
        msgspec.structs.replace(each, ranks=tuple(reversed(each.ranks))) if each.name in names else each for each in operator.tensors
    )
    return msgspec.structs.replace(operator, tensors=tensors)


@needs_avx2
@pytest.mark.parametrize("turned", [("Inputs",), ("Weights",), ("Inputs", "Weights")])
def test_transposed_operands_agree_with_numpy(tmp_path, turned):
    kernel = _emit(_turned(SMALL, *turned), tile="2x16")
    assert kernel.verification.status == "verified"
    x, w, y = _random(5, 37), _random(37, 21), np.empty((5, 21), np.float32)
    operands = (np.ascontiguousarray(each.T) if name in turned else each for name, each in (("Inputs", x), ("Weights", w)))
    call(load(kernel, tmp_path), kernel.name, *operands, y)
    _close(y, x.astype(np.float64) @ w, 37)


@needs_avx2
def test_bias_and_gelu_agree_with_numpy(tmp_path):
    kernel = _emit(SMALL, tile="2x16", epilogue="bias+gelu", depth=16)
    assert kernel.verification.status == "verified"
    x, w, bias, y = _random(5, 37), _random(37, 21), _random(21), np.empty((5, 21), np.float32)
    call(load(kernel, tmp_path), kernel.name, x, w, y, bias)
    z = x.astype(np.float64) @ w + bias
    exact = 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
    _close(y, exact, 38)


@needs_avx2
def test_channels_of_a_convolution_are_rows_and_each_has_its_bias(tmp_path):
    operator = conv2d(r=3, s=3, p=5, q=4, c=3, k=6, padding=(1, 1), bits=32)
    kernel = _emit(operator, tile="2x8", epilogue="bias+relu", prepack=True)
    assert kernel.verification.status == "verified"
    x, w, bias, y = _random(1, 3, 4, 5), _random(3, 6, 3, 3), _random(6), np.empty((1, 6, 4, 5), np.float32)
    call(load(kernel, tmp_path), kernel.name, x, w, y, bias)
    _close(y, np.maximum(_reference_convolution(x, w, 1, 1) + bias[:, None, None], 0), 28)


@needs_avx2
def test_requantized_bytes_are_those_of_numpy(tmp_path):
    import ctypes

    kernel = _emit(matmul(p=5, c=37, k=21), tile="2x8", dtype="int8", epilogue="bias+requantize", prepack=True)
    assert kernel.verification.status == "verified"
    rng = np.random.default_rng(5)
    x, w = rng.integers(-128, 128, (5, 37), dtype=np.int8), rng.integers(-128, 128, (37, 21), dtype=np.int8)
    bias, scale = rng.integers(-9999, 9999, 21, dtype=np.int32), rng.uniform(1e-4, 5e-3, 21).astype(np.float32)
    sums = (x.astype(np.int32) @ w.astype(np.int32) + bias).astype(np.float32)
    exact = np.clip(np.rint(sums * scale) - 7, -128, 127).astype(np.int8)
    assert (np.abs(exact.astype(int)) == 127).sum() + (exact == -128).sum() < exact.size
    y = np.zeros((5, 21), np.int8)
    library = load(kernel, tmp_path)
    arguments = [ctypes.c_void_p(array.ctypes.data) for array in (x, w, y, bias, scale)]
    getattr(library, kernel.name)(*arguments, -7)
    np.testing.assert_array_equal(y, exact)
    packed = np.zeros(getattr(library, f"{kernel.name}_packed_bytes")() + 64, np.uint8)
    at = packed.ctypes.data + -packed.ctypes.data % 64
    getattr(library, f"{kernel.name}_pack")(arguments[1], ctypes.c_void_p(at))
    again = np.zeros((5, 21), np.int8)
    getattr(library, f"{kernel.name}_prepacked")(arguments[0], ctypes.c_void_p(at), ctypes.c_void_p(again.ctypes.data), *arguments[3:], -7)
    np.testing.assert_array_equal(again, exact)


@needs_avx2
def test_beta_adds_to_what_is_there(tmp_path):
    kernel = _emit(SMALL, tile="2x16", beta=1)
    assert kernel.verification.status == "verified"
    x, w, before = _random(5, 37), _random(37, 21), _random(5, 21)
    y = before.copy()
    call(load(kernel, tmp_path), kernel.name, x, w, y)
    _close(y, x.astype(np.float64) @ w + before, 38)


@needs_avx2
def test_the_blocks_of_a_schedule_are_used_unless_told_otherwise():
    from tilewright.plugins.targets.cpu import Avx2 as Target
    from tilewright.protocol.cost import Claim, Cost, Schedule
    from tilewright.protocol.mapping import LevelMapping, Loop, Mapping

    operator = matmul(p=40, c=48, k=64, bits=32)
    names = [level.name for level in Target().architecture().levels]
    loops = {
        "Registers": (Loop("K", 8), Loop("P", 2)),
        "L1": (Loop("C", 12),),
        "L2": (Loop("K", 4), Loop("P", 10)),
        "L3": (Loop("C", 4), Loop("K", 2), Loop("P", 2)),
    }
    keep = ("Weights", "Inputs", "Outputs")
    mapping = Mapping(tuple(LevelMapping(name, temporal=loops.get(name, ()), keep=keep) for name in names))
    schedule = Schedule(operator, mapping, Cost(model="", fidelity="analytical", cycles=0), Claim(), "edp", "")

    def emitted(**options):
        return Native().emit(EmitRequest(operator, "avx2", schedule=schedule, options={"tile": "2x16", **options}), Context())

    kernel = emitted()
    # 12 steps of depth stay in L1; 2 x 10 rows and 8 x 4 columns in L2, columns moving inside of rows.
    assert kernel.notes == ("cache blocks of the schedule: 20 rows x 12 deep x 32 columns",)
    assert f"{kernel.name}_default = {{20, 12, 32, 0, " in kernel.source
    assert kernel.verification.status == "verified"
    assert emitted(tiles="auto").notes == ()
    with pytest.raises(InvalidInput, match=r"options\.tiles: 'some', expected mapping or auto"):
        emitted(tiles="some")


@needs_avx2
def test_debug_builds_stop_at_overlapping_and_unaligned_pointers(tmp_path):
    import subprocess

    kernel = _emit(matmul(p=4, c=4, k=8, bits=32), tile="2x8")
    (tmp_path / f"{kernel.name}.c").write_text(kernel.source)
    (tmp_path / f"{kernel.name}.h").write_text(kernel.header)
    main = f"""#include "{kernel.name}.h"
#include <stdlib.h>
int main(int count, char **words) {{
    static float m[256];
    (void)count;
    switch (atoi(words[1])) {{
    case 0: {kernel.name}(m, m + 64, m + 128); return 0;
    case 1: {kernel.name}(m, m + 64, m + 15); return 0;
    default: {kernel.name}(m, (float *)((char *)m + 258), m + 128); return 0;
    }}
}}"""
    (tmp_path / "main.c").write_text(main)
    build = ["gcc", "-O1", "-mavx2", "-mfma", f"{kernel.name}.c", "main.c", "-o", "program"]
    subprocess.run(build, cwd=tmp_path, check=True, timeout=60)
    ends = [subprocess.run([tmp_path / "program", str(case)], capture_output=True, text=True, timeout=10) for case in range(3)]
    assert [end.returncode for end in ends] == [0, -6, -6]
    assert "apart(outputs" in ends[1].stderr
    assert "aligned(weights" in ends[2].stderr


@pytest.mark.parametrize(
    ("operator", "options", "message"),
    [
        (SMALL, {"epilogue": "gelu+bias"}, "options.epilogue: 'gelu.bias', expected some of bias.relu.gelu.requantize, in this order"),
        (SMALL, {"epilogue": "relu+gelu"}, "expected one activation"),
        (SMALL, {"epilogue": "requantize"}, "requantize of f32 results, expected an integer dtype"),
        (SMALL, {"epilogue": "gelu", "dtype": "int8"}, "gelu of i32 results, expected dtype f32 or bf16"),
        (SMALL, {"beta": 2}, "options.beta: 2, expected 0 or 1"),
        (SMALL, {"beta": 1, "dtype": "int8", "epilogue": "requantize"}, "options.beta: 1, expected 0 or 1, and 0 where results"),
        (SMALL, {"depth": 0}, "options.depth: 0, expected an integer of at least 1"),
        (SMALL, {"dtype": "f8"}, "options.dtype: 'f8', expected one of f32"),
        (batched_matmul(g=2, p=4, c=4, k=8), {"prepack": True}, "options.prepack: Weights move with the outer dims G"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(operator, options, message):
    with pytest.raises(InvalidInput, match=message):
        _emit(operator, **options)


def test_a_product_without_depth_is_refused():
    with pytest.raises(InvalidInput, match="C"):
        matmul(p=4, c=0, k=4)


@needs_compiler
def test_a_compiler_that_hangs_is_named(monkeypatch, tmp_path):
    from tilewright.plugins.emitters.native import toolchain

    (tmp_path / "gcc").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "gcc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(toolchain, "LIMIT_S", 0.2)
    monkeypatch.setattr(toolchain, "_version", lambda compiler: compiler)
    with pytest.raises(toolchain.TooSlow, match=r"gcc \(any\): gcc took more than 0 s"):
        _emit(matmul(p=4, c=4, k=4), "toy", Context(toy=type("Toy", (), {"instructions": lambda self: TOY})))
