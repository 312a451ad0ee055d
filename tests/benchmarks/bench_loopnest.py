"""Mappings evaluated per CPU-second by the cost model, on one core.

``python tests/benchmarks/bench_loopnest.py [--json]``. Batches of 10,000 random perfect factorizations, every loop of
every level in play; the best of five repeats in CPU time of this process. Bars: 200,000 / 80,000 / 40,000 per CPU-second
for a GEMM on a Gemmini-like machine, a 3x3 convolution with halos on a Simba-like one, and the same on six levels that
all keep all tensors; 20,000 for torch forward and backward; under 1 GB of memory.

The reference mapper's own rates (valid mappings per CPU-second, median over layers, measured on a shared 2-core virtual
machine) stand beside them: 193 on the Gemmini-like machine, 10 on the Simba-like one.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import msgspec
import numpy as np

from tilewright import loopnest as ln
from tilewright.protocol import registry
from tilewright.protocol.architecture import Architecture
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS, Operator, conv2d, matmul

BATCH = 10_000
REPEATS = 5
GEMM = matmul(p=512, c=768, k=3072)
CONV = conv2d(r=3, s=3, p=56, q=56, c=64, k=64)


def everywhere(architecture: Architecture) -> Architecture:
    """The same machine with all tensors kept at every level."""
    tensors = (WEIGHTS, INPUTS, OUTPUTS)
    levels = tuple(msgspec.structs.replace(level, keeps=tensors, may_keep=()) for level in architecture.levels)
    return msgspec.structs.replace(architecture, levels=levels)


def batch(problem: ln.Problem, size: int = BATCH, seed: int = 0) -> ln.Batch:
    """Random prime factors anywhere, in time or in space, in random order."""
    rng = np.random.default_rng(seed)
    shape = (size, len(problem.levels), len(problem.dims))
    temporal, spatial = np.ones(shape, np.int64), np.ones(shape, np.int64)
    rows = np.arange(size)
    for d, bound in enumerate(problem.bounds.tolist()):
        prime = 2
        while bound > 1:
            while bound % prime == 0:
                at, across = rng.integers(0, shape[1], size), rng.random(size) < 0.3
                spatial[rows[across], at[across], d] *= prime
                temporal[rows[~across], at[~across], d] *= prime
                bound //= prime
            prime += 1
    order = np.argsort(rng.random(shape), axis=2).astype(np.int8)
    keep = np.broadcast_to(ln.default_keep(problem), (size, shape[1], len(problem.tensors))).copy()
    return ln.Batch(problem, temporal, spatial, rng.integers(0, 2, shape).astype(np.int8), order, keep)


def rate(work: Callable[[], object]) -> float:
    """Mappings per CPU-second, the best of some repeats."""
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return BATCH / min(seconds)


def torch_step(problem: ln.Problem, mappings: ln.Batch) -> Callable[[], object]:
    """Forward and backward of the log of the EDP."""
    import torch

    from tilewright.loopnest.real import evaluate_real

    torch.set_num_threads(1)
    temporal = torch.tensor(mappings.temporal, dtype=torch.float64, requires_grad=True)
    spatial = torch.tensor(mappings.spatial, dtype=torch.float64, requires_grad=True)

    def step() -> object:
        result = evaluate_real(problem, temporal, spatial, mappings.order, mappings.keep)
        torch.log(result.edp).sum().backward()
        return temporal.grad

    return step


def main() -> None:
    """Measure and print."""
    gemmini = registry.load("targets", "gemmini").architecture()
    simba = registry.load("targets", "simba").architecture()
    cases: list[tuple[str, Operator, Architecture, float, float]] = [
        ("Gemmini-like, GEMM", GEMM, gemmini, 200_000, 193.1),
        ("Simba-like, conv 3x3", CONV, simba, 80_000, 10.1),
        ("six levels, all tensors everywhere, conv 3x3", CONV, everywhere(simba), 40_000, 0.0),
    ]
    results = []
    for name, operator, architecture, bar, reference in cases:
        problem = ln.Problem(operator, architecture)
        mappings = batch(problem)
        row = {"case": name, "levels": len(problem.levels), "numpy": rate(lambda mappings=mappings: ln.evaluate(mappings)), "bar": bar}  # type: ignore[misc]
        row["ratio to the reference mapper"] = row["numpy"] / reference if reference else None  # type: ignore[operator]
        row["walk"] = rate_walk(operator, architecture, mappings)
        row["memory MB, numpy"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        try:
            row["torch forward + backward"] = rate(torch_step(problem, mappings))
        except ImportError:
            row["torch forward + backward"] = None
        row["memory MB, torch"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        results.append(row)
    if "--json" in sys.argv:
        print(json.dumps(results))
        return
    for row in results:
        print(row["case"])
        for key, value in row.items():
            if key != "case" and value is not None:
                print(f"    {key:32} {value:12,.0f}")


def rate_walk(operator: Operator, architecture: Architecture, mappings: ln.Batch) -> float:
    """The same batch under the walk semantics."""
    walked = mappings[:]
    walked.problem = ln.Problem(operator, architecture, semantics="walk")
    return rate(lambda: ln.evaluate(walked))


if __name__ == "__main__":
    main()
