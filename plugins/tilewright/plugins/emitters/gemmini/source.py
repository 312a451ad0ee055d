"""C that issues a job's instructions, from templates."""

from __future__ import annotations

from importlib import resources
from string import Template
from typing import Any


def render(name: str, job: Any, dim: int, why: str) -> dict[str, str]:
    """Source, header and test (which prints the stream)."""
    files = resources.files(__package__) / "templates"
    conv = hasattr(job.task, "shape")
    figures = _conv(job) if conv else _matmul(job, dim)
    values = {**figures, "name": name, "why": why, "rocc": (files / "rocc.h").read_text(), "dim": dim, "repeat": job.repeat}
    values |= dict(zip(("step_a", "step_b", "step_c"), job.steps, strict=True))
    arguments = "const int8_t *in, const int8_t *weights, int8_t *out" if conv else "const int8_t *a, const int8_t *b, int8_t *c"
    return {
        "source": Template((files / ("conv.c" if conv else "matmul.c")).read_text()).substitute(values),
        "header": f"#pragma once\n#include <stdint.h>\nvoid {name}({arguments});\n",
        "test": Template((files / "test.c").read_text()).substitute(values),
    }


def _matmul(job: Any, dim: int) -> dict[str, Any]:
    task, tiles = job.task, job.tiles
    blocks = [-(-size // dim) for size in (task.m, task.n, task.k)]
    counts = [-(-whole // tile) for whole, tile in zip(blocks, tiles, strict=True)]
    return {
        "m": task.m, "n": task.n, "k": task.k, "ti": tiles.i, "tj": tiles.j, "tk": tiles.k,
        "bi": blocks[0], "bj": blocks[1], "bk": blocks[2],
        "pi": blocks[0] * dim - task.m, "pj": blocks[1] * dim - task.n, "pk": blocks[2] * dim - task.k,
        "keep_a": int(counts[0] * counts[2] <= 2), "keep_b": int(counts[1] * counts[2] <= 2), "a": task.a, "b": task.b, "c": task.c,
    }  # fmt: skip


def _conv(job: Any) -> dict[str, Any]:
    task, tiles, shape = job.task, job.tiles, job.task.shape
    whole = (shape.batch, shape.out_rows, shape.out_cols, shape.out_channels, shape.kernel, shape.kernel, shape.in_channels)
    n, q, p, k, s, r, c = (-(-size // tile) for size, tile in zip(whole, tiles, strict=True))
    return {
        "batch": shape.batch, "rows": shape.in_rows, "cols": shape.in_cols, "channels": shape.in_channels, "out_rows": shape.out_rows,
        "out_cols": shape.out_cols, "filters": shape.out_channels, "kernel": shape.kernel, "stride": shape.stride,
        "padding": shape.padding, "dilation": shape.dilation, "down": int(shape.downsample), "in_stride": task.in_stride,
        "weight_stride": task.weight_stride, "out_stride": task.out_stride,
        **dict(zip(("tn", "tq", "tp", "tk", "ts", "tr", "tc"), tiles, strict=True)),
        "keep_a": int(c * s * r * n * q * p <= 2), "keep_b": int(c * s * r * k <= 2), "a": task.input, "b": task.weights, "c": task.output,
    }  # fmt: skip
