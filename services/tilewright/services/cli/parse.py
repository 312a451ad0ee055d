"""From words on a command line to typed values; what cannot be is `InvalidInput`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tilewright.protocol.errors import InvalidInput, suggest

if TYPE_CHECKING:
    from tilewright.protocol.plugin import Option
    from tilewright.protocol.subjects import Stage


def pairs(words: Sequence[str], flag: str) -> dict[str, str]:
    """``["a=1", "b=x"]`` as a dict; each name once."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.strip():
            raise InvalidInput(f"{flag} {word!r}: expected NAME=VALUE, e.g. {flag} depth=3")
        if name.strip() in found:
            raise InvalidInput(f"{flag} {word!r}: {name.strip()!r} was given before, expected each name once")
        found[name.strip()] = value.strip()
    return found


def scalar(text: str) -> Option:
    """A bool, an integer, a float, or else the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def options(words: Sequence[str], flag: str) -> dict[str, Option]:
    """Plugin options from ``NAME=VALUE`` words."""
    return {name: scalar(value) for name, value in pairs(words, flag).items()}


def integers(words: Sequence[str], flag: str) -> dict[str, int]:
    """Integers by name."""
    found = {}
    for name, value in pairs(words, flag).items():
        try:
            found[name] = int(value)
        except ValueError:
            raise InvalidInput(f"{flag} {name}={value}: expected an integer") from None
    return found


def numbers(words: Sequence[str], flag: str) -> dict[str, float]:
    """Finite numbers by name."""
    found = {}
    for name, value in pairs(words, flag).items():
        number = scalar(value)
        if isinstance(number, bool | str) or number != number or abs(number) == float("inf"):
            raise InvalidInput(f"{flag} {name}={value}: expected a number")
        found[name] = float(number)
    return found


def stages(text: str) -> tuple[Stage, ...]:
    """Stages from a comma-separated list."""
    from tilewright.protocol.subjects import STAGES

    wanted = [word.strip() for word in text.split(",") if word.strip()]
    if not wanted:
        raise InvalidInput(f"--stages {text!r}: expected some of {', '.join(STAGES)}")
    for word in wanted:
        if word not in STAGES:
            raise InvalidInput(f"--stages: {word!r} is not a stage{suggest(word, STAGES)}")
    return tuple(stage for stage in STAGES if stage in wanted)
