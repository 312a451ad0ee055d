"""ResNet (v1.5, whose bottlenecks have their stride in the 3 x 3, and v1), and RetinaNet on v1.5, as torchvision builds them."""

from __future__ import annotations

from typing import Literal

from tilewright.protocol.workload import INPUTS, elementwise

from .graph import Graph
from .layers import concatenate, linear, rank
from .vision import Image, Vision, activation, add, batchnorm, conv, image, mean, pool, upsample, with_ranks

CLASSES = 1000
FIRST = 64


class ResNet(Vision, frozen=True):
    """A ResNet: four stages whose channels double."""

    block: Literal["basic", "bottleneck"] = "bottleneck"
    #: Blocks per stage.
    stages: tuple[int, ...] = ()
    #: Convolution of a bottleneck that has its stride: 2 in v1.5, 1 in the version first published.
    strided: Literal[1, 2] = 2


class RetinaNet(ResNet, frozen=True):
    """RetinaNet: a ResNet, a feature pyramid, and two heads that share their weights over the pyramid's levels."""

    #: Channels of the pyramid and of the heads.
    width: int = 256
    #: 3 x 3 convolutions in each head before the last one.
    depth: int = 4
    classes: int = 91
    anchors: int = 9


def resnet(graph: Graph, model: ResNet) -> None:
    """ResNet with its classifier."""
    x = _body(graph, "", model)[-1]
    linear(graph, "fc", mean(graph, "avgpool", x), model.batch, x.channels, CLASSES)


def retinanet(graph: Graph, model: RetinaNet) -> None:
    """RetinaNet without anchors and without suppression of overlapping boxes."""
    levels = _pyramid(graph, "backbone.fpn", _body(graph, "backbone.body.", model)[1:], model.width)
    _head(graph, "head.classification_head", "cls_logits", model, levels, model.classes)
    _head(graph, "head.regression_head", "bbox_reg", model, levels, 4)


def _body(graph: Graph, prefix: str, model: ResNet) -> list[Image]:
    """Results of the four stages."""
    x = conv(graph, f"{prefix}conv1", image(graph, model, 3), FIRST, 7, stride=2, padding=3)
    x = activation(graph, f"{prefix}relu", "relu", batchnorm(graph, f"{prefix}bn1", x))
    x = pool(graph, f"{prefix}maxpool", x, 3, 2, 1)
    results = []
    for stage, blocks in enumerate(model.stages):
        for block in range(blocks):
            stride = 2 if stage and block == 0 else 1
            x = _block(graph, f"{prefix}layer{stage + 1}.{block}", x, model, FIRST << stage, stride)
        results.append(x)
    return results


def _block(graph: Graph, module: str, x: Image, model: ResNet, channels: int, stride: int) -> Image:
    # (channels, window, stride) of each convolution; the last one has no activation of its own.
    if model.block == "basic":
        convolutions = [(channels, 3, stride), (channels, 3, 1)]
    else:
        first, second = (stride, 1) if model.strided == 1 else (1, stride)
        convolutions = [(channels, 1, first), (channels, 3, second), (4 * channels, 1, 1)]
    y = x
    for at, (k, r, step) in enumerate(convolutions, 1):
        y = conv(graph, f"{module}.conv{at}", y, k, r, stride=step, padding=r // 2)
        y = batchnorm(graph, f"{module}.bn{at}", y)
        if at < len(convolutions):
            y = activation(graph, f"{module}.relu", "relu", y)
    if stride != 1 or x.channels != y.channels:
        x = batchnorm(graph, f"{module}.downsample.1", conv(graph, f"{module}.downsample.0", x, y.channels, 1, stride=stride))
    return activation(graph, f"{module}.relu", "relu", add(graph, module, y, x))


def _pyramid(graph: Graph, module: str, stages: list[Image], width: int) -> list[Image]:
    """Pyramid levels, finest first: one per stage, and two coarser ones."""
    levels: list[Image] = []
    inner: Image | None = None
    for at in range(len(stages) - 1, -1, -1):
        lateral = conv(graph, f"{module}.inner_blocks.{at}.0", stages[at], width, 1, bias=True)
        inner = lateral if inner is None else add(graph, module, lateral, upsample(graph, module, inner, lateral.size))
        levels.insert(0, conv(graph, f"{module}.layer_blocks.{at}.0", inner, width, 3, padding=1, bias=True))
    coarse = conv(graph, f"{module}.extra_blocks.p6", levels[-1], width, 3, stride=2, padding=1, bias=True)
    active = activation(graph, f"{module}.extra_blocks", "relu", coarse)
    coarsest = conv(graph, f"{module}.extra_blocks.p7", active, width, 3, stride=2, padding=1, bias=True)
    return [*levels, coarse, coarsest]


def _head(graph: Graph, module: str, last: str, model: RetinaNet, levels: list[Image], values: int) -> None:
    """Apply one head to every level and join the `values` per anchor of all of them."""
    parts = []
    for x in levels:
        for at in range(model.depth):
            x = conv(graph, f"{module}.conv.{at}.0", x, model.width, 3, padding=1, bias=True)
            x = activation(graph, f"{module}.conv.{at}.1", "relu", x)
        x = conv(graph, f"{module}.{last}", x, model.anchors * values, 3, padding=1, bias=True)
        base = elementwise("copy", x.shape, bits=graph.bits)
        # Values of one anchor next to each other: [N, rows x columns x anchors, values].
        last_first = with_ranks(base, base.tensors[0].ranks, tuple(rank(dim) for dim in ("N", "Q", "P", "K")))
        parts.append((graph.add(module, last_first, {INPUTS: x.name}), x.size**2 * model.anchors))
    shape = {"N": model.batch, "P": sum(rows for _, rows in parts), "K": values}
    concatenate(graph, module, shape, "P", parts)
