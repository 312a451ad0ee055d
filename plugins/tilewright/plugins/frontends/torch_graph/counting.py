"""What other frontends need to have their operators counted as calls of PyTorch."""

from .calls import Call, Info, Ref, Step
from .graph import Graph
from .rules import steps

__all__ = ["Call", "Graph", "Info", "Ref", "Step", "steps"]
