"""What an operator takes on a described processor at the roofline.

The roofline (Williams, Waterman, Patterson, CACM 2009) with one roof per memory: an operator is no faster than its
arithmetic, than its compulsory traffic from the outermost memory, or than what it moves between each memory and the next
inner one, whose size says how often data come again.
"""

from __future__ import annotations

from functools import lru_cache

from tilewright.protocol.profile import Machine, Prediction
from tilewright.protocol.workload import OUTPUTS, Operator

from .roofline import COMPUTE
from .tiling import tiled_bytes


def predict(operator: Operator, flops: float, moved: float, machine: Machine) -> Prediction:
    """Time of one occurrence: `flops` operations, `moved` compulsory bytes."""
    limits = [(COMPUTE, seconds)] if (seconds := _compute(operator, flops, machine)) is not None else []
    for at, memory in enumerate(machine.memories):
        inner = machine.memories[at - 1].capacity_bytes if at else None
        across = _tiled(operator, inner) if inner is not None and operator.is_contraction else None
        limits.append((memory.name, max(moved, across or 0.0) / memory.bytes_per_second))
    binding, seconds = max(limits, key=lambda limit: limit[1])
    return Prediction(machine.name, seconds, binding)


def _compute(operator: Operator, flops: float, machine: Machine) -> float | None:
    if operator.is_contraction:
        bits = max(tensor.bits for tensor in operator.tensors if tensor.name != OUTPUTS)
        return flops / machine.peak(bits)
    return None if machine.vector_ops_per_second is None else flops / machine.vector_ops_per_second


@lru_cache(maxsize=4096)
def _tiled(operator: Operator, capacity_bytes: int) -> float | None:
    return tiled_bytes(operator, capacity_bytes)
