"""Options of the co-designer."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Options

STARTS, ROUNDS, STEPS, RATE = 256, 2, 6, 0.1


@dataclass(frozen=True)
class Settings:
    """How to search: designs descended at once, roundings, steps before each, learning rate of logarithms."""

    space: str
    starts: int
    rounds: int
    steps: int
    rate: float

    @classmethod
    def of(cls, options: Options) -> Settings:
        """From a request's options; `InvalidInput` names what is wrong."""
        counts = [_whole(options, name, default) for name, default in (("starts", STARTS), ("rounds", ROUNDS), ("steps", STEPS))]
        rate = options.get("rate", RATE)
        if isinstance(rate, bool) or not isinstance(rate, int | float) or rate <= 0:
            raise InvalidInput(f"options.rate: {rate!r}, expected a number above 0")
        space = options.get("space", "")
        if space not in ("", "named", "full"):
            raise InvalidInput(f"options.space: {space!r}, expected named or full")
        starts, rounds, steps = counts
        return cls(str(space), starts, rounds, steps, float(rate))


def _whole(options: Options, name: str, default: int) -> int:
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidInput(f"options.{name}: {value!r}, expected a whole number of at least 1")
    return value
