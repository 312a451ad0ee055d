"""Our int8 and bf16 products: against torch's quantized linear layers, and against our own f32.

    python tests/benchmarks/bench_int8.py [--target avx2] [--sets resnet50,bert] [--rounds 9]

torch's contenders are `quantized::linear` through fbgemm and through oneDNN (x86 engine), u8 x s8 with 7-bit activations, weights
packed ahead, requantized results: what a layer runs. Ours are uint8 (the same data) with packed weights and the same epilogue, and
int8 (s8 x s8 over the full range), exact i32 sums. Which instructions torch may use is its own choice unless ATEN_CPU_CAPABILITY,
FBGEMM_ENABLE_INSTRUCTIONS and ONEDNN_MAX_CPU_ISA say otherwise; they are printed. CPU time of one thread, interleaved rounds,
ratios of medians; each library is called through its own entry (torch's includes some microseconds of dispatch).
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from gemm_shapes import SETS

from tilewright.plugins.emitters.native import Native
from tilewright.plugins.emitters.native.source import generate
from tilewright.plugins.emitters.native.toolchain import cpu
from tilewright.protocol import registry
from tilewright.protocol.plugin import EmitRequest
from tilewright.protocol.workload import matmul

SAMPLE_S = 0.004


def own(folder: Path, target: str, shape: tuple[int, int, int], **options: object) -> tuple[ctypes.CDLL, str]:
    """A compiled kernel and its name."""
    m, n, k = shape
    library = registry.load("targets", target).instructions()
    plan = replace(Native().plan(EmitRequest(matmul(p=m, c=k, k=n, bits=32), target, options=options), library), only_own_size=True)
    code = generate(plan)
    (folder / f"{plan.name}.c").write_text(code.source)
    (folder / f"{plan.name}.h").write_text(code.header)
    shared = folder / f"{plan.name}.so"
    flags = library.toolchains[0].flags
    subprocess.run(["gcc", *flags, "-DNDEBUG", "-shared", "-fPIC", str(folder / f"{plan.name}.c"), "-o", str(shared), "-lm"], check=True)
    return ctypes.CDLL(str(shared)), plan.name


def contenders(folder: Path, target: str, shape: tuple[int, int, int]) -> dict[str, Callable[[], object]]:
    """Name -> one call."""
    m, n, k = shape
    rng = np.random.default_rng(m + n + k)
    x, w = rng.integers(0, 128, (m, k), dtype=np.uint8), rng.integers(-128, 128, (k, n), dtype=np.int8)
    scale, y8, y32 = np.full(n, 1e-3, np.float32), np.zeros((m, n), np.int8), np.zeros((m, n), np.int32)
    a, b, c = rng.uniform(-1, 1, (m, k)).astype(np.float32), rng.uniform(-1, 1, (k, n)).astype(np.float32), np.zeros((m, n), np.float32)
    ha, hb = (np.ascontiguousarray(each.view(np.uint32) >> 16).astype(np.uint16) for each in (a, b))
    found: dict[str, Callable[[], object]] = {}

    def kernel(label: str, arrays: tuple[np.ndarray, ...], suffix: str = "", more: tuple[object, ...] = (), **options: object) -> None:
        library, name = own(folder, target, shape, **options)
        pointers = [ctypes.c_void_p(each.ctypes.data) for each in arrays]
        if suffix:
            packed = np.zeros(getattr(library, f"{name}_packed_bytes")() + 64, np.uint8)
            at = ctypes.c_void_p(packed.ctypes.data + -packed.ctypes.data % 64)
            getattr(library, f"{name}_pack")(pointers[1], at)
            pointers[1] = at
            keep.append(packed)
        function = getattr(library, name + suffix)
        # The arrays live as long as the call does.
        found[label] = lambda held=keep: function(*pointers, *more)

    keep: list[object] = [x, w, scale, y8, y32, a, b, c, ha, hb]
    kernel("u8s8", (x, w, y8, scale), "_prepacked", (0,), dtype="uint8", epilogue="requantize", prepack=True)
    kernel("s8s8", (x.view(np.int8), w, y32), dtype="int8")
    kernel("bf16", (ha, hb, c), dtype="bf16")
    kernel("f32", (a, b, c), dtype="f32")
    for engine in ("fbgemm", "onednn"):
        if engine in torch.backends.quantized.supported_engines:
            torch.backends.quantized.engine = engine
            weight = torch.quantize_per_tensor(torch.from_numpy(w.T.astype(np.float32) * 0.01), 0.01, 0, torch.qint8)
            packed = torch.ops.quantized.linear_prepack(weight, None)
            data = torch.quantize_per_tensor(torch.from_numpy(x.astype(np.float32) * 0.1), 0.1, 0, torch.quint8)
            found[f"torch {engine}"] = lambda data=data, packed=packed: torch.ops.quantized.linear(data, packed, 1.0, 0)
    return found


def seconds(call: Callable[[], object], repeats: int) -> float:
    """CPU seconds of one call."""
    start = time.thread_time()
    for _ in range(repeats):
        call()
    return (time.thread_time() - start) / repeats


def main() -> None:
    """Time the sets and print geometric means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="avx2")
    parser.add_argument("--sets", default="resnet50,bert")
    parser.add_argument("--rounds", type=int, default=9)
    said = parser.parse_args()
    torch.set_num_threads(1)
    limits = {name: os.environ.get(name, "-") for name in ("ATEN_CPU_CAPABILITY", "FBGEMM_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA")}
    print(
        f"{cpu()}; torch {torch.__version__} {torch.backends.cpu.get_cpu_capability()} {limits}; load {os.getloadavg()[0]:.1f}", flush=True
    )
    for set_name in said.sets.split(","):
        ratios: dict[str, list[float]] = {}
        for name, shape in SETS[set_name].items():
            with tempfile.TemporaryDirectory() as folder:
                calls = contenders(Path(folder), said.target, shape)
                repeats = {each: int(SAMPLE_S / max(min(seconds(call, 1), seconds(call, 1)), 1e-9)) + 1 for each, call in calls.items()}
                times: dict[str, list[float]] = {each: [] for each in calls}
                for _ in range(said.rounds):
                    for each, call in calls.items():
                        times[each].append(seconds(call, repeats[each]))
            middle = {each: statistics.median(values) for each, values in times.items()}
            best = min(value for each, value in middle.items() if each.startswith("torch"))
            for label, value in (("u8s8 to torch", best / middle["u8s8"]), ("s8s8 to torch", best / middle["s8s8"])):
                ratios.setdefault(label, []).append(value)
            ratios.setdefault("bf16 to f32", []).append(middle["f32"] / middle["bf16"])
            speeds = "  ".join(f"{each} {2e-9 * shape[0] * shape[1] * shape[2] / value:.1f}" for each, value in middle.items())
            print(f"{set_name} {name:12} {speeds}", flush=True)
        for label, values in ratios.items():
            print(f"== {set_name} {said.target} {label}: {statistics.geometric_mean(values):.3f}", flush=True)


if __name__ == "__main__":
    main()
