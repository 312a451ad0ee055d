"""Assembles the C of a kernel: register tiles, the loops around them and the entry points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from .cases import test
from .entry import entry_points
from .header import header
from .numbers import C_TYPES
from .plan import Plan, fill
from .render import PARAMETERS, function
from .schedule import Tile, schedule
from .tiles import edges

#: C expression that makes an item of a word, by (word, item).
_CONVERSIONS = {("bf16", "f32"): "from_bf16"}
_FROM_BF16 = """static inline float from_bf16(uint16_t word) {
    union {
        uint32_t bits;
        float value;
    } it = {(uint32_t)word << 16};
    return it.value;
}
"""


@dataclass(frozen=True)
class Code:
    """The three files of a kernel."""

    source: str
    header: str
    test: str


def generate(plan: Plan) -> Code:
    """The C of a plan; equal plans give equal bytes."""
    emulated = any(toolchain.runner for toolchain in plan.library.toolchains)
    return Code(_source(plan), header(plan), test(plan, emulated))


def tile_functions(plan: Plan) -> list[Tile]:
    """The tiles a plan needs: every edge, and those of the first strip that pack B."""
    tiles = list(edges(plan.tile))
    if plan.packs:
        tiles += [replace(tile, packs=True) for tile in edges(plan.tile) if tile.rows == plan.first_rows]
    return tiles


def _source(plan: Plan) -> str:
    numbers, library, operator = plan.numbers, plan.library, plan.product.operator
    shape = {"RANKS": max(len(tensor.ranks) for tensor in operator.tensors), "DIMS": max(1, len(operator.dims))}
    constants = {
        "ROWS": plan.tile.rows,
        "VECTORS": plan.tile.vectors,
        "GROUP": numbers.group,
        "FIRST": plan.first_rows,
        "MOST_DEPTH": plan.blocks.depth,
        "MOST_A": plan.most_a,
        "MOST_B": plan.most_b,
        "WIDEST": max(plan.tile.rows, plan.most_b // max(1, plan.blocks.depth)),
        **({} if library.scalable else {"LANES": plan.lanes}),
    }
    switches = {"A_IN_PLACE": plan.a_in_place, "B_IN_PLACE": plan.b_in_place, "PACKS": plan.packs}
    words = {plan.numbers.word(plan.operand(side).tensor) for side in "ab"}
    parts = [
        f"/* {plan.name}: for {library.name}, {numbers.name}, register tile {_shape(plan.tile, plan)} and its edges. */",
        f'#include "{plan.name}.h"',
        *(f"#include <{name}>" for name in library.headers),
        library.preamble,
        *([f"#define LANES ((ptrdiff_t)({library.scalable}))"] if library.scalable else []),
        *(f"#define {name} {int(value)}" for name, value in switches.items()),
        f"enum {{ {', '.join(f'{name} = {value}' for name, value in constants.items())} }};",
        f"typedef {C_TYPES[numbers.item]} item;",
        f"typedef {C_TYPES[numbers.result]} result;",
        "#define INLINE static inline __attribute__((always_inline))",
        "",
        *([_FROM_BF16] if "bf16" in words else []),
        *(function(_name(tile, plan), [*schedule(tile, library, numbers)][-1][1], library) for tile in tile_functions(plan)),
        _tables(plan),
        *(_pack(side, plan, shape) for side in "ab"),
        fill("driver.c", {"NAME": plan.name}),
        entry_points(plan),
    ]
    return "\n".join(parts)


def _pack(side: str, plan: Plan, shape: dict[str, int]) -> str:
    word = plan.numbers.word(plan.operand(side).tensor)
    convert = _CONVERSIONS.get((word, plan.numbers.item), "(item)")
    return fill("pack.c", {"SIDE": side, "WORD": C_TYPES[word], "ITEM_OF": convert, **shape})


def _tables(plan: Plan) -> str:
    """Tile functions by rows, vectors, and whether the last vector is partial."""

    def table(make: Callable[[int, bool], Tile]) -> str:
        pairs = [", ".join(_name(make(vectors, masked), plan) for masked in (False, True)) for vectors in range(1, plan.tile.vectors + 1)]
        return "{" + ", ".join(f"{{{pair}}}" for pair in pairs) + "}"

    rows = [table(lambda vectors, masked, r=r: Tile(r, vectors, masked)) for r in range(1, plan.tile.rows + 1)]  # type: ignore[misc]
    lines = [
        f"typedef void kernel({PARAMETERS});",
        "/* [rows - 1][vectors - 1][last vector is partial] */",
        "static kernel *const kernels[ROWS][VECTORS][2] = {",
        *(f"    {row}," for row in rows),
        "};",
    ]
    if plan.packs:
        first = table(lambda vectors, masked: Tile(plan.first_rows, vectors, masked, packs=True))
        lines += ["/* of FIRST rows, packing B on the way */", f"static kernel *const packing[VECTORS][2] = {first};"]
    return "\n".join([*lines, ""])


def _shape(tile: Tile, plan: Plan) -> str:
    return f"{tile.rows}x{tile.vectors}v" if plan.library.scalable else f"{tile.rows}x{tile.columns(plan.lanes)}"


def _name(tile: Tile, plan: Plan) -> str:
    return f"tile_{_shape(tile, plan)}{'_tail' if tile.masked else ''}{'_pack' if tile.packs else ''}"
