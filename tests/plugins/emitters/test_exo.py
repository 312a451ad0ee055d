"""The exo emitter: the paper's steps in Exo's words, and kernels with the native emitter's bits."""

from __future__ import annotations

import sys

import pytest
from emitter_kit import needs_avx2

from tilewright.plugins.emitters.exo import Exo
from tilewright.protocol import registry
from tilewright.protocol.context import HostContext
from tilewright.protocol.errors import InvalidInput, TilewrightError
from tilewright.protocol.plugin import Budget, EmitRequest
from tilewright.protocol.workload import batched_matmul, matmul

needs_exo = pytest.mark.skipif(sys.version_info >= (3, 13), reason="exo-lang 1.0.0 does not run on Python 3.13")


def _context(target):
    return HostContext("emitters", "exo", Budget(), granted=(f"targets:{target}",))


def _emit(operator, target="avx2", **options):
    return Exo().emit(EmitRequest(operator, target, options=options), _context(target))


@pytest.fixture(autouse=True)
def installed(request):
    """Without exo-lang only its absence can be tested."""
    if "absent" not in request.node.name:
        pytest.importorskip("exo")


@needs_exo
@needs_avx2
def test_kernels_have_the_native_kernels_bits_and_a_test_that_sees_a_wrong_one():
    kernel = _emit(matmul(p=4, c=37, k=16, bits=32), tile="2x8")
    assert kernel.verification.status == "verified"
    assert 0 < kernel.verification.worst_error <= 1
    assert kernel.tiles == ((2, 8),)
    native = registry.load("emitters", "native")
    files = {f"{kernel.name}.c": kernel.source, f"{kernel.name}.h": kernel.header, f"{kernel.name}_test.c": kernel.test, **kernel.files}
    for right, wrong, message in (
        ("fmadd_ps(A_reg[1], B_reg[0]", "fmadd_ps(A_reg[0], B_reg[0]", "wrong at"),
        ("for (int_fast32_t p = 0; p < k; p++)", "for (int_fast32_t p = k - 1; p >= 0; p--)", "native kernel's bits"),
    ):
        assert right in kernel.source
        broken = {**files, f"{kernel.name}.c": kernel.source.replace(right, wrong)}
        with pytest.raises(TilewrightError, match=message):
            native.check("avx2", _context("avx2"), broken, tuple(broken))


@needs_exo
def test_the_papers_kernel_has_24_multiply_adds_and_5_loads_per_step():
    """8x12 of arXiv 2310.17408, figure 11 (column-major there, so 12 rows x 8 columns here)."""
    steps = dict(Exo().explain(EmitRequest(matmul(p=12, c=9, k=8, bits=32), "neon", options={"tile": "12x8"}), _context("neon")))
    names = [name[:2] for name in steps]
    assert names == ["V1", "V2", "V3", "V4", "V5", "V6", "C"]
    (last,) = [text for name, text in steps.items() if name.startswith("V6")]
    loop = last[last.index("for p in") :]
    body = [line for line in loop.splitlines()[1:] if line.startswith("        ")]
    assert sum("fma_lane(" in line for line in body) == 24
    assert sum("load(" in line for line in body) == 5
    assert len(body) == 29
    for operand in "ABC":
        assert f"assert stride({operand}, 1) == 1" in last
    assert steps["C"].count("vfmaq_laneq_f32(C_reg") == 24
    assert "it in seq" not in last


@needs_exo
def test_the_native_schedule_issues_the_same_instructions():
    from tilewright.plugins.emitters.native.counts import per_step
    from tilewright.plugins.emitters.native.numbers import FORMATS
    from tilewright.plugins.emitters.native.schedule import Tile

    library = registry.load("targets", "avx2").instructions()
    request = EmitRequest(matmul(p=3, c=9, k=16), "avx2", options={"tile": "3x16"})
    (text,) = [text for name, text in Exo().explain(request, _context("avx2")) if name.startswith("V6")]
    loop = text[text.index("for p in") : text.index("store(")]
    counted = per_step(Tile(3, 2), library, FORMATS["f32"])
    assert counted == {"load_f32": loop.count("load("), "broadcast": loop.count("broadcast("), "fma": loop.count("fma(")}


@needs_exo
def test_what_a_result_depends_on_names_exo_and_the_compilers():
    said = Exo().environment(_context("avx2"))
    assert said.startswith("exo-lang 1.")
    assert said.endswith(registry.load("emitters", "native").environment(_context("avx2")))


@needs_exo
@pytest.mark.parametrize(
    ("operator", "target", "message"),
    [
        (
            matmul(p=4, c=4, k=12, bits=32),
            "avx2",
            "4 x 12 x 4, expected one plain matrix product of whole vectors of 8 columns",
        ),
        (batched_matmul(g=2, p=4, c=4, k=8, bits=32), "avx2", "expected one plain matrix product"),
        (matmul(p=5, c=4, k=8, bits=32), "neon", r"strips of \[5\] rows, expected multiples of 4"),
        (matmul(p=4, c=4, k=8, bits=32), "rvv", "target: 'rvv', expected one of avx2, avx512, neon"),
    ],
)
def test_what_it_does_not_do_is_refused(operator, target, message):
    with pytest.raises(InvalidInput, match=message):
        _emit(operator, target)


def test_absent_exo_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "exo", None)
    with pytest.raises(TilewrightError, match=r"needs exo-lang, which is not installed: pip install 'tilewright\[exo\]'"):
        _emit(matmul(p=4, c=4, k=8))
