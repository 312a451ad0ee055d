"""Layers on images, and the options that image models share. Images are square and stored ``[N, channels, rows, columns]``."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from tilewright.protocol.plugin import Options
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS, Operator, Rank, Tensor, Term, conv2d, depthwise, elementwise

from .graph import Graph
from .layers import rank
from .options import BATCH, Limits, read_int

#: Smallest and largest image side; a family may ask for more.
SIDES = Limits(32, 8192)


class Vision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What every image model has: the side of its images and how many are processed at once."""

    family: str
    size: int
    batch: int = 1

    @property
    def option_names(self) -> tuple[str, ...]:
        """Options that image models take."""
        return ("batch", "bits", "size")

    @property
    def sides(self) -> Limits:
        """Image sides that the network can process."""
        return SIDES

    def configured(self, name: str, options: Options) -> Vision:
        """The model as `options` want it; `InvalidInput` names the option, the value and the limit."""
        size = read_int(options, "size", self.size, self.sides)
        return msgspec.structs.replace(self, size=size, batch=read_int(options, "batch", 1, BATCH))


class Image(NamedTuple):
    """A tensor of the graph that holds `batch` images."""

    name: str
    batch: int
    channels: int
    size: int

    @property
    def shape(self) -> dict[str, int]:
        """Its named dims, in the order of its ranks."""
        return {"N": self.batch, "K": self.channels, "Q": self.size, "P": self.size}


def image(graph: Graph, model: Vision, channels: int) -> Image:
    """The network's input."""
    return Image(graph.input("image", (model.batch, channels, model.size, model.size)), model.batch, channels, model.size)


def conv(
    graph: Graph, module: str, x: Image, k: int, r: int, *, stride: int = 1, padding: int = 0, grouped: bool = False, bias: bool = False
) -> Image:
    """An ``r x r`` convolution to `k` channels; `grouped`: depthwise, one filter per channel."""
    side = (x.size + 2 * padding - r) // stride + 1
    # The stored extent matters only where the last window ends before the image does.
    implied = (side - 1) * stride + r - 2 * padding
    extent = None if implied == x.size else x.size
    steps, border, ends = (stride, stride), (padding, padding), (extent, extent)
    operator = (
        depthwise(r=r, s=r, p=side, q=side, g=k, n=x.batch, stride=steps, padding=border, extent=ends, bits=graph.bits)
        if grouped
        else conv2d(r=r, s=r, p=side, q=side, c=x.channels, k=k, n=x.batch, stride=steps, padding=border, extent=ends, bits=graph.bits)
    )
    also: tuple[str, ...] = ()
    if bias:
        operator = msgspec.structs.replace(operator, bias_bits=graph.bits)
        also = (graph.parameter(f"{module}.bias", k),)
    weight = graph.parameter(f"{module}.weight", *operator.shape(WEIGHTS))
    return Image(graph.add(module, operator, {INPUTS: x.name, WEIGHTS: weight}, also=also), x.batch, k, side)


def batchnorm(graph: Graph, module: str, x: Image) -> Image:
    """Batch normalization at inference. As in the reference data its vectors are parameters, but not counted as operands."""
    also = (graph.parameter(f"{module}.weight", x.channels), graph.parameter(f"{module}.bias", x.channels))
    name = graph.add(module, elementwise("batchnorm", x.shape, bits=graph.bits), {INPUTS: x.name}, also=also)
    return x._replace(name=name)


def activation(graph: Graph, module: str, function: str, x: Image) -> Image:
    """An element-wise function of an image."""
    return x._replace(name=graph.add(module, elementwise(function, x.shape, bits=graph.bits), {INPUTS: x.name}))


def add(graph: Graph, module: str, x: Image, y: Image) -> Image:
    """Sum of two images."""
    operator = elementwise("add", x.shape, operands=2, bits=graph.bits)
    return x._replace(name=graph.add(module, operator, {INPUTS: x.name, f"{INPUTS}2": y.name}))


def pool(graph: Graph, module: str, x: Image, r: int, stride: int, padding: int = 0) -> Image:
    """A pooling window; one operation per tap."""
    side = (x.size + 2 * padding - r) // stride + 1
    base = elementwise("pool", {"N": x.batch, "K": x.channels, "Q": side, "P": side, "S": r, "R": r}, reduced=("S", "R"), bits=graph.bits)
    window = (Rank((Term("Q", stride), Term("S")), -padding, x.size), Rank((Term("P", stride), Term("R")), -padding, x.size))
    operator = with_ranks(base, (rank("N"), rank("K"), *window), (rank("N"), rank("K"), rank("Q"), rank("P")))
    return Image(graph.add(module, operator, {INPUTS: x.name}), x.batch, x.channels, side)


def mean(graph: Graph, module: str, x: Image) -> str:
    """Mean over rows and columns: ``[N, K]``."""
    base = elementwise("mean", x.shape, reduced=("Q", "P"), bits=graph.bits)
    return graph.add(module, with_ranks(base, base.tensors[0].ranks, (rank("N"), rank("K"))), {INPUTS: x.name})


def upsample(graph: Graph, module: str, x: Image, side: int) -> Image:
    """Nearest-neighbour upsampling by two, cut to `side` rows and columns."""
    base = elementwise("copy", {**x.shape, "S": 2, "R": 2}, bits=graph.bits)
    extent = None if side == 2 * x.size else side
    doubled = (Rank((Term("Q", 2), Term("S")), extent=extent), Rank((Term("P", 2), Term("R")), extent=extent))
    operator = with_ranks(base, tuple(rank(dim) for dim in x.shape), (rank("N"), rank("K"), *doubled))
    return Image(graph.add(module, operator, {INPUTS: x.name}), x.batch, x.channels, side)


def with_ranks(operator: Operator, inputs: tuple[Rank, ...], outputs: tuple[Rank, ...]) -> Operator:
    """A one-operand operator with other ranks."""
    bits = operator.tensors[0].bits
    return msgspec.structs.replace(operator, tensors=(Tensor(INPUTS, inputs, bits), Tensor(OUTPUTS, outputs, bits)))
