"""Options of the zoo, checked: every error names the option, its value and the limit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tilewright.protocol.errors import InvalidInput, suggest
from tilewright.protocol.plugin import Options


class Limits(NamedTuple):
    """Smallest and largest allowed value, and what sets the larger one."""

    low: int
    high: int
    why: str = ""


BITS = Limits(1, 64)
BATCH = Limits(1, 65536)
LAYERS = Limits(1, 1000)
POSITIONS = Limits(1, 1 << 24)


def reject_unknown(model: str, options: Options, known: Iterable[str]) -> None:
    """`InvalidInput` for an option that this model does not have."""
    allowed = tuple(known)
    for name in options:
        if name not in allowed:
            raise InvalidInput(f"option {name!r}: {model} has no such option{suggest(name, allowed)}")


def read_int(options: Options, name: str, default: int, limits: Limits) -> int:
    """An integer option within limits."""
    value = options.get(name, default)
    why = f" ({limits.why})" if limits.why else ""
    if isinstance(value, bool) or not isinstance(value, int) or not limits.low <= value <= limits.high:
        raise InvalidInput(f"{name}: {value!r}, expected an integer from {limits.low} to {limits.high}{why}")
    return value


def read_flag(options: Options, name: str) -> bool:
    """A yes/no option, false unless it is given."""
    value = options.get(name, False)
    if not isinstance(value, bool):
        raise InvalidInput(f"{name}: {value!r}, expected true or false")
    return value
