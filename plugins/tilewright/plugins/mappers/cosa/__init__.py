"""CoSA: the mapping that minimizes a log-domain proxy of latency and traffic, by one small mixed-integer program."""

from .mapper import Cosa

__all__ = ["Cosa"]
