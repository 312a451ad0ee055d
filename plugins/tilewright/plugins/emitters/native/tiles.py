"""Which register tile, and which cache blocks: the analytical choices that need no measurement.

Cache blocks follow T. M. Low et al., "Analytical Modeling Is Enough for High-Performance BLIS" (TOMS 2016): per level one
way is left for the operand that streams by, the other ways are shared by the two that stay in proportion to their size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.kernel import Cache, Instruction, InstructionLibrary

from .numbers import Numbers
from .schedule import Tile, edge_of, multiplies_by_lane, registers, stores_words

#: Cycles of one kernel call that do not scale with depth: call, loop entry, pipeline fill.
_CALL_CYCLES = 20.0
#: Loads issued per cycle.
_LOADS = 2.0
WORD_BYTES = 4
#: Rows of a streamed B that are read together: for one or two rows of A, and for more.
_STREAM_DEPTHS = (8, 16)
#: Strips of A that a stream of B may pass.
_STREAM_ROWS = 8
#: Depth of a pass at least; and where L2 feeds a panel of B as fast as it is used, at so many bytes a cycle.
_DEPTH, _DEPTH_FROM_L2, _L2_FEEDS = 256, 384, 12.0
#: Strips that make the deeper pass worth its slower start.
_MANY_STRIPS = 12
#: Panels that a packed strip of A must pass to be worth packing.
_MANY_PANELS = 8
#: Items of depth that integer multiplications take at once, in two instructions.
_PAIRS = 2
#: Rows of A that are read in place at once: more streams than this the hardware does not follow.
_STREAMS = 10


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


def largest_tiles(library: InstructionLibrary, numbers: Numbers, row_bytes: int, widest: int = 4) -> Iterator[Tile]:
    """For 1 to `widest` vectors, the tile with the most rows that fits the registers.

    Rows of A read in place lie `row_bytes` apart: there are no more of them than the hardware follows, and than one set of
    the L1 cache holds. By lanes, A is packed, and rows are whole vectors. Pairs are multiplied by one instruction and added by
    another: a quarter of the registers is left for products between the two, or compilers spill (measured with gcc 12).
    """
    file = library.register_file("vector")
    count = file.count if file else 0
    if numbers.group == _PAIRS:
        count -= count // 4
    by_lane = multiplies_by_lane(library, numbers)
    step = library.lanes[numbers.result] if by_lane else 1
    first = library.caches[0]
    for vectors in range(1, widest + 1):
        fitting = [
            rows
            for rows in range(step, count, step)
            if sum(registers(Tile(rows, vectors), library, numbers)) <= count
            and (by_lane or (rows <= _STREAMS and _lines_per_set(row_bytes, rows, first) <= first.ways))
        ]
        if fitting:
            yield Tile(fitting[-1], vectors)


def _lines_per_set(stride_bytes: int, rows: int, cache: Cache) -> float:
    """Lines that the fullest set of a cache takes from `rows` words that lie a stride apart."""
    lines, rest = divmod(stride_bytes, cache.line_bytes)
    sets = cache.sets if rest or not lines else cache.sets // math.gcd(lines, cache.sets)
    return rows / min(rows, sets)


def edges(tile: Tile, library: InstructionLibrary, numbers: Numbers) -> Iterator[Tile]:
    """The tile and all smaller ones, each with whole vectors and with a partial last one."""
    for rows in range(tile.rows, 0, -1):
        for vectors in range(tile.vectors, 0, -1):
            yield replace(tile, rows=rows, vectors=vectors)
            yield replace(tile, rows=rows, vectors=vectors, edge=edge_of(vectors, library, numbers))


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

    return min(largest_tiles(library, numbers, k * WORD_BYTES), key=lambda tile: (total(tile), tile.rows + tile.vectors * lanes))


def _stay(cache: Cache, stays: int, streams: int) -> int:
    """Largest count of vectors of `stays` words that stay in a cache while ones of `streams` words pass (Low et al., section 4)."""
    ways = math.floor((cache.ways - 1) / (1 + streams / stays))
    bytes_per_way = cache.sets * cache.line_bytes
    if ways >= 1:
        return ways * bytes_per_way // (stays * WORD_BYTES)
    return max(1, (cache.ways - 2) * bytes_per_way // (streams * WORD_BYTES))


def choose_blocks(shape: tuple[int, int, int], tile: Tile, library: InstructionLibrary, numbers: Numbers) -> Blocks:
    """Blocks for (rows, columns, depth), each clipped to the problem.

    A large B that few rows pass is read in place, some of its rows at a time: as a stream. A small B, one that fewer strips
    pass than copying costs, and one whose rows are one panel wide, are read in place too. Otherwise a panel of B stays in L1 (or
    streams from L2) and a block of A in a third of L2 or, for tall products whose B fits half of L2, the other way round.
    """
    m, n, k = shape
    width = tile.columns(library.lanes[numbers.result])
    first, second = library.caches[0], library.caches[1]
    columns = -(-n // width) * width
    bytes_of_b = k * n * WORD_BYTES
    if bytes_of_b > second.size_bytes and m <= _STREAM_ROWS:
        depth = min(k, _STREAM_DEPTHS[m > 2])
        return Blocks(m, depth, width, pack_a=False, pack_b=False, strips_first=False)
    strips, panels = -(-m // tile.rows), columns // width
    used = width * WORD_BYTES / step_cycles(tile, library, numbers)
    deep = _DEPTH_FROM_L2 if used <= _L2_FEEDS and strips >= _MANY_STRIPS else _DEPTH
    depth = min(k, max(_stay(first, width, tile.rows), deep))
    fits = _lines_per_set(n * WORD_BYTES, depth, first) <= first.ways / 2
    in_place = n <= width or strips == 1 or (fits and (bytes_of_b <= 3 * first.size_bytes // 4 or strips <= 3))
    if depth * columns * WORD_BYTES <= second.size_bytes // 2 and m >= 4 * n:
        return Blocks(m, depth, columns, pack_a=False, pack_b=not in_place, strips_first=True)
    rows = min(m, max(tile.rows, second.size_bytes // 3 // (depth * WORD_BYTES)))
    pack_a = panels >= _MANY_PANELS and strips > 1 and stores_words(library, numbers)
    return Blocks(rows, depth, width, pack_a, pack_b=not in_place, strips_first=False)
