"""The co-designer `pareto`: hardware search over shared mapping pools, with a certified lower bound where one is known. See README.md."""

from .search import Pareto

__all__ = ["Pareto"]
