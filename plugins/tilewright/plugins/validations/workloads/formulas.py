"""Multiply-accumulates in closed form, from the published sizes of the models: against ours at lengths and batches of all kinds.

`S` tokens of `B` sequences with `T` in the context, width `h`, feed-forward width `f`, `L` layers, vocabulary `V`:

- encoder: ``B (L (4 S h^2 + 2 S h f + 2 S T h) + h^2)``, the last term being the pooler
- GPT-2: ``B (L (4 S h^2 + 2 S h f + 2 S T h) + S h V)``
- Llama, with `k` columns of keys: ``B (L (S (2 h^2 + 2 h k + 3 h f) + 2 S T h) + S h V)``
- Mixtral: two of eight experts, so ``2 x 3 h f``, and a router of ``8 h``
- convolutions: results times taps times channels of a group, stage by stage
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from tilewright.protocol.plugin import Options


class Formula(NamedTuple):
    """A model at some options, and its multiply-accumulates."""

    model: str
    options: Options
    macs: int


def formulas() -> Iterator[Formula]:
    """All of them."""
    for seq, batch in ((1, 1), (77, 3), (128, 1), (512, 2)):
        options: Options = {"seq": seq, "batch": batch}
        yield Formula("bert-base", options, batch * (_stack(12, seq, seq, 768, 3072) + 768**2))
        yield Formula("bert-large", options, batch * (_stack(24, seq, seq, 1024, 4096) + 1024**2))
        yield Formula("gpt2", options, batch * (_stack(12, seq, seq, 768, 3072) + seq * 768 * 50257))
    for context, batch in ((1, 1), (1000, 8)):
        options = {"decode": True, "ctx": context, "batch": batch}
        yield Formula("gpt2", options, batch * (_stack(12, 1, context, 768, 3072) + 768 * 50257))
        yield Formula("llama-3-8b", options, batch * _llama(32, 1, context, 4096, 1024, 14336, 128256))
        yield Formula("mixtral-8x7b", options, batch * _llama(32, 1, context, 4096, 1024, 14336, 32000, experts=2, router=8))
    for seq in (100, 2048):
        yield Formula("llama-3-8b", {"seq": seq}, _llama(32, seq, seq, 4096, 1024, 14336, 128256))
        yield Formula("llama-3-70b", {"seq": seq}, _llama(80, seq, seq, 8192, 1024, 28672, 128256))
    yield Formula("vgg16", {}, _vgg16())
    yield Formula("resnet50", {}, _resnet50(strided_first=False))
    yield Formula("resnet50-v1", {}, _resnet50(strided_first=True))
    yield Formula("vit-base", {}, 196 * 768 * 768 + _stack(12, 197, 197, 768, 3072) + 768**2)


def _stack(layers: int, s: int, t: int, h: int, f: int) -> int:
    return layers * (4 * s * h * h + 2 * s * h * f + 2 * s * t * h)


def _llama(layers: int, s: int, t: int, h: int, k: int, f: int, v: int, *, experts: int = 1, router: int = 0) -> int:
    return layers * (s * (2 * h * h + 2 * h * k + experts * 3 * h * f + router * h) + 2 * s * t * h) + s * h * v


def _vgg16() -> int:
    stages = ((224, (3, 64, 64)), (112, (64, 128, 128)), (56, (128, 256, 256, 256)), (28, (256, 512, 512, 512)), (14, (512,) * 4))
    convolutions = sum(9 * side * side * a * b for side, channels in stages for a, b in pairwise(channels))
    return convolutions + 49 * 512 * 4096 + 4096 * 4096 + 4096 * 1000


def _resnet50(*, strided_first: bool) -> int:
    total, before = 112**2 * 3 * 64 * 49, 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        side, width = 56 >> stage, 64 << stage
        wide = side if stage == 0 or strided_first else 2 * side
        total += before * width * wide**2 + (9 * width * width + 4 * width * width + before * 4 * width) * side**2
        total += (blocks - 1) * (4 * width * width + 9 * width * width + 4 * width * width) * side**2
        before = 4 * width
    return total + 2048 * 1000
