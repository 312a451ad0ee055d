"""The package's own tests: everything that Tilewright expects of a plugin, inherited."""

from __future__ import annotations

from tilewright.testing import MapperConformance, TargetConformance


class TestGreedy(MapperConformance):
    name = "greedy"


class TestNano(TargetConformance):
    name = "nano"
