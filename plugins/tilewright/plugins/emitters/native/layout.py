"""Where the words of an operator's tensors lie, in numbers: what the C tables of a kernel and of its test are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS, Operator

#: C names of the arguments that hold the tensors.
POINTERS: Mapping[str, str] = {INPUTS: "inputs", WEIGHTS: "weights", OUTPUTS: "outputs"}


@dataclass(frozen=True)
class RankTable:
    """One index of a tensor in numbers: coefficient of every dim, offset, and extent minus what the dims reach."""

    steps: tuple[int, ...]
    offset: int
    beyond: int


def tables(operator: Operator, tensor: str) -> list[RankTable]:
    """One table per index of a tensor."""
    bounds = operator.bounds
    result = []
    for rank in operator.tensor(tensor).ranks:
        steps = {term.dim: term.coefficient for term in rank.terms}
        reach = 1 + sum(factor * (bounds[dim] - 1) for dim, factor in steps.items())
        beyond = 0 if rank.extent is None else rank.extent - reach
        result.append(RankTable(tuple(steps.get(dim.name, 0) for dim in operator.dims), rank.offset, beyond))
    return result


def extents(operator: Operator, tensor: str, bounds: Mapping[str, int]) -> list[int]:
    """Extents of a tensor when the dims have other bounds; windows and padding stay as they are."""
    sizes = list(bounds.values())
    return [1 + t.beyond + sum(step * (size - 1) for step, size in zip(t.steps, sizes, strict=True)) for t in tables(operator, tensor)]


def stride(operator: Operator, tensor: str, dim: str) -> str:
    """C expression for the words between neighbours along a dim."""
    at = [d.name for d in operator.dims].index(dim)
    short = POINTERS[tensor]
    terms = [f"{t.steps[at]} * {short}_stride_{rank}" for rank, t in enumerate(tables(operator, tensor)) if t.steps[at]]
    return " + ".join(term.removeprefix("1 * ") for term in terms) or "0"
