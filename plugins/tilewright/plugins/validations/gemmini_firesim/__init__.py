"""``tilewright validate gemmini-firesim``: simulated cycles against Gemmini on FireSim, one memory configuration for all points.

A file has a row per layer, as published with DOSA (see `rows`): cycles of a mapping that was given, and, where the file has them,
of the tiling of Gemmini's own library. What it leaves open, and what is assumed of every point:

* 16 requests in flight; a last-level cache of 4 MiB that answers after 70 cycles; DRAM behind it moves 4 bytes per cycle, and a
  miss takes 20 cycles more (`MEMORY`). These four numbers are the only ones that were chosen with the points in view;
* a layer's library tiling ran first and found nothing in that cache, its given mapping ran next and found everything;
* the library is the one of 2022, whose tilings the file spells out and whose images are square;
* a mapping that spreads a dim over fewer than 16 rows or columns of the array ran as if it used all of them: the layer counts as
  that much wider (the random mappings say so: on every tenth row their rank correlation is 0.90 without this, 0.95 with it);
* library tilings ran on the default sizes; given mappings on memories twice as large as the mapping uses (the other half holds
  the next tile), up to the next power of two.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from scipy.stats import spearmanr

from tilewright.protocol import registry, validation
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Options
from tilewright.protocol.validation import ValidationReport

from .rows import Layer, Row, parse

SUITE = "gemmini-firesim"
SHIPPED = "points.csv.gz"
LATENCY, CACHE_BYTES, MISS_LATENCY, DRAM_BYTES_PER_CYCLE = 70, 4 << 20, 20, 4.0
#: What a layer finds that is not in the cache yet, and one of which all is.
MEMORY: dict[str, dict[str, float]] = {
    "cold": {
        "latency": LATENCY, "cache_bytes": CACHE_BYTES, "miss_latency": MISS_LATENCY, "dram_bytes_per_cycle": DRAM_BYTES_PER_CYCLE,
    },
    "warm": {"latency": LATENCY},
}  # fmt: skip
#: Bytes of the default memories.
SCRATCHPAD, ACCUMULATOR = 256 << 10, 64 << 10
DIM, LINE = 16, 64
#: Tiles of a row that is simulated, at most.
TILES = 20_000
Pair = tuple[float, float]


class GemminiFiresim:
    """The suite: one group per kind of measurement, and the spread of repeated ones."""

    options: ClassVar[dict[str, str]] = {"every": "N: only every N-th row (1); random mappings take long"}

    def run(self, path: str | None, options: Options) -> ValidationReport:
        """Simulate every row of a file, or of the shipped one; `InvalidInput` names a missing column or a mapping it cannot read."""
        every = int(options.get("every", 1))
        if every < 1:
            raise InvalidInput(f"every: {every}, expected at least 1")
        with resources.as_file(resources.files(__package__) / SHIPPED) as shipped:
            data = validation.read(shipped if path is None else Path(path))
        name = path or SHIPPED
        rows = parse(name, data)
        taken = rows[::every]
        clean = [row for row in taken if row.clean and row.tiles <= TILES]
        given = "given mappings" if any(row.auto is not None for row in rows) else "random mappings (clean rows)"
        groups = {given: report(name, [(_given(row), row.given) for row in clean], len(rows) - len(clean))}
        libraries = [row for row in clean if row.auto is not None]
        if libraries:
            groups |= _library(name, libraries)
        whole = [group for kind, group in groups.items() if kind != SPREAD]
        cases = sum(group.cases for group in whole)
        mape = sum(group.cases * (group.mape or 0) for group in whole) / cases if cases else None
        largest = max((group.max_error or 0 for group in whole), default=None)
        close = sum(group.within_1pct or 0 for group in whole)
        return ValidationReport(
            SUITE, name, cases, within_1pct=close, mape=mape, max_error=largest, skipped=len(rows) - len(clean), groups=groups
        )


SPREAD = "repeats of one library tiling, against their median"


def _library(name: str, rows: list[Row]) -> dict[str, ValidationReport]:
    """Library tilings against the median of each layer's runs, and those runs against it: what no model can do better than."""
    runs: dict[Layer, list[Row]] = defaultdict(list)
    for row in rows:
        runs[row.layer].append(row)
    medians = {layer: statistics.median(row.auto or 0 for row in same) for layer, same in runs.items()}
    spread = [(row.auto or 0, medians[row.layer]) for row in rows]
    pairs = [(_tiled(layer, same[0].tiling, MEMORY["cold"], SCRATCHPAD, ACCUMULATOR), medians[layer]) for layer, same in runs.items()]
    return {"library tilings (median of a layer)": report(name, pairs), SPREAD: report(name, spread)}


def report(file: str, pairs: list[Pair], skipped: int = 0) -> ValidationReport:
    """Errors of (simulated, measured) cycles."""
    correlation = float(spearmanr(pairs).statistic) if len(pairs) > 2 else None
    errors = [abs(ours / measured - 1) for ours, measured in pairs]
    return msgspec.structs.replace(ValidationReport.of(SUITE, file, errors, spearman=correlation, skipped=skipped), exact=None)


def _given(row: Row) -> float:
    scratchpad, accumulator = max(SCRATCHPAD, _power(2 * row.scratchpad)), max(ACCUMULATOR, _power(2 * row.accumulator * 4 * DIM))
    return _tiled(row.mapped, row.tile, MEMORY["warm"], scratchpad, accumulator)


def _power(size: int) -> int:
    return 1 << (size - 1).bit_length()


def _tiled(layer: Layer, tile: dict[str, int], memory: dict[str, float], scratchpad: int, accumulator: int) -> float:
    """Cycles of a layer in tiles of these extents."""
    simulator: Any = registry.load("simulators", "gemmini")
    machine = simulator.machine(memory, scratchpad_bytes=scratchpad, accumulator_bytes=accumulator)
    sizes = (layer.inputs, layer.weights)
    starts = [1 << 20]
    for size in sizes:
        starts.append(-(-(starts[-1] + size) // LINE) * LINE)
    if layer.is_matmul:
        blocks = [-(-tile.get(dim, 1) // DIM) for dim in "PKC"]
        task = simulator.matmul_task(layer.P, layer.K, layer.C, *starts)
        return float(simulator.matmul(task, machine, blocks, modern=False).cycles)
    task = simulator.conv_task(*layer.shape, addresses=starts)
    return float(simulator.conv(task, machine, [tile.get(dim, 1) for dim in "NQPKSRC"], modern=False).cycles)
