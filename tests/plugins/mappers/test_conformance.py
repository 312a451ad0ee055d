"""The conformance suite on the mappers."""

from __future__ import annotations

from typing import ClassVar

from tilewright.protocol.plugin import Options
from tilewright.testing.mappers import MapperConformance


class TestRandom(MapperConformance):
    name = "random"


class TestCosa(MapperConformance):
    name = "cosa"


class TestCosaPaper(MapperConformance):
    name = "cosa"
    options: ClassVar[Options] = {"constants": "paper", "solver": "cbc"}


class TestPolish(MapperConformance):
    name = "polish"


class TestOptimal(MapperConformance):
    name = "optimal"


class TestHybrid(MapperConformance):
    name = "hybrid"


class TestGenetic(MapperConformance):
    name = "genetic"
