"""From an operator and its mapping to tasks and tiles of Gemmini."""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec

from tilewright.protocol.architecture import Architecture
from tilewright.protocol.errors import InvalidArchitecture, InvalidInput
from tilewright.protocol.mapping import Mapping
from tilewright.protocol.workload import INPUTS, Operator

from .host import Conv, Matmul, Program, conv, matmul
from .machine import Machine
from .tiling import ConvShape, ConvTiles, MatmulTiles, conv_rows, tile_conv, tile_matmul

#: Where tensors lie in memory: far enough apart, aligned to pages.
PAGE = 4096
BASE = 1 << 20


class Job(NamedTuple):
    """An operator as Gemmini runs it: `repeat` times the same task, `words` of A, B and C further each time."""

    task: Matmul | Conv
    tiles: MatmulTiles | ConvTiles
    repeat: int = 1
    steps: tuple[int, int, int] = (0, 0, 0)


def machine_of(architecture: Architecture, options: Machine) -> Machine:
    """The machine with the sizes of an architecture of the target ``gemmini``."""
    try:
        scratchpad, accumulator = architecture.level("Scratchpad"), architecture.level("Accumulator")
    except KeyError as missing:
        raise InvalidArchitecture(
            f"levels: {list(architecture.level_names)} of {architecture.name!r} lack {missing}, expected those of the target 'gemmini'"
        ) from None
    dim = math.isqrt(architecture.compute.instances)
    if dim * dim != architecture.compute.instances:
        raise InvalidArchitecture(f"{architecture.compute.name}.instances: {architecture.compute.instances}, expected a square array")
    scratchpad_bytes = (scratchpad.capacity_bits or 0) * scratchpad.instances // 8
    accumulator_bytes = (accumulator.capacity_bits or 0) * accumulator.instances // 8
    return msgspec.structs.replace(options, dim=dim, scratchpad_bytes=scratchpad_bytes, accumulator_bytes=accumulator_bytes)


