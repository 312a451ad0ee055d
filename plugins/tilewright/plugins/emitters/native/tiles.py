"""Which register tile, and which cache blocks: the analytical choices that need no measurement.

Cache blocks follow T. M. Low et al., "Analytical Modeling Is Enough for High-Performance BLIS" (TOMS 2016): per level one
way is left for the operand that streams by, the other ways are shared by the two that stay in proportion to their size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.kernel import Cache, Instruction, InstructionLibrary

from .numbers import Numbers
from .schedule import Tile, multiplies_by_lane, registers

#: Cycles of one kernel call that do not scale with depth: call, loop entry, pipeline fill.
_CALL_CYCLES = 20.0
#: Loads issued per cycle.
_LOADS = 2.0
WORD_BYTES = 4
#: Rows of a streamed B that are read together.
_STREAM_DEPTH = 16


@dataclass(frozen=True)
class Blocks:
    """How a product is cut: sizes of a block, whether operands are copied into panels, and which loop runs outside.

    `strips_first`: one strip of rows passes all panels of columns before the next strip (strip in L1, B in L2); else one panel
    passes all strips (panel in L1, A in L2).
    """

    rows: int
    depth: int
    columns: int
    pack_a: bool
    pack_b: bool
    strips_first: bool


def largest_tiles(library: InstructionLibrary, numbers: Numbers, widest: int = 4) -> Iterator[Tile]:
    """For 1 to `widest` vectors, the tile with the most rows that fits the registers (whole vectors of rows, by lanes)."""
    file = library.register_file("vector")
    count = file.count if file else 0
    step = library.lanes[numbers.result] if multiplies_by_lane(library, numbers) else 1
    for vectors in range(1, widest + 1):
        fitting = [rows for rows in range(step, count, step) if sum(registers(Tile(rows, vectors), library, numbers)) <= count]
        if fitting:
            yield Tile(fitting[-1], vectors)


def edges(tile: Tile) -> Iterator[Tile]:
    """The tile and all smaller ones, each with whole vectors and with a partial last one."""
    for rows in range(tile.rows, 0, -1):
        for vectors in range(tile.vectors, 0, -1):
            yield Tile(rows, vectors)
            yield Tile(rows, vectors, masked=True)


def multiplier(library: InstructionLibrary, numbers: Numbers) -> Instruction:
    """The multiply-add of a number format; InvalidInput when the library has none."""
    for each in library.instructions:
        written = next((operand for operand in each.operands if operand.access == "inout" and operand.space == "vector"), None)
        if written is not None and written.type == numbers.result and ("*" in each.semantics or "fma(" in each.semantics):
            return each
    raise InvalidInput(f"{library.name} has no multiply-add into {numbers.result}, which dtype {numbers.name} needs")


def step_cycles(tile: Tile, library: InstructionLibrary, numbers: Numbers) -> float:
    """Cycles of one step of depth: multiply-add throughput, its latency where too few are in flight, or loads."""
    fma = multiplier(library, numbers)
    lanes = library.lanes[numbers.result]
    if multiplies_by_lane(library, numbers) and tile.rows % lanes == 0:
        loads = (tile.rows // lanes + tile.vectors) / _LOADS
    else:
        # Words of A in one column lie a row apart, often in one bank of the cache: they are read one per cycle.
        loads = tile.rows + tile.vectors / _LOADS
    return max(tile.rows * tile.vectors / fma.per_cycle, float(fma.latency), loads)


def balanced(total: int, most: int) -> dict[int, int]:
    """`total` in as few pieces of at most `most` as possible, sizes differing by at most one: {size: how many}."""
    count = -(-total // most)
    small, larger = divmod(total, count)
    return {size: times for size, times in ((small + 1, larger), (small, count - larger)) if times}


def choose_tile(shape: tuple[int, int, int], library: InstructionLibrary, numbers: Numbers) -> Tile:
    """The tile with the fewest modelled cycles for (rows, columns, depth); the squarest of equals."""
    m, n, k = shape
    lanes = library.lanes[numbers.result]
    vectors, groups = math.ceil(n / lanes), math.ceil(k / numbers.group)

    @cache
    def call(rows: int, width: int) -> float:
        return groups * step_cycles(Tile(rows, width), library, numbers) + rows * width + _CALL_CYCLES

    def total(tile: Tile) -> float:
        return sum(
            row_times * column_times * call(rows, width)
            for rows, row_times in balanced(m, tile.rows).items()
            for width, column_times in balanced(vectors, tile.vectors).items()
        )

    return min(largest_tiles(library, numbers), key=lambda tile: (total(tile), tile.rows + tile.vectors * lanes))


def _stay(cache: Cache, stays: int, streams: int) -> int:
    """Largest count of vectors of `stays` words that stay in a cache while ones of `streams` words pass (Low et al., section 4)."""
    ways = math.floor((cache.ways - 1) / (1 + streams / stays))
    bytes_per_way = cache.sets * cache.line_bytes
    if ways >= 1:
        return ways * bytes_per_way // (stays * WORD_BYTES)
    return max(1, (cache.ways - 2) * bytes_per_way // (streams * WORD_BYTES))


def choose_blocks(shape: tuple[int, int, int], tile: Tile, library: InstructionLibrary, numbers: Numbers) -> Blocks:
    """Blocks for (rows, columns, depth), each clipped to the problem.

    A panel of B stays in L1 and a block of A in L2, or, for tall products whose B fits half of L2, the other way round. A
    product of one strip reads B in place, a few of its rows at a time: it passes by once, as a stream.
    """
    m, n, k = shape
    width = tile.columns(library.lanes[numbers.result])
    first, second = library.caches[0], library.caches[1]
    columns = -(-n // width) * width
    depth = min(k, _stay(first, width, tile.rows))
    if m <= tile.rows:
        streams = k * n * WORD_BYTES > second.size_bytes
        return Blocks(m, min(depth, _STREAM_DEPTH) if streams else depth, width, pack_a=False, pack_b=False, strips_first=False)
    if depth * columns * WORD_BYTES <= second.size_bytes // 2 and m >= 4 * n:
        return Blocks(m, depth, columns, pack_a=False, pack_b=True, strips_first=True)
    rows = min(m, max(tile.rows, _stay(second, depth, width)))
    return Blocks(rows, depth, width, pack_a=False, pack_b=True, strips_first=False)
