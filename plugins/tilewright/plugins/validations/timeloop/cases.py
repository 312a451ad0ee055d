"""Reference cases: one JSON object per line with architecture, problem, mapping, and what Timeloop said.

``reference.jsonl.gz``: runs of NVlabs/timeloop at commit 4cf6d4c (2025-03-31) with the public energy model; facts, no code.
Levels, loops and blocks are written innermost first; counts are words per instance. Fields that nothing needs are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from tilewright.protocol import validation
from tilewright.protocol.architecture import Architecture, Compute, Level, Positive
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.mapping import Axis, LevelMapping, Loop, Mapping
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS, Dim, Operator, Rank, Tensor, Term, conv2d

DATA = Path(__file__).with_name("reference.jsonl.gz")

Number = int | float
NonZero = Annotated[float, msgspec.Meta(gt=0)]


class _Mac(msgspec.Struct):
    instances: int
    word_bits: int
    energy_pj: float
    mesh_x: int = msgspec.field(name="meshX")
    mesh_y: int = msgspec.field(name="meshY")


class _Energies(msgspec.Struct):
    read: float
    fill: float
    update: float
    leak_per_cycle_per_instance: float


class _Level(msgspec.Struct):
    name: str
    entries_words: int | None
    word_bits: int
    block_size_words: int
    cluster_size: int
    instances: int
    read_bw: float | None
    write_bw: float | None
    shared_bw: float | None
    multiple_buffering: int
    energy_pj_per_vector_access: _Energies
    default_keep: tuple[str, ...]
    mesh_x: int = msgspec.field(name="meshX")
    mesh_y: int = msgspec.field(name="meshY")


class _Architecture(msgspec.Struct):
    name: str
    mac: _Mac
    levels: tuple[_Level, ...]


class _Dims(msgspec.Struct, forbid_unknown_fields=True):
    """Bounds of the built-in convolution, 1 where none is said; a depthwise one has no K."""

    R: Positive = 1
    S: Positive = 1
    P: Positive = 1
    Q: Positive = 1
    C: Positive = 1
    K: Positive = 1
    N: Positive = 1


class _Problem(msgspec.Struct):
    shape: Literal["cnn", "dw"]
    dims: _Dims
    Wstride: Positive
    Hstride: Positive
    Wdilation: Positive
    Hdilation: Positive


class _Block(msgspec.Struct):
    level: str
    temporal: tuple[tuple[str, int], ...]
    spatial: tuple[tuple[str, int, Axis], ...]
    keep: tuple[str, ...]


class _Mapping(msgspec.Struct):
    levels: tuple[_Block, ...]


class Counts(msgspec.Struct):
    """Words of one tensor at one level, per instance."""

    tile_words: Number
    instances: Number
    reads: Number
    fills: Number
    updates: Number


class LevelResult(msgspec.Struct):
    """What the tool said of one level."""

    cycles: Number
    tensors: dict[str, Counts]


class Result(msgspec.Struct):
    """What the tool said of a case."""

    cycles: NonZero
    utilization_percent: float
    energy_pj_recomputed: NonZero
    levels: dict[str, LevelResult]


class Case(msgspec.Struct):
    """One evaluated mapping."""

    arch: _Architecture
    problem: _Problem
    mapping: _Mapping
    result: Result
    id: str = "no id"
    #: With peer transfers, where that makes a difference.
    result_with_link_transfers: Result | None = None


class _Head(msgspec.Struct):
    """What is looked at before a case is read as one: imperfect factors have results of other types."""

    id: str = "no id"
    imperfect: bool = False


def read(path: Path) -> Iterator[tuple[int, Case | None]]:
    """Line number and case of every line of a (possibly gzipped) file, None for cases with imperfect factors.

    `InvalidInput` names file, line, and the field that is not what it should be.
    """
    for number, line in enumerate(validation.read(path).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            head = msgspec.json.decode(line, type=_Head)
            where += f" ({head.id})"
            yield number, None if head.imperfect else msgspec.json.decode(line, type=Case)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"{where}: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{where}: {error}, expected one JSON object per line") from error


def architecture(arch: _Architecture) -> Architecture:
    """The architecture of a case."""
    mac = arch.mac
    return Architecture(
        name=arch.name,
        compute=Compute("MAC", mac.instances, mac.mesh_x, mac.mesh_y, mac.word_bits, mac.energy_pj),
        levels=tuple(_level(level) for level in arch.levels),
    )


def _level(level: _Level) -> Level:
    energy = level.energy_pj_per_vector_access
    return Level(
        name=level.name,
        capacity_bits=None if level.entries_words is None else level.entries_words * level.word_bits,
        word_bits=level.word_bits,
        block_words=level.block_size_words,
        instances=level.instances,
        mesh_x=level.mesh_x,
        mesh_y=level.mesh_y,
        cluster_size=level.cluster_size,
        read_bandwidth=level.read_bw,
        write_bandwidth=level.write_bw,
        shared_bandwidth=level.shared_bw,
        multiple_buffering=level.multiple_buffering,
        keeps=level.default_keep,
        read_energy_pj=energy.read,
        fill_energy_pj=energy.fill,
        update_energy_pj=energy.update,
        leakage_pj_per_cycle=energy.leak_per_cycle_per_instance,
    )


def operator(problem: _Problem) -> Operator:
    """The operator of a case: a convolution, or (``dw``) a depthwise one over C without K."""
    dims = problem.dims
    stride = (problem.Wstride, problem.Hstride)
    dilation = (problem.Wdilation, problem.Hdilation)
    if problem.shape == "cnn":
        return conv2d(r=dims.R, s=dims.S, p=dims.P, q=dims.Q, c=dims.C, k=dims.K, n=dims.N, stride=stride, dilation=dilation)
    if dims.K != 1:
        raise InvalidInput(f"problem.dims.K: {dims.K}, expected none: the shape 'dw' has no K")
    channel, row, column = Rank((Term("C"),)), Rank((Term("P"),)), Rank((Term("Q"),))
    wide = Rank((Term("P", stride[0]), Term("R", dilation[0])))
    high = Rank((Term("Q", stride[1]), Term("S", dilation[1])))
    batch = Rank((Term("N"),))
    return Operator(
        dims=tuple(Dim(name, getattr(dims, name)) for name in "RSPQCN"),
        tensors=(
            Tensor(WEIGHTS, (channel, Rank((Term("R"),)), Rank((Term("S"),))), static=True),
            Tensor(INPUTS, (batch, channel, wide, high)),
            Tensor(OUTPUTS, (batch, channel, column, row)),
        ),
    )


def mapping(case: _Mapping) -> Mapping:
    """The mapping of a case."""
    return Mapping(
        tuple(
            LevelMapping(
                level.level,
                spatial=tuple(Loop(dim, factor, axis) for dim, factor, axis in level.spatial),
                temporal=tuple(Loop(dim, factor) for dim, factor in level.temporal),
                keep=level.keep,
            )
            for level in case.levels
        )
    )
