"""Every instruction set of ours: proven, and its kernels verified with each toolchain at hand (natively, under qemu, through SIMDe)."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest
from emitter_kit import Context, load, needs_avx2

from tilewright.plugins.emitters.native import Native
from tilewright.plugins.emitters.native.nest import Call, For
from tilewright.plugins.emitters.native.numbers import FORMATS
from tilewright.plugins.emitters.native.prove import prove
from tilewright.plugins.emitters.native.schedule import Tile, schedule
from tilewright.plugins.emitters.native.semantics import InvalidInstruction
from tilewright.plugins.emitters.native.source import generate
from tilewright.plugins.emitters.native.toolchain import Missing, Ready, find
from tilewright.plugins.emitters.native.verify import verify_with
from tilewright.protocol import codec, registry
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.kernel import InstructionLibrary
from tilewright.protocol.plugin import EmitRequest
from tilewright.protocol.workload import conv2d, matmul
from tilewright.testing.targets import TargetConformance

TARGETS = Native.targets
#: (target, tile, registers that it needs)
LARGEST = [("neon", "12x8", 29), ("avx512", "14x32", 31), ("rvv", "14x8", 31), ("avx2", "6x16", 15)]
#: (target, tile, vectors of C)
COMPILED = [("avx2", "6x16", 12), ("avx2", "4x24", 12), ("avx512", "8x48", 24), ("avx512", "14x32", 28)]


def _library(target) -> InstructionLibrary:
    return registry.load("targets", target).instructions()


def _toolchains():
    """Every toolchain for f32, and the other formats where they are not emulated twice."""
    for target in TARGETS:
        for toolchain in _library(target).toolchains:
            for dtype in FORMATS if toolchain.name not in ("SIMDe", "qemu-riscv64, 256-bit vectors") else ("f32",):
                yield pytest.param(target, toolchain.name, dtype, id=f"{target} {dtype} by {toolchain.name}")


def _ready(target, name) -> Ready:
    """The toolchain, or a skip that names what is missing."""
    library = _library(target)
    for toolchain, found in zip(library.toolchains, find(library), strict=True):
        if toolchain.name == name:
            if isinstance(found, Missing):
                pytest.skip(found.reason)
            return found
    raise AssertionError(name)


class TestAvx2(TargetConformance):
    name = "avx2"


class TestAvx512(TargetConformance):
    name = "avx512"


class TestNeon(TargetConformance):
    name = "neon"


class TestRvv(TargetConformance):
    name = "rvv"


@pytest.mark.parametrize("target", TARGETS)
def test_libraries_travel(target):
    assert codec.decode(codec.encode(_library(target)), InstructionLibrary) == _library(target)


@pytest.mark.parametrize(("target", "toolchain", "dtype"), list(_toolchains()))
def test_kernels_are_verified_with_every_toolchain(target, toolchain, dtype):
    ready, library, numbers = _ready(target, toolchain), _library(target), FORMATS[dtype]
    if numbers.result not in library.lanes:
        with pytest.raises(InvalidInput, match=f"{target} has no vectors of {numbers.result}"):
            Native().plan(EmitRequest(matmul(p=9, c=9, k=9), target, options={"dtype": dtype}), library)
        return
    operator = matmul(p=33, c=19, k=37) if dtype != "bf16" else conv2d(r=3, s=3, p=7, q=7, c=3, k=9, padding=(1, 1))
    lanes = library.lanes[numbers.result]
    plan = Native().plan(
        EmitRequest(operator, target, options={"dtype": dtype, "tile": f"{lanes if target == 'neon' else 2}x{2 * lanes}"}), library
    )
    verification = verify_with(ready, plan, generate(plan))
    if verification.reason.startswith("this machine lacks") or numbers.result in ready.toolchain.lacks:
        assert verification.status == "not verified"
        pytest.skip(verification.reason)
    assert verification.status == "verified"
    assert verification.worst_error <= 1
    assert (verification.worst_error == 0) == numbers.exact


def test_neon_schedules_have_the_papers_instruction_counts():
    """8x12 of arXiv 2310.17408 (there column-major, so 12 rows x 8 columns here): 24 FMAs by lane and 5 loads per step."""
    *_, (_, nest) = schedule(Tile(12, 2), _library("neon"))
    (loop,) = [statement for statement in nest.body if isinstance(statement, For)]
    names = [call.instruction.name for call in loop.body if isinstance(call, Call)]
    assert {name: names.count(name) for name in names} == {"load_f32": 5, "fma_lane_f32": 24}


@pytest.mark.parametrize(("target", "tile", "needs"), LARGEST)
def test_the_largest_tiles_fit_and_one_row_more_does_not(target, tile, needs):
    from tilewright.plugins.emitters.native.schedule import registers

    library = _library(target)
    rows, columns = map(int, tile.split("x"))
    vectors = columns // library.lanes["f32"]
    assert sum(registers(Tile(rows, vectors), library, FORMATS["f32"])) == needs
    more = f"{rows + (4 if target == 'neon' else 1)}x{columns}"
    with pytest.raises(InvalidInput, match=f"tile: {more} needs"):
        Native().plan(EmitRequest(matmul(p=99, c=9, k=99), target, options={"tile": more}), library)


def test_a_multiply_add_that_compilers_split_is_refused():
    """`vmlaq_f32` is two instructions in gcc: not what the semantics say."""
    from emitter_kit import with_template

    ready = _ready("neon", "qemu-aarch64")
    wrong = with_template(_library("neon"), "fma_f32", "{acc} = vmlaq_f32({acc}, {a}, {b});")
    with pytest.raises(InvalidInstruction, match="instruction 'fma_f32' is refused"):
        prove(wrong, ready, FORMATS["f32"])


def _assembly(tmp_path, target, tile, name, compiler="gcc", chain=0):
    """The assembly of one tile function."""
    library = _library(target)
    plan = Native().plan(EmitRequest(matmul(p=600, c=320, k=600), target, options={"tile": tile}), library)
    code = generate(plan)
    (tmp_path / "kernel.c").write_text(code.source)
    (tmp_path / f"{plan.name}.h").write_text(code.header)
    flags = [flag for flag in library.toolchains[chain].flags if flag != "-static"]
    subprocess.run([compiler, *flags, "-S", str(tmp_path / "kernel.c"), "-o", str(tmp_path / "kernel.s")], check=True, timeout=120)
    text = (tmp_path / "kernel.s").read_text()
    start = text.index(f"\n{name}:")
    return text[start : text.index(".size", start)]


@pytest.mark.parametrize(
    ("target", "tile", "name", "compiler", "fused", "count", "spill"),
    [
        ("neon", "12x8", "tile_12x8", "aarch64-linux-gnu-gcc", r"fmla\s", 24, r"\bq\d+, (q\d+, )?\[sp"),
        ("rvv", "14x8", "tile_14x2v", "clang-19", r"vfmacc\.vf\s", 28, r"\bv[sl]\d+re?(32)?\.v\s"),
    ],
)
def test_cross_compiled_loops_hold_one_fused_instruction_per_register_and_spill_nothing(
    tmp_path, target, tile, name, compiler, fused, count, spill
):
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    text = _assembly(tmp_path, target, tile, name, compiler, 1)
    assert len(re.findall(fused, text)) == count
    assert not re.findall(r"\s(fmul|vfmul\S*)\s", text)
    assert not re.findall(spill, text)


@needs_avx2
@pytest.mark.parametrize(("target", "tile", "count"), COMPILED)
def test_compiled_loops_hold_one_fused_instruction_per_register_and_spill_nothing(tmp_path, target, tile, count):
    text = _assembly(tmp_path, target, tile, f"tile_{tile}")
    # The compiler may keep several versions of the loop, for different strides.
    assert text.count("vfmadd") in (count, 2 * count)
    assert "vmulps" not in text
    vectors = [line for line in text.splitlines() if "ymm" in line or "zmm" in line]
    assert not [line for line in vectors if "(%rsp" in line or "(%rbp" in line]


@needs_avx2
def test_bytes_times_bytes_are_exact_at_their_extremes(tmp_path):
    """-128 x -128 in every place: the case that saturating byte instructions get wrong."""
    import ctypes

    kernel = Native().emit(EmitRequest(matmul(p=7, c=1001, k=19), "avx2", options={"dtype": "int8"}), Context())
    assert kernel.verification.status == "verified"
    x, w, y = np.full((7, 1001), -128, np.int8), np.full((1001, 19), -128, np.int8), np.zeros((7, 19), np.int32)
    w[:, 3] = 127
    function = getattr(load(kernel, tmp_path), kernel.name)
    function(*(ctypes.c_void_p(array.ctypes.data) for array in (x, w, y)))
    np.testing.assert_array_equal(y, x.astype(np.int32) @ w.astype(np.int32))
