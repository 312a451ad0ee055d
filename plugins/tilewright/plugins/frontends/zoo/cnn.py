"""VGG and MobileNetV2, as torchvision builds them."""

from __future__ import annotations

from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Options

from .graph import Graph
from .layers import linear, pointwise
from .vision import Image, Vision, activation, add, batchnorm, conv, image, mean, pool

CLASSES = 1000


class Vgg(Vision, frozen=True):
    """VGG: stages of (channels, 3 x 3 convolutions), each ended by a pool."""

    #: (channels, convolutions) per stage.
    stages: tuple[tuple[int, int], ...] = ()

    #: Side that the classifier's pool makes.
    pooled: int = 7
    #: Width of the two hidden classifier layers.
    width: int = 4096

    def configured(self, name: str, options: Options) -> Vision:
        """As for every image model; the classifier's average pool needs whole windows."""
        model = super().configured(name, options)
        multiple = self.pooled * 2 ** len(self.stages)
        if model.size % multiple:
            raise InvalidInput(
                f"size: {model.size}, expected a multiple of {multiple} ({name}'s classifier pools to {self.pooled} x {self.pooled})"
            )
        return model


class MobileNetV2(Vision, frozen=True):
    """MobileNetV2: stages of inverted residuals."""

    #: (expansion, channels, blocks, stride of the first block) per stage.
    stages: tuple[tuple[int, int, int, int], ...] = ()
    #: Channels of the first and of the last convolution.
    first: int = 32
    last: int = 1280


def vgg(graph: Graph, model: Vgg) -> None:
    """VGG with its classifier, without batch normalization."""
    x, at = image(graph, model, 3), 0
    for channels, convolutions in model.stages:
        for _ in range(convolutions):
            x = conv(graph, f"features.{at}", x, channels, 3, padding=1, bias=True)
            x = activation(graph, f"features.{at + 1}", "relu", x)
            at += 2
        x = pool(graph, f"features.{at}", x, 2, 2)
        at += 1
    window = x.size // model.pooled
    x = pool(graph, "avgpool", x, window, window)
    y, c = x.name, x.channels * model.pooled**2
    for at in (0, 3):
        y = linear(graph, f"classifier.{at}", y, model.batch, c, model.width)
        y = pointwise(graph, f"classifier.{at + 1}", "relu", {"P": model.batch, "K": model.width}, y)
        c = model.width
    linear(graph, "classifier.6", y, model.batch, c, CLASSES)


def mobilenet(graph: Graph, model: MobileNetV2) -> None:
    """MobileNetV2 with its classifier."""
    x = _conv_relu6(graph, "features.0", image(graph, model, 3), model.first, 3, stride=2, padding=1)
    at = 1
    for expansion, channels, blocks, stride in model.stages:
        for block in range(blocks):
            x = _inverted_residual(graph, f"features.{at}", x, expansion, channels, stride if block == 0 else 1)
            at += 1
    x = _conv_relu6(graph, f"features.{at}", x, model.last, 1)
    linear(graph, "classifier.1", mean(graph, "", x), model.batch, model.last, CLASSES)


def _inverted_residual(graph: Graph, module: str, x: Image, expansion: int, channels: int, stride: int) -> Image:
    wide, at = x.channels * expansion, 0
    y = x
    if expansion != 1:
        y, at = _conv_relu6(graph, f"{module}.conv.0", y, wide, 1), 1
    y = _conv_relu6(graph, f"{module}.conv.{at}", y, wide, 3, stride=stride, padding=1, grouped=True)
    y = batchnorm(graph, f"{module}.conv.{at + 2}", conv(graph, f"{module}.conv.{at + 1}", y, channels, 1))
    return add(graph, module, x, y) if stride == 1 and x.channels == channels else y


def _conv_relu6(graph: Graph, module: str, x: Image, k: int, r: int, *, stride: int = 1, padding: int = 0, grouped: bool = False) -> Image:
    y = conv(graph, f"{module}.0", x, k, r, stride=stride, padding=padding, grouped=grouped)
    return activation(graph, f"{module}.2", "relu6", batchnorm(graph, f"{module}.1", y))
