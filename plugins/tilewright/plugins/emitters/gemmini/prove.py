"""Values of an instruction stream against numpy, on the job itself or on a smaller one with the same tiles."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
#: Multiply-accumulates that are executed at most.
LIMIT = 1 << 21
PAGE = 4096


def prove(simulator: Any, job: Any, architecture: Any, dim: int) -> str:
    """What was executed and compared; `AssertionError` when a value differs, which is an error of this emitter."""
    small = _small_conv(job, dim) if hasattr(job.task, "shape") else _small_matmul(job, dim)
    shapes = _shapes(small.task)
    starts = [PAGE]
    for shape in shapes:
        starts.append(starts[-1] + -(-int(np.prod(shape)) // PAGE) * PAGE)
    task = small.task
    placed = (
        task._replace(input=starts[0], weights=starts[1], output=starts[2])
        if hasattr(task, "shape")
        else task._replace(a=starts[0], b=starts[1], c=starts[2])
    )
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-128, 128, shape).astype(np.int8) for shape in shapes[:2])
    memory = np.zeros(starts[3], np.uint8)
    for start, data in zip(starts, (a, b), strict=False):
        memory[start : start + data.size] = data.view(np.uint8).reshape(-1)
    simulator.execute(simulator.program(small._replace(task=placed), architecture), memory, architecture)
    got = memory[starts[2] : starts[2] + int(np.prod(shapes[2]))].view(np.int8).reshape(shapes[2])
    wanted = _conv(task, a, b) if hasattr(task, "shape") else a.astype(np.int64) @ b.astype(np.int64)
    got = got[..., : wanted.shape[-1]]
    different = int((got != np.clip(wanted, -128, 127)).sum())
    assert not different, f"{different} of {wanted.size} values differ from numpy"
    return " x ".join(map(str, wanted.shape)) + " results of the functional model"


def _shapes(task: Any) -> tuple[tuple[int, ...], ...]:
    if not hasattr(task, "shape"):
        return (task.m, task.k), (task.k, task.n), (task.m, task.n)
    shape = task.shape
    return (
        (shape.batch, shape.in_rows, shape.in_cols, task.in_stride),
        (shape.kernel, shape.kernel, shape.in_channels, shape.out_channels),
        (shape.batch, shape.out_rows, shape.out_cols, task.out_stride),
    )


def _halved(size: int, step: int) -> int:
    """About half, with the same remainder of `step`."""
    return max(1, size // 2 // step * step + size % step)


def _small_matmul(job: Any, dim: int) -> Any:
    task = job.task
    while task.m * task.n * task.k > LIMIT:
        name = max(("m", "n", "k"), key=lambda each: getattr(task, each))
        task = task._replace(**{name: _halved(getattr(task, name), dim)})
    blocks = [-(-size // dim) for size in (task.m, task.n, task.k)]
    tiles = type(job.tiles)(*(min(tile, most) for tile, most in zip(job.tiles, blocks, strict=True)))
    return job._replace(task=task._replace(a_stride=0, b_stride=0, c_stride=0), tiles=tiles, repeat=1)


def _small_conv(job: Any, dim: int) -> Any:
    shape = job.task.shape._replace(batch=min(2, job.task.shape.batch))
    while shape.batch * shape.out_rows * shape.out_cols * shape.out_channels * shape.in_channels * shape.kernel**2 > LIMIT:
        name = max(("out_rows", "out_cols", "in_channels", "out_channels"), key=lambda each: getattr(shape, each))
        value = _halved(getattr(shape, name), dim if name.endswith("channels") else 1)
        if name.startswith("out_") and not name.endswith("channels"):
            other = "in" + name[3:]
            shape = shape._replace(**{other: getattr(shape, other) - (getattr(shape, name) - value) * shape.stride})
        shape = shape._replace(**{name: value})
    spread = 1 if job.repeat == 1 else 2
    most = (shape.batch, shape.out_rows, shape.out_cols, shape.out_channels, shape.kernel, shape.kernel, shape.in_channels)
    tiles = type(job.tiles)(*(min(tile, limit) for tile, limit in zip(job.tiles, most, strict=True)))
    task = job.task._replace(
        shape=shape, in_stride=shape.in_channels * spread, weight_stride=shape.out_channels, out_stride=shape.out_channels * spread
    )
    return job._replace(task=task, tiles=tiles, repeat=1)


def _conv(task: Any, image: Array, weights: Array) -> Array:
    """A convolution by its definition: one product per tap."""
    shape = task.shape
    pad = shape.padding
    reach = shape.stride * (shape.out_rows - 1) + (shape.kernel - 1) * shape.dilation + 1
    more = max(
        0,
        reach - shape.in_rows - pad,
        shape.stride * (shape.out_cols - 1) + reach - shape.stride * (shape.out_rows - 1) - shape.in_cols - pad,
    )
    data = np.pad(image[..., : shape.in_channels].astype(np.int64), ((0, 0), (pad, more), (pad, more), (0, 0)))
    total = np.zeros((shape.batch, shape.out_rows, shape.out_cols, shape.out_channels), np.int64)
    for y in range(shape.kernel):
        for x in range(shape.kernel):
            rows = y * shape.dilation + shape.stride * np.arange(shape.out_rows)
            cols = x * shape.dilation + shape.stride * np.arange(shape.out_cols)
            total += data[:, rows][:, :, cols] @ weights[y, x].astype(np.int64)
    return total
