"""The roofline (Williams, Waterman, Patterson, CACM 2009): no operator is faster than its arithmetic, nor than its compulsory traffic.

Compulsory traffic moves every operand once out of the outermost memory and the result once into it. Bandwidths are those
of the architecture, in bits per cycle over all instances of that memory.
"""

from __future__ import annotations

from tilewright.protocol.architecture import Architecture, Level
from tilewright.protocol.messages import OperatorProfile
from tilewright.protocol.profile import Prediction
from tilewright.protocol.workload import Node, Operator, Task

COMPUTE = "compute"
#: Said beside the memory of a non-linear operator on an architecture without a unit for it: its arithmetic has no price.
UNPRICED = "no special function unit"


def operator_profile(task: Task, architecture: Architecture) -> OperatorProfile:
    """One distinct operator; `cycles` are those of one occurrence."""
    operator = task.operator
    memory = architecture.levels[-1]
    compute, moving = compute_cycles(operator, architecture), memory_cycles(operator, memory)
    bound_by = COMPUTE if compute is not None and compute >= moving else memory.name
    return OperatorProfile(
        name=task.name,
        function="contraction" if operator.is_contraction else operator.function,
        count=task.count,
        macs=operator.macs,
        flops=operator.flops,
        read_bytes=operator.read_bytes,
        write_bytes=operator.write_bytes,
        arithmetic_intensity=operator.arithmetic_intensity,
        cycles=max(compute or 0.0, moving),
        bound_by=bound_by if compute is not None else f"{memory.name} ({UNPRICED})",
    )


def on_target(operator: Operator, architecture: Architecture) -> Prediction:
    """Time of one occurrence on a target."""
    profile = operator_profile(Task(0, operator, 1, (Node("", 0),)), architecture)
    return Prediction(architecture.name, profile.cycles / (architecture.clock_ghz * 1e9), profile.bound_by)


def compute_cycles(operator: Operator, architecture: Architecture) -> float | None:
    """Cycles of the arithmetic with every unit busy; None when nothing says how fast it is."""
    if operator.is_contraction:
        return operator.macs / architecture.peak_macs_per_cycle
    unit = architecture.special_function_unit
    return None if unit is None else operator.iterations / unit.lanes


def memory_cycles(operator: Operator, memory: Level) -> float:
    """Cycles of the compulsory traffic; 0 where bandwidth is unlimited."""
    read, written = 8 * operator.read_bytes, 8 * operator.write_bytes
    limits = ((read, memory.read_bandwidth), (written, memory.write_bandwidth), (read + written, memory.shared_bandwidth))
    return max((bits / (words * memory.word_bits * memory.instances) for bits, words in limits if words), default=0.0)
