"""What the passes of a generation take together on target and machines.

A few steps are placed on the rooflines, and the others lie on lines between them: right where what binds an operator stays the same
in between. Where it changes, the time of the operator is convex in the context, so the sum is too high, never too low.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence

from tilewright.protocol.architecture import Architecture
from tilewright.protocol.passes import Count
from tilewright.protocol.plugin import Options
from tilewright.protocol.profile import Machine, Prediction
from tilewright.protocol.workload import Workload

from .placing import predictions

#: Node and class.
Key = tuple[str, str]


def times(
    loaded: Sequence[tuple[Options, Workload]], count: Count, known: Collection[Key], target: Architecture, machines: Sequence[Machine]
) -> dict[Key, tuple[Prediction, ...]]:
    """Seconds of every node over all passes; `known` are the nodes of the steps, others are named ``prompt: NODE``."""
    steps = sorted((each for each in loaded if "ctx" in each[0]), key=lambda each: each[0]["ctx"])
    weights = trapezoids([int(options["ctx"]) for options, _ in steps])
    passes = [
        *zip(weights, (workload for _, workload in steps), strict=True),
        *((1.0, each) for options, each in loaded if "ctx" not in options),
    ]
    shares: dict[Key, list[dict[str, float]]] = {}
    for weight, workload in passes:
        operators = {node.id: workload.operators[node.operator] for node in workload.nodes}
        for item in count(workload):
            key = (item.node, item.kind)
            placed = predictions(operators[item.node], item, target, machines)
            sums = shares.setdefault(key if key in known else (f"prompt: {item.node}", item.kind), [{} for _ in placed])
            for share, each in zip(sums, placed, strict=True):
                share[each.bound_by] = share.get(each.bound_by, 0.0) + weight * each.seconds
    names = (target.name, *(machine.name for machine in machines))
    return {key: tuple(_prediction(name, share) for name, share in zip(names, found, strict=True)) for key, found in shares.items()}


def _prediction(machine: str, share: Mapping[str, float]) -> Prediction:
    return Prediction(machine, sum(share.values()), max(share, key=lambda resource: share[resource]))


def trapezoids(contexts: Sequence[int]) -> list[float]:
    """Weights by which the values at these steps, in order, add up to those of all steps from the first to the last."""
    found = [0.0] * len(contexts)
    if contexts:
        found[0] = 1.0
    for at, (low, high) in enumerate(itertools.pairwise(contexts)):
        found[at] += (high - low - 1) / 2
        found[at + 1] += (high - low + 1) / 2
    return found
