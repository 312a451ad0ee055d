"""What may decide the cycles of a mapping on Gemmini, as counts of the cost model, [B] each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilewright import loopnest as ln
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS

Floats = NDArray[np.float64]

LEVELS = ("Registers", "Accumulator", "Scratchpad", "DRAM")
#: Bytes of the longest memory request.
REQUEST = 64

#: Resources of the calibrated roofline, in cycles or in units of which each may take some.
MECHANISMS = (
    "compute", "streaming", "dram", "input rows", "weight rows", "output rows",
    "input requests", "weight requests", "output requests", "outer steps",
)  # fmt: skip
#: Features that need no analytical latency.
PLAIN = (
    "outer steps",
    "rows per block",
    "down",
    "across",
    "C tile",
    "K tile",
    "PQ tile",
    "RS tile",
    "macs",
    "inputs",
    "weights",
    "sums",
    "reread",
)
#: All features of the residual.
ALL = ("roofline", *MECHANISMS[:3], "scratchpad", "accumulator", "preloads", *MECHANISMS[3:], *PLAIN[1:])


@dataclass(frozen=True)
class Features:
    """Named columns of one batch."""

    columns: dict[str, Floats]

    def table(self, names: tuple[str, ...]) -> Floats:
        """``[B, F]``."""
        return np.stack([self.columns[name] for name in names], axis=1)


def features(batch: ln.Batch) -> Features:
    """Features of valid mappings; `InvalidInput` when the architecture is not built like Gemmini."""
    problem = batch.problem
    if problem.levels != LEVELS or set(problem.tensors) != {WEIGHTS, INPUTS, OUTPUTS}:
        raise InvalidInput(
            f"learned: levels {', '.join(problem.levels)}, expected those of gemmini ({', '.join(LEVELS)}), and weights as an operand"
        )
    side = problem.architecture.level("Accumulator").instances
    evaluation = ln.evaluate(batch)
    weights, inputs, outputs = (problem.index(name) for name in (WEIGHTS, INPUTS, OUTPUTS))
    macs = np.full(len(batch), float(problem.operator.macs))

    def product(names: str, *parts: NDArray[np.int64]) -> Floats:
        dims = [problem.dims.index(name) for name in names if name in problem.dims]
        return np.asarray(np.prod([part[:, :, dims].astype(float).prod(axis=(1, 2)) for part in parts], axis=0))

    inside = batch.temporal[:, :3], batch.spatial[:, :3]
    down, across = batch.spatial[:, 1].astype(float).prod(axis=1), batch.spatial[:, 2].astype(float).prod(axis=1)
    loaded = evaluation.fills[:, 0, weights] * down * across
    blocks = loaded / (down * across)
    rows = macs / loaded
    moved = {
        "input": (evaluation.fills[:, 2, inputs].astype(float), product("C", *inside)),
        "weight": (evaluation.fills[:, 2, weights].astype(float), product("K", *inside)),
        "output": ((evaluation.updates + evaluation.reads)[:, 3, outputs].astype(float), product("K", *inside)),
    }
    columns = {
        "roofline": evaluation.cycles.astype(float),
        "compute": macs / (down * across),
        # A block of weights stays for at least as many cycles as loading the next one takes.
        "streaming": blocks * np.maximum(rows, side),
        "preloads": blocks * side,
        "dram": evaluation.level_cycles[:, 3].astype(float),
        "scratchpad": evaluation.level_cycles[:, 2].astype(float),
        "accumulator": evaluation.level_cycles[:, 1].astype(float),
        "outer steps": batch.temporal[:, 3].astype(float).prod(axis=1),
        "rows per block": rows,
        "down": down,
        "across": across,
        "C tile": product("C", *inside),
        "K tile": product("K", *inside),
        "PQ tile": product("PQ", *inside),
        "RS tile": product("RS", *inside),
        "macs": macs,
        "inputs": moved["input"][0],
        "weights": moved["weight"][0],
        "sums": evaluation.updates[:, 3, outputs].astype(float),
        "reread": evaluation.reads[:, 3, outputs].astype(float),
    }
    for name, (words, contiguous) in moved.items():
        # Words lie next to each other along channels: the array takes `side` of them at once, a request `REQUEST` bytes.
        columns[f"{name} rows"] = words / np.minimum(contiguous, side)
        columns[f"{name} requests"] = words / np.minimum(contiguous, REQUEST)
    return Features(columns)
