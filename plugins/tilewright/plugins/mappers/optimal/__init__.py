"""The optimal mapping with a certificate."""

from .mapper import Optimal

__all__ = ["Optimal"]
