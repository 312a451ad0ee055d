"""Conformance suites for plugins: subclass one in your package's tests, name your plugin, and inherit its tests.

    from tilewright.testing import MapperConformance

    class TestMine(MapperConformance):
        name = "mine"

Needs pytest. Every test says in its docstring which promise of `tilewright.protocol.plugin` it checks.
"""

from .codesigners import CodesignerConformance
from .emitters import EmitterConformance
from .frontends import FrontendConformance
from .mappers import MapperConformance
from .simulators import SimulatorConformance
from .targets import TargetConformance

__all__ = [
    "CodesignerConformance",
    "EmitterConformance",
    "FrontendConformance",
    "MapperConformance",
    "SimulatorConformance",
    "TargetConformance",
]
