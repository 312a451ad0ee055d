"""The conformance suite on the mappers."""

from __future__ import annotations

import importlib.util
from typing import ClassVar

import pytest

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


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs the extra torch")
class TestGradient(MapperConformance):
    name = "gradient"
    options: ClassVar[Options] = {"starts": 4, "steps": 10, "rounds": 3}


class TestPortfolio(MapperConformance):
    name = "portfolio"
