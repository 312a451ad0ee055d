"""Generated matrix products against libraries, all called from one C harness on one core.

    python tests/benchmarks/bench_gemm.py [--sets resnet50,bert] [--target avx512] [--tune] [--json FILE]

Seconds are this thread's CPU time. Every contender runs once per round, in rotating order; a ratio is one of medians over rounds. The
library that counts as best for a shape is chosen in one set of rounds and timed in another, with our configuration fixed before both.
Intervals (95 %) come from resampling rounds. Libraries that are not installed are left out and named. Pin it: `taskset -c 1 python ...`.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from gemm_shapes import BARS, SETS

from tilewright.plugins.emitters.native import Native
from tilewright.plugins.emitters.native.measure import numpy_blas
from tilewright.plugins.emitters.native.source import generate
from tilewright.plugins.emitters.native.toolchain import cpu
from tilewright.plugins.emitters.native.tune import tournament
from tilewright.protocol import registry
from tilewright.protocol.plugin import EmitRequest
from tilewright.protocol.workload import matmul

HERE = Path(__file__).parent
OWN, CBLAS32, CBLAS64, ONEDNN, EIGEN, XSMM = range(6)
#: CPU seconds of one sample, at least.
SAMPLE_S = 0.004
#: LIBXSMM unrolls a whole product into code: meant for small ones.
XSMM_MOST = 130_000_000
Contenders = dict[str, tuple[int, ctypes.c_void_p]]


def harness(folder: Path) -> ctypes.CDLL:
    """The C++ harness, with Eigen where it is installed."""
    eigen = ["-DWITH_EIGEN", "-I/usr/include/eigen3"] if Path("/usr/include/eigen3/Eigen/Dense").exists() else []
    target = folder / "harness.so"
    source = HERE / "bench_gemm_harness.cpp"
    subprocess.run(["g++", "-O3", "-march=native", "-DNDEBUG", *eigen, "-shared", "-fPIC", str(source), "-o", str(target)], check=True)
    library = ctypes.CDLL(str(target))
    library.bench_time.restype = ctypes.c_double
    library.bench_prepare.restype = ctypes.c_void_p
    return library


def libraries(folder: Path) -> Contenders:
    """Every installed library: how it is called, and its function."""
    found: Contenders = {}
    if "OPENBLAS_CORETYPE" in os.environ:
        raise SystemExit("OPENBLAS_CORETYPE is set, expected OpenBLAS to pick its own kernels")
    os.environ |= {name: "1" for name in ("OMP_NUM_THREADS", "BLIS_NUM_THREADS")}

    def add(name: str, kind: int, path: str, *symbols: str) -> None:
        try:
            library = ctypes.CDLL(path)
        except OSError:
            return
        for symbol in symbols:
            if hasattr(library, symbol):
                found[name] = (kind, ctypes.cast(getattr(library, symbol), ctypes.c_void_p))
                return

    add("OpenBLAS (numpy)", CBLAS64, numpy_blas(), "scipy_cblas_sgemm64_", "cblas_sgemm64_")
    ctypes.CDLL(numpy_blas()).scipy_openblas_set_num_threads64_(1)
    add("BLIS", CBLAS32, "libblis.so.4", "cblas_sgemm")
    add("oneDNN", ONEDNN, "libdnnl.so.2", "dnnl_sgemm")
    found["Eigen"] = (EIGEN, ctypes.c_void_p(1))
    static = next((str(path) for path in Path("/usr/lib").glob("**/libxsmm.a")), "")
    if static:
        shared = str(folder / "libxsmm.so")
        noblas = static.replace("libxsmm.a", "libxsmmnoblas.a")
        built = subprocess.run(
            ["g++", "-shared", "-o", shared, "-Wl,--whole-archive", static, "-Wl,--no-whole-archive", noblas, "-ldl", "-lpthread"]
        )
        if not built.returncode:
            add("LIBXSMM", XSMM, shared, "libxsmm_smmdispatch")
    else:
        add("LIBXSMM", XSMM, "libxsmm.so.1", "libxsmm_smmdispatch")
    return found


def own(folder: Path, target: str, shape: tuple[int, int, int], tune: bool) -> tuple[ctypes.CDLL, ctypes.c_void_p, str]:
    """Our kernel for one shape, compiled: its library (to keep), its function, and what it is."""
    m, n, k = shape
    library = registry.load("targets", target).instructions()
    plan = Native().plan(EmitRequest(matmul(p=m, c=k, k=n, bits=32), target), library)
    if tune:
        plan = tournament(plan, Path.home() / ".cache" / "tilewright" / "tuning.json")
    plan = replace(plan, only_own_size=True)
    code = generate(plan)
    (folder / f"{plan.name}.c").write_text(code.source)
    (folder / f"{plan.name}.h").write_text(code.header)
    shared = folder / f"{plan.name}.so"
    flags = library.toolchains[0].flags
    subprocess.run(["gcc", *flags, "-DNDEBUG", "-shared", "-fPIC", str(folder / f"{plan.name}.c"), "-o", str(shared), "-lm"], check=True)
    loaded = ctypes.CDLL(str(shared))
    blocks = plan.blocks
    letters = "a" * blocks.pack_a + "b" * blocks.pack_b + "s" * blocks.strips_first
    said = f"{plan.tile.rows}x{plan.tile.columns(plan.lanes)} kc{blocks.depth} {letters}".rstrip()
    return loaded, ctypes.cast(getattr(loaded, plan.name), ctypes.c_void_p), said


class Race:
    """Contenders of one shape, timed in rounds."""

    def __init__(self, timer: ctypes.CDLL, shape: tuple[int, int, int], contenders: Contenders) -> None:
        self.timer, self.shape = timer, shape
        m, n, k = shape
        rng = np.random.default_rng(m + n + k)
        self.a, self.b = (self._aligned(size, rng) for size in (m * k, k * n))
        self.c = self._aligned(m * n, rng)
        self.functions: dict[str, tuple[int, ctypes.c_void_p]] = {}
        self.repeats: dict[str, int] = {}
        exact = self.a.reshape(m, k).astype(np.float64) @ self.b.reshape(k, n)
        for name, (kind, symbol) in contenders.items():
            if kind == XSMM and m * n * k > XSMM_MOST:
                continue
            prepared = timer.bench_prepare(kind, symbol, m, n, k)
            if not prepared:
                continue
            self.functions[name] = (kind, ctypes.c_void_p(prepared))
            self.repeats[name] = 1
            self.c[:] = np.nan
            once = min(self.seconds(name), self.seconds(name))
            error = np.abs(self.c.reshape(m, n) - exact).max()
            if not error <= (k + 2) * k * 2.0**-24:
                raise SystemExit(f"{name} is wrong at {shape}: {error}")
            self.repeats[name] = max(1, int(SAMPLE_S / max(once, 1e-9)) + 1)

    @staticmethod
    def _aligned(size: int, rng: np.random.Generator) -> np.ndarray:
        memory = np.empty(size + 1024, np.float32)
        start = -memory.ctypes.data % 4096 // 4
        memory[:] = rng.uniform(-1, 1, size + 1024)
        return memory[start : start + size]

    def seconds(self, name: str) -> float:
        """CPU seconds of one call."""
        kind, function = self.functions[name]
        pointers = (ctypes.c_void_p(each.ctypes.data) for each in (self.a, self.b, self.c))
        return self.timer.bench_time(kind, function, *self.shape, *pointers, self.repeats[name]) / self.repeats[name]

    def rounds(self, names: list[str], count: int) -> dict[str, np.ndarray]:
        """Seconds of every contender in every round."""
        times = {name: np.zeros(count) for name in names}
        for number in range(count):
            for at in range(len(names)):
                name = names[(at + number) % len(names)]
                times[name][number] = self.seconds(name)
        return times


def interval(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float, float]:
    """Geometric mean over shapes of the ratio of medians (theirs / ours), and its 95 % interval over resampled rounds."""
    rng = np.random.default_rng(0)
    logs = np.zeros(1000)
    for theirs, ours in pairs:
        pick = rng.integers(0, len(ours), (1000, len(ours)))
        logs += np.log(np.median(theirs[pick], axis=1) / np.median(ours[pick], axis=1))
    centre = np.exp(np.mean([np.log(np.median(theirs) / np.median(ours)) for theirs, ours in pairs]))
    low, high = np.quantile(np.exp(logs / len(pairs)), (0.025, 0.975))
    return float(centre), float(low), float(high)


def main() -> None:
    """Time the sets and say which bars are met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--target", default="avx2")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--only", default="", help="shape names, comma-separated")
    parser.add_argument("--choose", type=int, default=5, help="rounds in which the best library is chosen")
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds")
    parser.add_argument("--json", default="")
    said = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        timer, others = harness(folder), libraries(folder)
        print(f"{cpu()}; libraries: {', '.join(others)}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs", flush=True)
        for set_name in said.sets.split(","):
            against_openblas, against_best = [], []
            for shape_name, shape in SETS[set_name].items():
                if said.only and shape_name not in said.only.split(","):
                    continue
                kept, function, what = own(folder, said.target, shape, said.tune)
                race = Race(timer, shape, {**others, "own": (OWN, function)})
                names = [each for each in race.functions if each != "own"]
                chosen = race.rounds(names, said.choose)
                best = min(names, key=lambda each: float(np.median(chosen[each])))
                timed = race.rounds(list(dict.fromkeys(["own", "OpenBLAS (numpy)", best])), said.rounds)
                against_openblas.append((timed["OpenBLAS (numpy)"], timed["own"]))
                against_best.append((timed[best], timed["own"]))
                speed = 2e-9 * shape[0] * shape[1] * shape[2]
                medians = {each: speed / float(np.median(times)) for each, times in timed.items()}
                ratio, low, high = interval(against_best[-1:])
                print(
                    f"{set_name:9} {shape_name:12} {'x'.join(map(str, shape)):16} own {medians['own']:6.1f} ({what})"
                    f"  OpenBLAS {medians['OpenBLAS (numpy)']:6.1f}  best {best} {medians[best]:6.1f}"
                    f"  ratio {ratio:.3f} [{low:.3f}, {high:.3f}]  to OpenBLAS {interval(against_openblas[-1:])[0]:.3f}",
                    flush=True,
                )
                results.append({"set": set_name, "name": shape_name, "shape": shape, "own": what, "best": best, "gflops": medians})
                del kept
            for label, pairs, bar in zip(("OpenBLAS", "the best library"), (against_openblas, against_best), BARS[set_name], strict=True):
                ratio, low, high = interval(pairs)
                verdict = "met" if high >= bar else "missed"
                print(f"== {set_name} {said.target}: {ratio:.3f} [{low:.3f}, {high:.3f}] of {label}; bar {bar:.2f} {verdict}", flush=True)
                results.append(
                    {"set": set_name, "against": label, "ratio": ratio, "low": low, "high": high, "bar": bar, "verdict": verdict}
                )
        print(f"load {os.getloadavg()[0]:.1f}")
    if said.json:
        Path(said.json).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