def lower(operator: Operator, machine: Machine, mapping: Mapping | None) -> Job:
    """How Gemmini runs a contraction; without `mapping` with the tiles of its own library.

    Raises `InvalidInput` for an operator that it cannot run, saying why.
    """
    if not operator.is_contraction:
        raise InvalidInput(f"operator {operator.function}: the gemmini simulator runs contractions")
    bounds = operator.bounds
    tile = _extents(mapping) if mapping is not None else None
    window = any(len(rank.terms) > 1 for rank in operator.tensor(INPUTS).ranks)
    if window or "Q" in bounds:
        return _conv(operator, machine, tile)
    m, k, n = bounds.get("P", 1) * bounds.get("N", 1), bounds.get("C", 1), bounds.get("K", 1)
    groups, shared = bounds.get("G", 1), bounds.get("H", 1)
    if set(bounds) - set("PCKGHN"):
        raise InvalidInput(f"operator with dims {sorted(bounds)}: the gemmini simulator runs matrix products (G H P C K) and convolutions")
    a, b, c = _layout(machine, groups * shared * m * k, groups * k * n, groups * shared * m * n)
    task = Matmul(m * shared, n, k, a, b, c)
    if tile is None:
        tiles = tile_matmul(task.m, n, k, machine)
    else:
        dim = machine.dim
        wanted = [-(-tile.get(name, 1) // dim) for name in ("P", "K", "C")]
        tiles = _fit_matmul(MatmulTiles(*wanted), machine)
    return Job(task, tiles, groups, (shared * m * k, k * n, shared * m * n))


def tiles_of(job: Job, machine: Machine) -> int:
    """Tiles of one repetition: loops that the host starts."""
    task = job.task
    if isinstance(task, Matmul):
        sizes = [-(-size // machine.dim) for size in (task.m, task.n, task.k)]
    else:
        shape = task.shape
        sizes = [shape.batch, *shape.pooled, shape.out_channels, shape.kernel, shape.kernel, shape.in_channels]
    return math.prod(-(-size // tile) for size, tile in zip(sizes, job.tiles, strict=True))


def program_of(job: Job, machine: Machine, index: int = 0) -> Program:
    """The host program of one repetition."""
    word = machine.input_bytes
    task = job.task
    if isinstance(task, Matmul):
        assert isinstance(job.tiles, MatmulTiles)
        moved = task._replace(
            a=task.a + index * job.steps[0] * word, b=task.b + index * job.steps[1] * word, c=task.c + index * job.steps[2] * word
        )
        return matmul(moved, machine, job.tiles)
    assert isinstance(job.tiles, ConvTiles)
    return conv(
        task._replace(
            input=task.input + index * job.steps[0] * word,
            weights=task.weights + index * job.steps[1] * word,
            output=task.output + index * job.steps[2] * word,
        ),
        machine,
        job.tiles,
    )


def _layout(machine: Machine, *words: int) -> list[int]:
    at, starts = BASE, []
    for count in words:
        starts.append(at)
        at += -(-count * machine.input_bytes // PAGE) * PAGE
    return starts


def _extents(mapping: Mapping) -> dict[str, int]:
    """Extent of each dim on chip: the product of its factors below the outermost level."""
    extents: dict[str, int] = {}
    for at, level in enumerate(mapping.levels):
        loops = (*level.spatial, *level.temporal) if at < len(mapping.levels) - 1 else level.spatial
        for loop in loops:
            extents[loop.dim] = extents.get(loop.dim, 1) * loop.factor
    return extents


def _fit_matmul(tiles: MatmulTiles, machine: Machine) -> MatmulTiles:
    """The tiles, cut (k first, then the larger of i and j) until they fit half of each memory: the other half holds the next tile."""
    i, j, k = tiles
    dim, scratchpad, accumulator = machine.dim, machine.scratchpad_rows // 2, machine.accumulator_rows // 2
    while (i + j) * k * dim > scratchpad or i * j * dim > accumulator:
        if (i + j) * k * dim > scratchpad and k > 1:
            k = -(-k // 2)
        elif i >= j:
            i = -(-i // 2)
        else:
            j = -(-j // 2)
    return MatmulTiles(i, j, k)


def _conv(operator: Operator, machine: Machine, tile: dict[str, int] | None) -> Job:
    bounds = operator.bounds
    n, groups = bounds.get("N", 1), bounds.get("G", 1)
    channels, filters = bounds.get("C", 1), bounds.get("K", 1)
    lines, columns = operator.tensor(INPUTS).ranks[-2:]
    stride, dilation, padding = {}, {}, {}
    for rank, out, tap in ((lines, "Q", "S"), (columns, "P", "R")):
        coefficients = {term.dim: term.coefficient for term in rank.terms}
        stride[out], dilation[out], padding[out] = coefficients.get(out, 1), coefficients.get(tap, 1), -rank.offset
    size = operator.shape(INPUTS)[-2:]
    kernel = (bounds.get("S", 1), bounds.get("R", 1))
    for what, pair in (
        ("kernel", kernel),
        ("stride", tuple(stride.values())),
        ("dilation", tuple(dilation.values())),
        ("padding", tuple(padding.values())),
    ):
        if pair[0] != pair[1]:
            raise InvalidInput(f"convolution with {what} {pair[1]} x {pair[0]}: gemmini's convolution unit takes square ones")
    shape = ConvShape(
        n, size[0], size[1], channels, filters, bounds.get("Q", 1), bounds.get("P", 1), kernel[0], stride["P"], padding["P"], dilation["P"]
    )
    image, taps, result = (
        size[0] * size[1] * channels,
        kernel[0] * kernel[1] * channels * filters,
        shape.out_rows * shape.out_cols * filters,
    )
    a, b, c = _layout(machine, n * image * groups, taps * groups, n * result * groups)
    task = Conv(shape, a, b, c, in_stride=channels * groups, weight_stride=filters, out_stride=filters * groups)
    wanted = ConvTiles(*(tile.get(name, 1) for name in "NQPKSRC")) if tile else None
    tiles = _fit_conv(shape, wanted, machine) if wanted else tile_conv(shape, machine)
    return Job(task, tiles, groups, (channels, taps, filters))


def _fit_conv(shape: ConvShape, tiles: ConvTiles, machine: Machine) -> ConvTiles:
    """The tiles, the largest halved until they fit half of each memory."""
    args = list(tiles)
    while True:
        used = conv_rows(shape, ConvTiles(*args), machine)
        if used[0] <= machine.scratchpad_rows // 2 and used[1] <= machine.accumulator_rows // 2:
            return ConvTiles(*args)
        at = max(range(7), key=lambda index: args[index])
        if args[at] == 1:
            raise InvalidInput(f"convolution {shape}: not even one pixel fits half of the scratchpad and of the accumulator")
        args[at] = -(-args[at] // 2)
