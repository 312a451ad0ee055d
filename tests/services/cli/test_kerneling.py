"""``kernel gemm``: what is printed, what is written and that it builds, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tilewright.services.cli.app import app

needs_avx2 = pytest.mark.skipif(
    shutil.which("gcc") is None or not Path("/proc/cpuinfo").exists() or "avx2" not in Path("/proc/cpuinfo").read_text(),
    reason="no gcc, or this CPU lacks AVX2",
)
SIZE = ("--m", "5", "--n", "12", "--k", "7")


def kernel(*words: str) -> Result:
    return CliRunner().invoke(app, ["kernel", "gemm", *words], env={"COLUMNS": "200"})


@needs_avx2
def test_a_benchmark_is_a_table_of_medians_intervals_and_ratios() -> None:
    result = kernel(*SIZE, "--target", "avx2", "--bench", "--rounds", "7", "--emitter-option", "tile=2x8")
    assert result.exit_code == 0, result.output
    (row,) = re.findall(r"^model +([0-9.]+) +([0-9.]+) to ([0-9.]+) +([0-9.]+|-)$", result.output, re.MULTILINE)
    assert float(row[1]) <= float(row[0]) <= float(row[2])
    if "BLAS" in result.output.split("ratio to BLAS")[1]:
        assert re.search(r"numpy's BLAS .* 1\.000$", result.output, re.MULTILINE)


@needs_avx2
def test_a_benchmark_as_json_holds_the_same_figures() -> None:
    result = kernel(*SIZE, "--target", "avx2", "--bench", "--rounds", "3", "--json", "--emitter-option", "tile=2x8")
    found = {each["name"]: each for each in json.loads(result.output)}
    assert found["model"]["low"] <= found["model"]["median"] <= found["model"]["high"]


def test_the_schedule_is_printed_step_by_step_with_the_code_after_each() -> None:
    result = kernel("--m", "60", "--n", "64", "--k", "9", "--target", "avx2", "--explain-schedule", "--emitter-option", "tile=6x16")
    assert result.exit_code == 0, result.output
    parts = re.split(r"^== ", result.output, flags=re.MULTILINE)[1:]
    assert [part[:2] for part in parts] == ["V1", "V2", "V3", "V4", "V5", "V6", "C\n", "Co"]
    assert "C[i, j] = fma(A[i, p], B[p, j], C[i, j])" in parts[0]
    assert parts[5].count("fma(acc=") == 12
    assert parts[6].count("_mm256_fmadd_ps") == 12
    assert "vector registers: 12 for C and 3 for operands of 16" in parts[7]
    assert "per step of 1 in depth: 2 load_f32, 6 broadcast, 12 fma" in parts[7]


@needs_avx2
def test_the_written_folder_builds_tests_benchmarks_and_binds_to_python(tmp_path: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("no cmake")
    options = ("--emitter-option", "tile=2x8", "--emitter-option", "epilogue=bias+relu", "--emitter-option", "prepack=true")
    result = kernel(*SIZE, "--target", "avx2", "--out", str(tmp_path), *options)
    assert result.exit_code == 0, result.output
    name = result.output.split()[0]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"CMakeLists.txt", *(f"{name}{end}" for end in (".c", ".h", ".py", "_test.c", "_bench.c"))}
    for command in (["cmake", "-S", ".", "-B", "build"], ["cmake", "--build", "build"], ["ctest", "--test-dir", "build"]):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "1 tests passed" in done.stdout or "0 tests failed out of 1" in done.stdout
    bench = subprocess.run([tmp_path / "build" / f"{name}_bench", "3"], capture_output=True, text=True, timeout=60, check=True)
    assert bench.stdout.split()[0] == name
    assert len(bench.stdout.split()) == 4
    shutil.copy(tmp_path / "build" / f"lib{name}.so", tmp_path)
    spec = importlib.util.spec_from_file_location(name, tmp_path / f"{name}.py")
    assert spec is not None and spec.loader is not None
    binding = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(binding)
    assert binding.available()
    rng = np.random.default_rng(0)
    a, b, bias = (rng.uniform(-1, 1, shape).astype(np.float32) for shape in ((5, 7), (7, 12), (12,)))
    exact = np.maximum(a.astype(np.float64) @ b + bias, 0)
    np.testing.assert_allclose(binding.run(a, b, bias), exact, rtol=0, atol=9 * 8 * 2.0**-24)
    whole = np.zeros(200, np.float32)
    for operands, out, message in (
        ((a, b), None, "2 operands, expected 3: inputs, weights, bias"),
        ((a, b.T.copy(), bias), None, r"weights: float32 \(12, 7\), expected an array of float32 \(7, 12\)"),
        ((a, b.astype(np.float64), bias), None, "weights: float64"),
        ((np.asfortranarray(a), b, bias), None, "inputs: expected an aligned array, contiguous"),
        ((np.frombuffer(bytearray(141), np.float32, 35, 1).reshape(5, 7), b, bias), None, "inputs: expected an aligned array"),
        ((whole[:35].reshape(5, 7), b, bias), whole[30:90].reshape(5, 12), "out: is read-only or overlaps an operand"),
    ):
        with pytest.raises(ValueError, match=message):
            binding.run(*operands, out=out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--m", "4", "--n", "4", "--target", "avx2"), "--k: missing, expected --m, --n and --k for gemm"),
        ((*SIZE, "--target", "simba"), "--target 'simba': emitter 'native' has kernels for avx2, avx512, neon, rvv"),
        ((*SIZE, "--target", "avx2", "--transpose", "c"), "--transpose 'c': expected a, b or ab"),
        ((*SIZE, "--target", "avx2", "--tune"), "--tune: expected --bench beside it"),
        ((*SIZE, "--target", "avx2", "--emitter-option", "epilog=relu"), "options.epilog: emitter 'native' has no such option"),
        ((*SIZE, "--target", "avx2", "--emitter-option", "tile=9x16"), "tile: 9x16 needs 21 vector registers"),
        ((*SIZE, "--target", "avx2", "--emitter-option", "epilogue=relu+bias"), "options.epilogue: 'relu+bias', expected some of"),
        ((*SIZE, "--target", "gemmini", "--emitter", "gemmini", "--bench"), "--bench: emitter 'gemmini' does not offer it"),
    ],
)
def test_what_cannot_be_is_one_paragraph_and_exit_code_2(words: tuple[str, ...], message: str) -> None:
    result = kernel(*words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_sizes_below_one_are_refused_by_name() -> None:
    result = kernel("--m", "4", "--n", "4", "--k", "0", "--target", "avx2")
    assert result.exit_code == 2
    assert "--k" in result.stderr


def test_options_of_one_product_are_refused_beside_a_model() -> None:
    result = CliRunner().invoke(app, ["kernel", "resnet50", "--target", "avx2", "--m", "3"])
    assert result.exit_code == 2
    assert "--m 3: expected the model to be gemm, not 'resnet50'" in result.stderr


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = kernel("--m", "1", "--n", "2", "--k", "1", "--target", "avx2", "--emitter-option", "tile=1x8", "--out", str(tmp_path / "file"))
    assert result.exit_code == 2
    assert "--out" in result.stderr
