"""U-Net as published in 2015: unpadded convolutions, 2 x 2 transposed convolutions on the way up, cropped skips."""

from __future__ import annotations

import msgspec

from tilewright.protocol.workload import INPUTS, WEIGHTS, conv_transpose

from .graph import Graph
from .layers import concatenate
from .options import Limits
from .vision import SIDES, Image, Vision, activation, conv, image, pool


class UNet(Vision, frozen=True):
    """U-Net: channels per depth, from the top down."""

    channels: tuple[int, ...] = ()
    image_channels: int = 1
    classes: int = 2

    @property
    def sides(self) -> Limits:
        """Unpadded convolutions eat four rows per depth and direction; at least one must be left at the end."""
        side = 1
        for _ in self.channels[1:]:
            side = -(-(side + 4) // 2)
        side += 4
        for _ in self.channels[1:]:
            side = 2 * side + 4
        return Limits(side, SIDES.high)


def unet(graph: Graph, model: UNet) -> None:
    """U-Net down, up, and its final 1 x 1 convolution."""
    x = image(graph, model, model.image_channels)
    skips = []
    for depth, channels in enumerate(model.channels):
        if depth:
            skips.append(x)
            x = pool(graph, "p", x, 2, 2)
        x = _double(graph, f"d.{depth}", x, channels)
    for step, skip in enumerate(reversed(skips)):
        x, phases = _up(graph, f"u.{step}", x, skip.channels)
        shape = {**x.shape, "K": 2 * x.channels}
        # Each phase of the transposed convolution writes every second row and column of the second operand.
        joined = concatenate(graph, "", shape, "K", [(skip.name, x.channels), (x.name, x.channels)], also=phases[1:])
        x = _double(graph, f"c.{step}", x._replace(name=joined, channels=2 * x.channels), x.channels)
    conv(graph, "o", x, model.classes, 1, bias=True)


def _double(graph: Graph, module: str, x: Image, channels: int) -> Image:
    for at in (0, 2):
        x = conv(graph, f"{module}.{at}", x, channels, 3, bias=True)
        x = activation(graph, f"{module}.{at + 1}", "relu", x)
    return x


def _up(graph: Graph, module: str, x: Image, k: int) -> tuple[Image, list[str]]:
    """A 2 x 2 transposed convolution of stride 2: the doubled image, and the results of its four phases."""
    weight, bias = graph.parameter(f"{module}.weight", x.channels, k, 2, 2), graph.parameter(f"{module}.bias", k)
    results = [
        graph.add(module, msgspec.structs.replace(phase, bias_bits=graph.bits), {INPUTS: x.name, WEIGHTS: weight}, also=(bias,))
        for phase in conv_transpose(r=2, s=2, p=x.size, q=x.size, c=x.channels, k=k, n=x.batch, stride=(2, 2), bits=graph.bits)
    ]
    return Image(results[0], x.batch, k, 2 * x.size), results
