"""Tournaments: which tile and blocks are fastest here. Without one, the analytical choices stand.

Every candidate is compiled for its own size only, all of them are timed in one program in interleaved rounds, and the best
half goes on to more rounds. The winner is remembered per machine.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from tilewright.protocol.keys import content_key

from .measure import native_toolchain, race
from .plan import Plan
from .schedule import Tile, registers
from .tiles import Blocks, balanced
from .toolchain import cpu

#: Rounds of the first heat, and of those after it.
_ROUNDS = (5, 9, 15)


def tournament(plan: Plan, memory: Path | None) -> Plan:
    """The plan with the tile and blocks that win here; `memory` is a file of earlier winners, written when it lacks this one."""
    key = content_key((plan.product.operator, plan.numbers.name, plan.library, native_toolchain(plan).name, cpu()))
    known = _read(memory)
    if key not in known:
        known[key] = _describe(_play(plan))
        if memory is not None:
            memory.parent.mkdir(parents=True, exist_ok=True)
            memory.write_text(json.dumps(known, indent=1, sort_keys=True))
    return _apply(plan, known[key])


def candidates(plan: Plan) -> Iterator[Plan]:
    """The plan itself and variations: tiles of like area, other depths, orders and packing."""
    yield plan
    m, n, k = plan.product.shape
    lanes = plan.lanes
    file = plan.library.register_file("vector")
    count = file.count if file else 0
    for vectors in range(1, 5):
        fitting = [rows for rows in range(1, count) if sum(registers(Tile(rows, vectors), plan.library, plan.numbers)) <= count]
        for rows in sorted({fitting[-1], max(balanced(m, fitting[-1]))} & set(fitting)):
            tile, width = Tile(rows, vectors), vectors * lanes
            if rows * vectors * 2 < min(m * -(-n // lanes), count):
                continue
            for depth in (256, 384):
                blocks = replace(plan.blocks, depth=min(depth, k), columns=width, strips_first=False)
                yield replace(plan, tile=tile, blocks=blocks)
                columns = max(width, 131072 // blocks.depth // width * width)
                yield replace(plan, tile=tile, blocks=replace(blocks, rows=m, columns=columns, strips_first=True, pack_a=False))
    for blocks in (replace(plan.blocks, pack_b=not plan.blocks.pack_b), replace(plan.blocks, pack_a=not plan.blocks.pack_a)):
        yield replace(plan, blocks=blocks)


def _play(plan: Plan) -> Plan:
    field: dict[str, Plan] = {}
    for number, each in enumerate(candidates(plan)):
        trial = replace(each, only_own_size=True, name=f"trial_{number}")
        if all(replace(other, name="") != replace(trial, name="") for other in field.values()):
            field[trial.name] = trial
    for rounds in _ROUNDS:
        times = race(field, rounds, blas=False)
        ranked = sorted(field, key=lambda name: statistics.median(times[name]))
        field = {name: field[name] for name in ranked[: max(1, len(ranked) // 3)]}
    best = next(iter(field.values()))
    return replace(best, only_own_size=False, name=plan.name)


def _describe(plan: Plan) -> dict[str, dict[str, object]]:
    return {"tile": {"rows": plan.tile.rows, "vectors": plan.tile.vectors}, "blocks": asdict(plan.blocks)}


def _apply(plan: Plan, known: dict[str, dict[str, object]]) -> Plan:
    return replace(plan, tile=Tile(**known["tile"]), blocks=Blocks(**known["blocks"]))  # type: ignore[arg-type]


def _read(memory: Path | None) -> dict[str, dict[str, dict[str, object]]]:
    if memory is None or not memory.exists():
        return {}
    try:
        known: dict[str, dict[str, dict[str, object]]] = json.loads(memory.read_text())
    except ValueError:
        return {}
    return known
