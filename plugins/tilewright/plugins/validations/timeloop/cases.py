"""Reference cases: one JSON object per line with architecture, problem, mapping, and what Timeloop said.

``reference.jsonl.gz``: runs of NVlabs/timeloop at commit 4cf6d4c (2025-03-31) with the public energy model; facts, no code.
Levels, loops and blocks are written innermost first; counts are words per instance.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tilewright.protocol.architecture import Architecture, Compute, Level
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.mapping import LevelMapping, Loop, Mapping
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS, Dim, Operator, Rank, Tensor, Term, conv2d

DATA = Path(__file__).with_name("reference.jsonl.gz")

Json = dict[str, Any]


def read(path: Path) -> Iterator[tuple[int, Json]]:
    """Line number and case of every line of a (possibly gzipped) file; `InvalidInput` names what is wrong and where."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: cannot be read: {error}") from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            case = json.loads(line)
        except json.JSONDecodeError as error:
            raise InvalidInput(f"{path}, line {number}, column {error.colno}: {error.msg}, expected one JSON object per line") from error
        missing = [key for key in ("arch", "problem", "mapping", "result") if not isinstance(case, dict) or key not in case]
        if missing:
            raise InvalidInput(
                f"{path}, line {number}: has no {', '.join(missing)}, expected a case with arch, problem, mapping and result"
            )
        yield number, case


def architecture(arch: Json) -> Architecture:
    """The architecture of a case."""
    mac = arch["mac"]
    return Architecture(
        name=arch["name"],
        compute=Compute("MAC", mac["instances"], mac["meshX"], mac["meshY"], mac["word_bits"], mac["energy_pj"]),
        levels=tuple(_level(level) for level in arch["levels"]),
    )


def _level(level: Json) -> Level:
    energy = level["energy_pj_per_vector_access"]
    return Level(
        name=level["name"],
        capacity_bits=None if level["entries_words"] is None else level["entries_words"] * level["word_bits"],
        word_bits=level["word_bits"],
        block_words=level["block_size_words"],
        instances=level["instances"],
        mesh_x=level["meshX"],
        mesh_y=level["meshY"],
        cluster_size=level["cluster_size"],
        read_bandwidth=level["read_bw"],
        write_bandwidth=level["write_bw"],
        shared_bandwidth=level["shared_bw"],
        multiple_buffering=level["multiple_buffering"],
        keeps=tuple(level["default_keep"]),
        read_energy_pj=energy["read"],
        fill_energy_pj=energy["fill"],
        update_energy_pj=energy["update"],
        leakage_pj_per_cycle=energy["leak_per_cycle_per_instance"],
    )


def operator(problem: Json) -> Operator:
    """The operator of a case: a convolution, or (``dw``) a depthwise one over C without K."""
    dims = problem["dims"]
    stride = (problem["Wstride"], problem["Hstride"])
    dilation = (problem["Wdilation"], problem["Hdilation"])
    if problem["shape"] == "cnn":
        return conv2d(**{name.lower(): bound for name, bound in dims.items()}, stride=stride, dilation=dilation)
    if problem["shape"] != "dw":
        raise InvalidInput(f"problem.shape: {problem['shape']!r}, expected 'cnn' or 'dw'")
    channel, row, column = Rank((Term("C"),)), Rank((Term("P"),)), Rank((Term("Q"),))
    wide = Rank((Term("P", stride[0]), Term("R", dilation[0])))
    high = Rank((Term("Q", stride[1]), Term("S", dilation[1])))
    batch = Rank((Term("N"),))
    return Operator(
        dims=tuple(Dim(name, bound) for name, bound in dims.items()),
        tensors=(
            Tensor(WEIGHTS, (channel, Rank((Term("R"),)), Rank((Term("S"),))), static=True),
            Tensor(INPUTS, (batch, channel, wide, high)),
            Tensor(OUTPUTS, (batch, channel, column, row)),
        ),
    )


def mapping(case: Json) -> Mapping:
    """The mapping of a case."""
    return Mapping(
        tuple(
            LevelMapping(
                level["level"],
                spatial=tuple(Loop(dim, factor, axis) for dim, factor, axis in level["spatial"]),
                temporal=tuple(Loop(dim, factor) for dim, factor in level["temporal"]),
                keep=tuple(level["keep"]),
            )
            for level in case["levels"]
        )
    )
