"""Traffic between the outer memory and an on-chip memory of a given size, under the best tiling that a greedy search finds.

Every operator is cut into tiles whose operands and result fit on chip together; one tensor stays there while the loops that
do not touch it run innermost, and the others are moved for every tile. Partial sums that leave the chip come back in again. The
result is never less than compulsory traffic, equals it when everything fits, and is what a real loop nest can reach: an upper
bound on what is needed, not a lower one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tilewright.protocol.workload import Operator, Tensor


def tiled_bytes(operator: Operator, capacity_bytes: int) -> float | None:
    """Bytes moved with `capacity_bytes` on chip; None when not even single words of all tensors fit."""
    compulsory = float(operator.read_bytes + operator.write_bytes)
    bounds = operator.bounds
    if _footprint(operator, bounds) <= capacity_bytes:
        return compulsory
    best: float | None = None
    for kept in operator.tensors:
        found = _grow(operator, bounds, kept, capacity_bytes)
        if found is not None and (best is None or found < best):
            best = found
    return None if best is None else max(best + _bias_bytes(operator), compulsory)


def _bias_bytes(operator: Operator) -> float:
    return operator.bias_words * operator.bias_bits / 8


def _grow(operator: Operator, bounds: Mapping[str, int], kept: Tensor, capacity: int) -> float | None:
    """Double, again and again, the tile dim that saves most traffic, while it fits."""
    tile = dict.fromkeys(bounds, 1)
    if _footprint(operator, tile) > capacity:
        return None
    now = _traffic(operator, bounds, tile, kept)
    while True:
        steps = []
        for dim, bound in bounds.items():
            if tile[dim] < bound:
                wider = {**tile, dim: min(bound, 2 * tile[dim])}
                size = _footprint(operator, wider)
                if size <= capacity:
                    traffic = _traffic(operator, bounds, wider, kept)
                    steps.append((traffic - now, size, dim, wider, traffic))
        if not steps:
            return now
        saved, _, _, tile, now = min(steps, key=lambda step: step[:3])
        if saved > 0:
            return now - saved


def _footprint(operator: Operator, tile: Mapping[str, int]) -> float:
    """Bytes of all tensors of a tile."""
    return sum(_words(tensor, tile) * tensor.bits / 8 for tensor in operator.tensors)


def _words(tensor: Tensor, tile: Mapping[str, int]) -> int:
    """Words of a tensor that a tile touches; stored extents are never exceeded."""
    words = 1
    for rank in tensor.ranks:
        reach = 1 + sum(term.coefficient * (tile[term.dim] - 1) for term in rank.terms)
        words *= reach if rank.extent is None else min(reach, rank.extent)
    return words


def _traffic(operator: Operator, bounds: Mapping[str, int], tile: Mapping[str, int], kept: Tensor) -> float:
    """Bytes moved when `kept` stays while the loops that do not touch it run innermost."""
    trips = {dim: -(-bound // tile[dim]) for dim, bound in bounds.items()}
    total = 0.0
    for tensor in operator.tensors:
        own = math.prod(trips[dim] for dim in tensor.dims)
        moved = own * _words(tensor, tile) * tensor.bits / 8
        times = 1 if tensor is kept else math.prod(trips[dim] for dim in trips if dim not in tensor.dims)
        total += moved * (2 * times - 1 if tensor.name == operator.output else times)
    return total
