"""Assembles the C of a kernel: register tiles, the loops around them and the entry points."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tilewright.protocol.kernel import ElementType, InstructionLibrary
from tilewright.protocol.workload import OUTPUTS

from .cases import test
from .entry import entry_points
from .finish import STEPS, channel_index
from .header import header
from .numbers import C_TYPES
from .plan import MOST_LANES, Plan, fill
from .render import PARAMETERS, function
from .schedule import Edge, Tile, edge_of, schedule
from .tiles import edges

#: Checks of pointers, for debug builds.
_CHECKS = (
    "#include <assert.h>",
    "#define aligned(pointer, to) ((uintptr_t)(pointer) % (to) == 0)",
    "#define apart(x, x_bytes, y, y_bytes) ((uintptr_t)(x) + (x_bytes) <= (uintptr_t)(y) || (uintptr_t)(y) + (y_bytes) <= (uintptr_t)(x))",
)
#: C expression that makes an item of a word, by (word, item).
_CONVERSIONS = {("bf16", "f32"): "from_bf16"}
#: Multiply-accumulates up to which tiles are inlined: calls cost as much as the work. Larger ones are not, because register
#: allocation across several tiles spills.
_TINY = 1000
_EXTRAS = """/* What else a product may need: for what follows it, and weights that were packed before. */
typedef struct {
    const result *bias;
    const float *scale;
    int zero_point;
    item *ready;
} extras;
"""
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
    """The tiles of a plan: every edge, or only those its own size meets; and those of the first strip that pack B."""
    tiles = list(edges(plan.tile, plan.library, plan.numbers))
    first_panel = [replace(tile, packs_a=True) for tile in tiles if plan.packs_a and _is_first_panel(tile, plan)]
    packing = [replace(tile, packs_b=True) for tile in (*tiles, *first_panel) if plan.packs_b and tile.rows == plan.first_rows]
    packing += first_panel
    if not plan.only_own_size:
        return [*tiles, *packing]
    met = plan.met()
    return [tile for tile in (*tiles, *packing) if (tile.rows, tile.vectors, tile.edge != "whole") in met]


def _is_first_panel(tile: Tile, plan: Plan) -> bool:
    return tile.vectors == plan.first_vectors and tile.edge == "whole"


def _source(plan: Plan) -> str:
    numbers, library, operator = plan.numbers, plan.library, plan.product.operator
    shape = {"RANKS": max(len(tensor.ranks) for tensor in operator.tensors), "DIMS": max(1, len(operator.dims))}
    constants = {
        "ROWS": plan.tile.rows,
        "VECTORS": plan.tile.vectors,
        "GROUP": numbers.group,
        "FIRST_ROWS": plan.first_rows,
        "FIRST_VECTORS": plan.first_vectors,
        "MOST_DEPTH": plan.most_depth,
        "MOST_A": plan.most_a,
        "MOST_B": plan.most_b,
        "WIDEST": max(plan.tile.rows, plan.most_b // max(1, plan.most_depth)),
        **({} if library.scalable else {"LANES": plan.lanes}),
    }
    switches = {
        "A_IN_PLACE": plan.a_in_place,
        "B_IN_PLACE": plan.b_in_place,
        "PACKS_A": plan.packs_a,
        "PACKS_B": plan.packs_b,
        "ROW_STRIPS": plan.row_strips,
        "READY_A": plan.ready == "a",
        "READY_B": plan.ready == "b",
        "FINISHES": bool(plan.finish.steps),
        "HOLDS": plan.finish.narrows,
    }
    made = tile_functions(plan)
    words = {plan.numbers.word(plan.operand(side).tensor) for side in "ab"}
    parts = [
        f"/* {plan.name}: for {library.name}, {numbers.name}, register tile {_shape(plan.tile, plan)} and its edges. */",
        f'#include "{plan.name}.h"',
        *(f"#include <{name}>" for name in library.headers),
        library.preamble,
        *_CHECKS,
        *([f"#define LANES ((ptrdiff_t)({library.scalable}))"] if library.scalable else []),
        *(f"#define {name} {int(value)}" for name, value in switches.items()),
        f"enum {{ {', '.join(f'{name} = {value}' for name, value in constants.items())} }};",
        f"typedef {C_TYPES[numbers.item]} item;",
        f"typedef {C_TYPES[numbers.result]} result;",
        f"typedef {plan.c_type(OUTPUTS)} word_of_c;",
        _EXTRAS,
        "#define INLINE static inline __attribute__((always_inline))",
        f"#define TILE {'static inline' if operator.macs <= _TINY else 'static __attribute__((noinline))'}",
        "",
        *([_FROM_BF16] if "bf16" in words else []),
        *(_tile_function(tile, plan) for tile in made),
        _tables(plan, made),
        *(_pack(side, plan, shape) for side in "ab"),
        *_finish(plan),
        *_words_of_a(plan),
        fill("driver.c", {"NAME": plan.name}),
        *([fill("prepack.c", {"NAME": plan.name, "SIDE": plan.ready})] if plan.ready else []),
        entry_points(plan),
    ]
    return "\n".join(parts)


#: C of tiles made by this process, by what decides it; with the library, whose identity is part of the key.
_made: dict[tuple[int, str, Tile], tuple[InstructionLibrary, str]] = {}


def _tile_function(tile: Tile, plan: Plan) -> str:
    """C of one register tile: the same for every kernel of a network, and made once."""
    key = (id(plan.library), plan.numbers.name, tile)
    if key not in _made:
        *_, (_, nest) = schedule(tile, plan.library, plan.numbers)
        _made[key] = (plan.library, function(tile_name(tile, plan), nest, plan.library))
    return _made[key][1]


def _finish(plan: Plan) -> list[str]:
    """The function that follows the last product, and the widest tile it may pass through."""
    steps, product = plan.finish.steps, plan.product
    width = "VECTORS * LANES" if not plan.library.scalable else f"VECTORS * {MOST_LANES}"
    parts = [f"enum {{ WIDTH = {width} }};"]
    if "gelu" in steps:
        parts.append(fill("gelu.c", {}))
    if steps:
        what = "; ".join(STEPS[step] for step in steps)
        parts.append(fill("finish.c", {"WHAT": what, "CHANNEL": channel_index(product), "STEPS": plan.finish.code()}))
    return parts


def _words_of_a(plan: Plan) -> list[str]:
    """What the conversion of whole rows of A needs."""
    word = plan.numbers.word(plan.product.a.tensor)
    return [f"typedef {C_TYPES[word]} word_a;", f"#define ITEM_OF_A {_converter(word, plan)}"]


def _converter(word: ElementType, plan: Plan) -> str:
    return _CONVERSIONS.get((word, plan.numbers.item), "(item)")


def _pack(side: str, plan: Plan, shape: dict[str, int]) -> str:
    word = plan.numbers.word(plan.operand(side).tensor)
    return fill("pack.c", {"SIDE": side, "WORD": C_TYPES[word], "ITEM_OF": _converter(word, plan), **shape})


def _tables(plan: Plan, made: list[Tile]) -> str:
    """Tile functions by rows, vectors, and whether the last vector is partial; 0 for those that are never called."""

    def row(rows: int, packs: bool) -> str:
        cells = []
        for vectors in range(1, plan.tile.vectors + 1):
            ends: tuple[Edge, Edge] = ("whole", edge_of(vectors, plan.library, plan.numbers))
            pair = [replace(plan.tile, rows=rows, vectors=vectors, edge=edge, packs_b=packs) for edge in ends]
            cells.append("{" + ", ".join(tile_name(tile, plan) if tile in made else "0" for tile in pair) + "}")
        return "{" + ", ".join(cells) + "}"

    lines = [
        f"typedef void kernel({PARAMETERS});",
        "/* [rows - 1][vectors - 1][last vector is partial] */",
        "static kernel *const kernels[ROWS][VECTORS][2] = {",
        *(f"    {row(rows, False)}," for rows in range(1, plan.tile.rows + 1)),
        "};",
    ]
    if plan.packs_b:
        lines += [
            "/* of FIRST_ROWS rows, packing B on the way */",
            f"static kernel *const packing_b[VECTORS][2] = {row(plan.first_rows, True)};",
        ]
    if plan.packs_a:
        first = [replace(plan.tile, rows=rows, vectors=plan.first_vectors, packs_a=True) for rows in range(1, plan.tile.rows + 1)]
        names = ", ".join(tile_name(tile, plan) if tile in made else "0" for tile in first)
        lines += ["/* of FIRST_VECTORS vectors, packing A on the way */", f"static kernel *const packing_a[ROWS] = {{{names}}};"]
        if plan.packs_b:
            both = replace(plan.tile, rows=plan.first_rows, vectors=plan.first_vectors, packs_a=True, packs_b=True)
            lines += [f"static kernel *const packing_both = {tile_name(both, plan) if both in made else '0'};"]
    return "\n".join([*lines, ""])


def _shape(tile: Tile, plan: Plan) -> str:
    return f"{tile.rows}x{tile.vectors}v" if plan.library.scalable else f"{tile.rows}x{tile.columns(plan.lanes)}"


def tile_name(tile: Tile, plan: Plan) -> str:
    """C name of a tile's function."""
    return f"tile_{_shape(tile, plan)}{'' if tile.edge == 'whole' else f'_{tile.edge}'}{'_a' * tile.packs_a}{'_b' * tile.packs_b}"
