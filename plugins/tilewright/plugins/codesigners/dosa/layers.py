"""Layers as DOSA sees them: seven dims, two strides, a count; and mappings back to the operators they came from.

Symbols: ``N`` layers; ``D`` = 7 dims in the order of `DIMS`; ``L`` = 4 levels, innermost first (registers, accumulator,
scratchpad, DRAM).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilewright.protocol.architecture import Architecture
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.plugin import WeightedWorkload
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS, Operator

DIMS = ("R", "S", "P", "Q", "C", "K", "N")
R, S, P, Q, C, K, N = range(7)
LEVELS = 4
#: Dims at every level but DRAM, innermost first, and at DRAM to start with: CoSA for Gemmini does not decide it.
INNER_ORDER = (P, Q, N, C, R, S, K)
#: What lives at each level.
KEEP = ((WEIGHTS,), (OUTPUTS,), (WEIGHTS, INPUTS), (WEIGHTS, INPUTS, OUTPUTS))

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Layers:
    """The distinct contractions of some workloads."""

    operators: tuple[Operator, ...]
    #: int64[N, D].
    bounds: Ints
    #: int64[N, 2]: of P (with R) and of Q (with S).
    strides: Ints
    #: float64[N]: repetitions times weights of the workloads, and times groups: runs of the dims above.
    weights: NDArray[np.float64]
    counts: NDArray[np.float64]
    #: What stands for dim N in each operator: ``N``, ``H`` (query heads that share one second operand) or nothing.
    batch: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.operators)

    @classmethod
    def of(cls, workloads: Sequence[WeightedWorkload]) -> Layers:
        """The contractions in the order of the workloads' tasks; `InvalidInput` for one with other dims or dilated taps.

        Groups (dim G: heads, depthwise channels) run one after another, so they multiply the count.
        """
        operators, bounds, strides, weights, groups, batch = [], [], [], [], [], []
        for each in workloads:
            for task in each.workload.tasks:
                if not task.operator.is_contraction:
                    continue
                sizes = {dim.name: dim.bound for dim in task.operator.dims}
                groups.append(sizes.pop("G", 1))
                name = "H" if "H" in sizes else "N" if "N" in sizes else ""
                if "H" in sizes and "N" not in sizes:
                    sizes["N"] = sizes.pop("H")
                if unknown := sorted(set(sizes) - set(DIMS)):
                    raise InvalidInput(
                        f"operator of {task.name}: dims {', '.join(unknown)}, expected some of {', '.join(DIMS)}, G, and H or N"
                    )
                operators.append(task.operator)
                bounds.append([sizes.get(dim, 1) for dim in DIMS])
                strides.append(_strides(task.operator, task.name))
                weights.append(task.count * each.weight)
                batch.append(name)
        if not operators:
            raise InvalidInput("workloads: no contraction among their operators, expected at least one to design for")
        weighted = np.array(weights, dtype=float)
        return cls(tuple(operators), np.array(bounds), np.array(strides), weighted, weighted * groups, tuple(batch))

    def factors(self, layer: int, mapping: Mapping) -> tuple[Ints, Ints]:
        """A mapping of the operator of this layer as spatial and temporal factors, int64[L, D] each."""
        at = {name: d for d, name in enumerate(DIMS)} | {self.batch[layer]: N}
        spatial, temporal = np.ones((LEVELS, len(DIMS)), dtype=np.int64), np.ones((LEVELS, len(DIMS)), dtype=np.int64)
        for index, level in enumerate(mapping.levels):
            for block, loops in ((spatial, level.spatial), (temporal, level.temporal)):
                for loop in loops:
                    if loop.dim in at:
                        block[index, at[loop.dim]] *= loop.factor
        return spatial, temporal

    def mapping(self, layer: int, architecture: Architecture, spatial: Ints, temporal: Ints, order: Ints) -> Mapping:
        """The mapping with these factors (int64[L, D] each) and this order at DRAM (int64[D]); groups are its outermost loop."""
        names = [self.batch[layer] if d == N else name for d, name in enumerate(DIMS)]
        levels = []
        for index, level in enumerate(architecture.levels):
            inner = order if index == LEVELS - 1 else np.array(INNER_ORDER)
            temporal_loops = [Loop(names[d], int(temporal[index, d])) for d in inner if temporal[index, d] > 1]
            if index == LEVELS - 1:
                temporal_loops += [Loop("G", dim.bound) for dim in self.operators[layer].dims if dim.name == "G" and dim.bound > 1]
            spatial_loops = tuple(Loop(names[d], int(spatial[index, d])) for d in range(len(DIMS)) if spatial[index, d] > 1)
            levels.append(LevelMapping(level.name, spatial_loops, tuple(temporal_loops), KEEP[index]))
        return Mapping(tuple(levels))


def _strides(operator: Operator, name: str) -> list[int]:
    """Strides of P and Q; 1 where nothing slides."""
    strides = {"P": 1, "Q": 1}
    for rank in operator.tensor(INPUTS).ranks:
        steps = {term.dim: term.coefficient for term in rank.terms}
        for dim, step in steps.items():
            if dim in strides:
                strides[dim] = step
            elif step != 1:
                raise InvalidInput(
                    f"operator of {name}: dim {dim} of its inputs has the step {step}, expected 1 (DOSA's model has no dilation)"
                )
    return [strides["P"], strides["Q"]]
