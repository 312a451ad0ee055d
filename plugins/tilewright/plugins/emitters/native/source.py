"""Assembles the C of a kernel: register tiles, the loops around them and the entry points."""

from __future__ import annotations

from dataclasses import dataclass

from .cases import test
from .entry import entry_points, header
from .plan import Plan, fill
from .render import PARAMETERS, function
from .schedule import Tile, schedule
from .tiles import edges


@dataclass(frozen=True)
class Code:
    """The three files of a kernel."""

    source: str
    header: str
    test: str


def generate(plan: Plan) -> Code:
    """The C of a plan; equal plans give equal bytes."""
    return Code(_source(plan), header(plan), test(plan))


def _tile_name(tile: Tile, lanes: int) -> str:
    return f"tile_{tile.rows}x{tile.columns(lanes)}{'_tail' if tile.masked else ''}"


def _source(plan: Plan) -> str:
    lanes, operator = plan.lanes, plan.product.operator
    functions = []
    for tile in edges(plan.tile):
        *_, (_, nest) = schedule(tile, plan.library)
        functions.append(function(_tile_name(tile, lanes), nest, plan.library))
    rows = [
        "{" + ", ".join(
            f"{{{_tile_name(Tile(r, v), lanes)}, {_tile_name(Tile(r, v, masked=True), lanes)}}}" for v in range(1, plan.tile.vectors + 1)
        ) + "}"
        for r in range(1, plan.tile.rows + 1)
    ]  # fmt: skip
    driver = fill(
        "driver.c",
        {
            "NAME": plan.name,
            "RANKS": max(len(tensor.ranks) for tensor in operator.tensors),
            "DIMS": max(1, len(operator.dims)),
            "WIDEST": max(plan.tile.rows, plan.tile.columns(lanes)),
            "MOST_ROWS": plan.blocks.rows,
            "MOST_DEPTH": plan.blocks.depth,
            "COLUMNS": plan.tile.columns(lanes),
        },
    )
    headers = [f'#include "{plan.name}.h"', *(f"#include <{header}>" for header in plan.library.headers)]
    return "\n".join(
        [
            f"/* {plan.name}: for {plan.library.name}, register tile {plan.tile.rows}x{plan.tile.columns(lanes)} and its edges. */",
            *headers,
            plan.library.preamble,
            f"enum {{ LANES = {lanes}, ROWS = {plan.tile.rows}, VECTORS = {plan.tile.vectors} }};",
            "",
            *functions,
            f"typedef void kernel({PARAMETERS});",
            "/* [rows - 1][vectors - 1][last vector is partial] */",
            f"static kernel *const kernels[ROWS][VECTORS][2] = {{\n    {(',' + chr(10) + '    ').join(rows)},\n}};",
            "",
            driver,
            entry_points(plan),
        ]
    )
