"""Networks written out with plain PyTorch, as functions that return a module and its example inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015): 572 x 572, unpadded convolutions, 2 x 2 transposed convolutions, cropped skips."""

    def __init__(self, channels: tuple[int, ...] = (64, 128, 256, 512, 1024)) -> None:
        super().__init__()

        def double(before: int, after: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(before, after, 3), nn.ReLU(), nn.Conv2d(after, after, 3), nn.ReLU())

        self.d = nn.ModuleList(double(before, after) for before, after in zip((1, *channels[:-1]), channels, strict=True))
        self.p = nn.MaxPool2d(2)
        pairs = list(zip(channels[::-1], channels[-2::-1], strict=False))
        self.u = nn.ModuleList(nn.ConvTranspose2d(before, after, 2, 2) for before, after in pairs)
        self.c = nn.ModuleList(double(before, after) for before, after in pairs)
        self.o = nn.Conv2d(channels[0], 2, 1)

    def forward(self, x: Any) -> Any:
        skips = []
        for at, down in enumerate(self.d):
            x = down(x)
            if at < len(self.d) - 1:
                skips.append(x)
                x = self.p(x)
        for up, double, skip in zip(self.u, self.c, reversed(skips), strict=True):
            x = up(x)
            cut = (skip.shape[-1] - x.shape[-1]) // 2
            skip = skip[..., cut : cut + x.shape[-2], cut : cut + x.shape[-1]]
            x = double(torch.cat([skip, x], 1))
        return self.o(x)


def unet() -> tuple[nn.Module, tuple[Any, ...]]:
    return UNet(), (torch.zeros(1, 1, 572, 572),)


def vgg16() -> tuple[nn.Module, tuple[Any, ...]]:
    features: list[nn.Module] = []
    before = 3
    for channels, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            features += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU(inplace=True)]
            before = channels
        features.append(nn.MaxPool2d(2))
    classifier = nn.Sequential(
        nn.Linear(512 * 49, 4096), nn.ReLU(True), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(True), nn.Dropout(), nn.Linear(4096, 1000)
    )
    model = nn.Sequential()
    model.add_module("features", nn.Sequential(*features))
    model.add_module("avgpool", nn.AdaptiveAvgPool2d(7))
    model.add_module("flatten", nn.Flatten())
    model.add_module("classifier", classifier)
    return model, (torch.zeros(1, 3, 224, 224),)


class Inverted(nn.Module):
    """An inverted residual of MobileNetV2."""

    def __init__(self, before: int, after: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = before * expansion
        layers = [conv_relu6(before, wide, 1)] if expansion != 1 else []
        layers += [conv_relu6(wide, wide, 3, stride, wide), nn.Conv2d(wide, after, 1, bias=False), nn.BatchNorm2d(after)]
        self.conv = nn.Sequential(*layers)
        self.joins = stride == 1 and before == after

    def forward(self, x: Any) -> Any:
        return x + self.conv(x) if self.joins else self.conv(x)


def conv_relu6(before: int, after: int, window: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, window, stride, window // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU6(inplace=True))


class MobileNetV2(nn.Module):
    """MobileNetV2 (Sandler et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_relu6(3, 32, 3, 2)]
        before = 32
        for expansion, channels, blocks, stride in (
            (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
        ):  # fmt: skip
            for block in range(blocks):
                layers.append(Inverted(before, channels, stride if block == 0 else 1, expansion))
                before = channels
        self.features = nn.Sequential(*layers, conv_relu6(before, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(1280, 1000))

    def forward(self, x: Any) -> Any:
        return self.classifier(self.features(x).mean((2, 3)))


def mobilenetv2() -> tuple[nn.Module, tuple[Any, ...]]:
    return MobileNetV2(), (torch.zeros(1, 3, 224, 224),)


class Several(nn.Module):
    """Layers of many kinds with keyword inputs: one-dimensional, grouped, transposed, normalized by groups."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv1d(6, 8, 5, stride=2, padding=2)
        self.groups = nn.Conv1d(8, 12, 3, groups=4, padding=1)
        self.norm = nn.GroupNorm(3, 12)
        self.up = nn.ConvTranspose1d(12, 5, 4, stride=3, padding=1, output_padding=1)
        self.scale = nn.Parameter(torch.ones(5, 1))

    def forward(self, x: Any, *, shift: Any) -> Any:
        return torch.einsum("bcl,bdl->bcd", self.up(self.norm(self.groups(self.one(x)))) * self.scale, shift)


def several() -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    return Several(), (torch.zeros(2, 6, 40),), {"shift": torch.zeros(2, 7, 60)}


class Recurrent(nn.Module):
    """A layer that is not counted."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(8, 8)

    def forward(self, x: Any) -> Any:
        return self.cell(x)[0]


def recurrent() -> tuple[nn.Module, tuple[Any, ...]]:
    return Recurrent(), (torch.zeros(3, 2, 8),)


class Picky(nn.Module):
    """Its result's shape depends on data."""

    def forward(self, x: Any) -> Any:
        return x[x > 0]


def picky() -> tuple[nn.Module, tuple[Any, ...]]:
    return Picky(), (torch.zeros(8),)


def nothing() -> int:
    return 3


def broken() -> None:
    raise RuntimeError("on purpose")


def misfit() -> tuple[nn.Module, tuple[Any, ...]]:
    return nn.Linear(3, 4), (torch.zeros(2, 5),)
