"""Where DOSA starts: hardware drawn as its released code draws it, and the mappings that CoSA finds for it."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
from msgspec.structs import replace

from tilewright.protocol.architecture import Constraints
from tilewright.protocol.plugin import Context, MapRequest

from .layers import INNER_ORDER, Ints, Layers
from .space import Sizes, Space

#: Items of the list that the released code draws one of and does not use; it is drawn all the same, for the sake of the seeds.
UNUSED = 12
#: CoSA for Gemmini gives weights and inputs the whole scratchpad each; the `cosa` mapper divides it between them. (It also counts the
#: halo of the inputs, which the published one does not: where a start is near `search.REJECTED` that can decide.)
SHARERS = 2


def hardware(seed: int) -> Iterator[Sizes]:
    """Start hardware of a seed, without end: side of the array 2 to 128, KiB of scratchpad and accumulator 1 to 2048, powers of two."""
    draw = random.Random(seed)  # noqa: S311 (reproduces the published draws)
    while True:
        draw.randrange(UNUSED)
        yield 2 ** draw.randrange(1, 8), 2 ** draw.randrange(0, 12), 2 ** draw.randrange(0, 12)


def mappings(layers: Layers, space: Space, sizes: Sizes, ctx: Context) -> tuple[Ints, Ints, Ints] | None:
    """CoSA's mappings of all layers for some hardware: spatial and temporal factors int64[N, 4, D], first orders at DRAM int64[N, D].

    None when CoSA finds none for some layer. The mapper's own evaluations (one per layer, more where it repairs) count.
    """
    cosa = ctx.plugin("mappers", "cosa")
    architecture = space.architecture(sizes)
    roomy = [
        replace(level, capacity_bits=SHARERS * level.capacity_bits) if level.name == space.scratchpad and level.capacity_bits else level
        for level in architecture.levels
    ]
    architecture = replace(architecture, levels=tuple(roomy))
    constraints = Constraints(
        tuple(replace(each, temporal_dims=()) if each.level == space.scratchpad else each for each in space.constraints.levels)
    )
    found = []
    for layer, operator in enumerate(layers.operators):
        request = MapRequest(
            operator,
            architecture,
            constraints,
            options={"split": 1 / SHARERS},
        )
        mapping = next((candidate.mapping for candidate in cosa.search(request, ctx)), None)
        if mapping is None:
            return None
        found.append(layers.factors(layer, mapping))
    spatial, temporal = (np.stack(blocks) for blocks in zip(*found, strict=True))
    return spatial, temporal, np.tile(np.array(INNER_ORDER), (len(layers), 1))
