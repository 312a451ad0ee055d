"""The FireSim measurements that DOSA ships, as batches of mappings on a 16 x 16 Gemmini.

Each row gives a layer, a mapping in DOSA's notation (``L3[WIO] C8 Q7 - L2[WI] K4X - L1[O] P7 C8X - L0[W] N1``: levels and loops
outermost first, X marks a spatial factor) and measured cycles. Rows whose mapping has a spatial factor above the side of
the array could not run on it and are left out (490 of the 1,567 random mappings).
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tilewright import loopnest as ln
from tilewright.protocol.architecture import Architecture, Constraints
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS, conv2d

#: Side of the array that was measured.
SIDE = 16
RANDOM, POINTS = (Path(__file__).with_name(name) for name in ("random_mappings.csv.gz", "points.csv.gz"))
_LEVEL, _LOOP = re.compile(r"L(\d)\[(\w+)\] (.*)"), re.compile(r"([A-Z])(\d+)([XY]?)")
_LEVELS = ("Registers", "Accumulator", "Scratchpad", "DRAM")
_TENSORS = {"W": WEIGHTS, "I": INPUTS, "O": OUTPUTS}
_DIMS = ("R", "S", "P", "Q", "C", "K", "N", "Wstride", "Hstride")


@dataclass(frozen=True)
class Row:
    """One measurement."""

    #: R, S, P, Q, C, K, N and the strides along width and height.
    shape: tuple[int, ...]
    mapping: Mapping
    cycles: float
    #: Network of a point; empty for random mappings.
    network: str
    #: Analytical cycles as published; nan for random mappings.
    analytical: float


def read(path: Path) -> list[Row]:
    """The rows that could run."""
    found = []
    with gzip.open(path, "rt") as lines:
        for row in csv.DictReader(lines):
            mapping = parse(row["mapping.mapping"])
            if max((loop.factor for level in mapping.levels for loop in level.spatial), default=1) <= SIDE:
                shape = tuple(int(row[f"prob.{name}"]) for name in _DIMS)
                network, analytical = row.get("network", ""), float(row.get("target.cycle", "nan"))
                found.append(Row(shape, mapping, float(row["target.gemmini_cycle"]), network, analytical))
    return found


def parse(text: str) -> Mapping:
    """A mapping from DOSA's notation; loops of one iteration are left out."""
    levels = {}
    for part in text.split(" - "):
        level = _LEVEL.fullmatch(part)
        assert level is not None, part
        blocks: tuple[list[Loop], list[Loop]] = ([], [])
        for word in reversed(level[3].split()):
            loop = _LOOP.fullmatch(word)
            assert loop is not None, word
            if int(loop[2]) > 1:
                blocks[bool(loop[3])].append(Loop(loop[1], int(loop[2])))
        keep = tuple(_TENSORS[letter] for letter in level[2])
        levels[int(level[1])] = LevelMapping(_LEVELS[int(level[1])], spatial=tuple(blocks[1]), temporal=tuple(blocks[0]), keep=keep)
    return Mapping(tuple(levels[at] for at in sorted(levels)))


def batches(rows: Sequence[Row], architecture: Architecture, constraints: Constraints) -> list[tuple[NDArray[np.int64], ln.Batch]]:
    """(indices of rows, their mappings) of each layer shape."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for at, row in enumerate(rows):
        by_shape.setdefault(row.shape, []).append(at)
    found = []
    for (r, s, p, q, c, k, n, wide, high), members in by_shape.items():
        operator = conv2d(r=r, s=s, p=p, q=q, c=c, k=k, n=n, stride=(wide, high))
        problem = ln.Problem(operator, architecture, constraints)
        found.append((np.array(members), ln.Batch.from_mappings(problem, [rows[at].mapping for at in members])))
    return found
