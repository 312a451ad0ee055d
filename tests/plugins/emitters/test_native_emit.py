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
@pytest.mark.parametrize("shape", [(128, 768, 40), (49, 33, 129), (1, 300, 70), (2, 5, 3), (7, 7, 512)])
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
    kernel = _emit(batched_matmul(g=2, h=3, p=17, c=20, k=31, bits=32))
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
    kernel = _emit(operator)
    x, w, y = _random(batch, channels, size, size), _random(channels, filters, taps, taps), np.empty((batch, filters, out, out), np.float32)
    call(load(kernel, tmp_path), kernel.name, x, w, y)
    _close(y, _reference_convolution(x, w, stride, padding), channels * taps * taps)


@needs_avx2
def test_depthwise_and_grouped_convolutions_are_verified():
    assert _emit(depthwise(r=3, s=3, p=14, q=14, g=8, padding=(1, 1), bits=32)).verification.status == "verified"
    assert _emit(conv2d(r=3, s=3, p=7, q=7, c=4, k=4, g=2, padding=(1, 1), bits=32)).verification.status == "verified"


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
