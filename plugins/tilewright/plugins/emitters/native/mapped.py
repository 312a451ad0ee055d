"""Cache blocks from a mapping: what its L1 and L2 levels hold at a time.

A mapping's cost model knows capacities and traffic, but neither the latency of a multiply-add nor the masks of an edge: the register
tile is therefore chosen by `tiles` all the same.
"""

from __future__ import annotations

import math
from dataclasses import replace

from tilewright.protocol.mapping import Mapping

from .operands import Product
from .schedule import Tile
from .tiles import Blocks

#: Positions of the levels, innermost first: registers, L1, L2.
_L1, _L2 = 1, 2


def blocks_of(mapping: Mapping, product: Product, tile: Tile, lanes: int, model: Blocks) -> Blocks:
    """Depth of a pass from L1, rows and columns of a block from L2, the outer loop from the order at L2; packing as in `model`.

    A mapping of fewer levels says nothing, and `model` stands.
    """
    if len(mapping.levels) <= _L2:
        return model
    m, n, k = product.shape
    width = tile.columns(lanes)
    columns = min(-(-n // width) * width, -(-_held(mapping, _L2, product.columns) // width) * width)
    strips_first = _outer(mapping, product)
    return replace(
        model,
        rows=min(m, max(tile.rows, _held(mapping, _L2, product.rows))),
        depth=max(1, min(k, _held(mapping, _L1, product.depth))),
        columns=columns if strips_first else width,
        strips_first=strips_first,
        pack_a=model.pack_a and not strips_first,
    )


def _held(mapping: Mapping, last: int, dims: tuple[str, ...]) -> int:
    """Steps of some dims within the tile of a level."""
    levels = mapping.levels[: last + 1]
    return math.prod(loop.factor for level in levels for loop in (*level.spatial, *level.temporal) if loop.dim in dims)


def _outer(mapping: Mapping, product: Product) -> bool:
    """True when, over the tiles in L2, rows move outside of columns."""
    order = [loop.dim for loop in mapping.levels[_L2].temporal if loop.factor > 1]
    rows = [at for at, dim in enumerate(order) if dim in product.rows]
    columns = [at for at, dim in enumerate(order) if dim in product.columns]
    return bool(rows and columns) and columns[0] < rows[0]
