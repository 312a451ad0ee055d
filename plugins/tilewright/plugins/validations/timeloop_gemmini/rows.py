"""Rows of DOSA's Timeloop data set for Gemmini-like hardware: hardware sizes, layer, mapping, cycles and energy.

``sample.csv.gz`` is part of the data set of ucb-bar/dosa (BSD-2-Clause, notice beside it): results of a Timeloop of 2022.

A mapping reads ``L3[WIO] C8 Q7 K16 - L2[WI] N1 K4X - L1[O] P7 K2 C4 C8X - L0[W] N1``: levels outer to inner, with the
tensors they keep; loops outer first; ``X``/``Y`` marks spatial ones; ``N1`` fills an empty level.
"""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilewright.protocol import validation
from tilewright.protocol.architecture import Architecture, Compute, Estimator, Level, Price
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS, Operator, conv2d

DATA = Path(__file__).with_name("sample.csv.gz")
LEVELS = ("Registers", "Accumulator", "Scratchpad", "DRAM")
TENSORS = {"W": WEIGHTS, "I": INPUTS, "O": OUTPUTS}
HARDWARE = tuple(
    f"arch.{name}" for name in ("meshX", "mem1_entries", "mem2_entries", "pe", "mem1_shared_bandwidth", "mem2_shared_bandwidth")
)
LAYER = tuple(f"prob.{name}" for name in (*"RSPQCKN", "Wstride", "Hstride", "Wdilation", "Hdilation"))
COLUMNS = ("target.cycle", "target.energy", "mapping.mapping", *HARDWARE, *LAYER)


@dataclass(frozen=True)
class Row:
    """One evaluated mapping."""

    #: What Timeloop said; uJ.
    cycles: float
    energy: float
    #: Values of `HARDWARE`: columns of the array, words of an accumulator and of the scratchpad, units, bandwidths.
    hardware: tuple[int, ...]
    #: Values of `LAYER`.
    layer: tuple[int, ...]
    mapping: Mapping


#: DOSA's published coefficients, and the table they are rounded from: Timeloop's built-in SRAM energies. pJ.
COEFFICIENTS: dict[str, dict[str, Price]] = {
    "dosa": {
        "mac": Estimator("dosa-mac"),
        "register": Estimator("dosa-register"),
        "accumulator": Estimator("dosa-accumulator"),
        "scratchpad": Estimator("dosa-scratchpad"),
    },
    "table": {
        "mac": 0.5607987,
        "register": 0.48746268,
        "accumulator": Estimator("timeloop-sram"),
        "scratchpad": Estimator("timeloop-sram"),
    },
}


def read(path: Path) -> list[Row]:
    """All rows of a (possibly gzipped) CSV file; `InvalidInput` names file, row and column of what is wrong."""
    try:
        text = validation.read(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: cannot be read: {error}") from error
    reader = csv.DictReader(io.StringIO(text))
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise InvalidInput(f"{path}: has no column {', '.join(missing)}")
    rows = []
    for number, values in enumerate(reader, 1):
        try:
            rows.append(_row(values))
        except InvalidInput as error:
            raise InvalidInput(f"{path}, row {number}: {error}") from error
    if not rows:
        raise InvalidInput(f"{path}: has no rows")
    return rows


def _row(values: dict[str, str | None]) -> Row:
    return Row(
        _number(values, "target.cycle"),
        _number(values, "target.energy"),
        tuple(_count(values, column) for column in HARDWARE),
        tuple(_count(values, column) for column in LAYER),
        mapping(values["mapping.mapping"] or ""),
    )


def _number(values: dict[str, str | None], column: str) -> float:
    try:
        value = float(values[column] or "")
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InvalidInput(f"{column}: {values[column]!r}, expected a number above 0")
    return value


def _count(values: dict[str, str | None], column: str) -> int:
    value = _number(values, column)
    if value != int(value):
        raise InvalidInput(f"{column}: {values[column]!r}, expected a whole number")
    return int(value)


def layer(values: tuple[int, ...]) -> Operator:
    """The convolution of a row, from the values of `LAYER`."""
    *bounds, wide, high, wide_dilation, high_dilation = values
    sizes: dict[str, Any] = dict(zip("rspqckn", bounds, strict=True))
    return conv2d(**sizes, stride=(wide, high), dilation=(wide_dilation, high_dilation))


def architecture(sizes: tuple[int, ...], coefficients: str) -> Architecture:
    """The machine of a row: registers (weights), one accumulator SRAM per column, a scratchpad, DRAM at 8 words per cycle."""
    columns, accumulator, scratchpad, units, accumulator_bandwidth, scratchpad_bandwidth = sizes
    prices = COEFFICIENTS[coefficients]

    def energies(name: str) -> dict[str, Any]:
        return {f"{action}_energy_pj": prices[name] for action in ("read", "fill", "update")}

    levels = (
        Level(LEVELS[0], 8, instances=units, mesh_x=units, keeps=(WEIGHTS,), **energies("register")),
        Level(
            LEVELS[1],
            accumulator * 32,
            word_bits=32,
            instances=columns,
            mesh_x=columns,
            shared_bandwidth=accumulator_bandwidth,
            keeps=(OUTPUTS,),
            **energies("accumulator"),
        ),
        Level(
            LEVELS[2],
            scratchpad * 8,
            block_words=columns,
            shared_bandwidth=scratchpad_bandwidth,
            keeps=(WEIGHTS, INPUTS),
            **energies("scratchpad"),
        ),
        Level(
            LEVELS[3],
            block_words=64,
            shared_bandwidth=8,
            keeps=(WEIGHTS, INPUTS, OUTPUTS),
            read_energy_pj=6400.0,
            fill_energy_pj=6400.0,
            update_energy_pj=6400.0,
        ),
    )
    return Architecture("gemmini", Compute("MAC", units, units, energy_pj=prices["mac"]), levels)


def mapping(text: str) -> Mapping:
    """The mapping that a text describes; `InvalidInput` names what is not understood."""
    levels: dict[int, LevelMapping] = {}
    for part in text.split(" - "):
        head = re.match(r"L([0-3])\[([WIO]*)\]\s*", part)
        if not head:
            raise InvalidInput(f"mapping {text!r}: {part!r}, expected e.g. 'L1[O] P7 C8X'")
        spatial, temporal = [], []
        for word in reversed(part[head.end() :].split()):
            loop = re.fullmatch(r"([RSPQCKN])([1-9]\d{0,17})([XY]?)", word)
            if not loop:
                raise InvalidInput(f"mapping {text!r}: loop {word!r}, expected e.g. 'P7' or 'C8X'")
            if loop[3]:
                spatial.append(Loop(loop[1], int(loop[2]), "Y" if loop[3] == "Y" else "X"))
            elif loop[2] != "1":
                temporal.append(Loop(loop[1], int(loop[2])))
        for block in (spatial, temporal):
            if len({each.dim for each in block}) < len(block):
                raise InvalidInput(f"mapping {text!r}: {part!r} has two loops of one dim in one block")
        number = int(head[1])
        if number in levels:
            raise InvalidInput(f"mapping {text!r}: has L{number} twice")
        levels[number] = LevelMapping(LEVELS[number], tuple(spatial), tuple(temporal), tuple(TENSORS[letter] for letter in head[2]))
    if sorted(levels) != list(range(len(LEVELS))):
        raise InvalidInput(f"mapping {text!r}: has levels {sorted(levels)}, expected L3 to L0")
    return Mapping(tuple(levels[number] for number in range(len(LEVELS))))
