"""From words on a command line to typed values; what cannot be is `InvalidInput`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tilewright.protocol.errors import InvalidInput, suggest

if TYPE_CHECKING:
    from tilewright.protocol.plugin import Option
    from tilewright.protocol.subjects import Stage

_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,199}")
_TIME = re.compile(r"(\d+\.?\d*|\.\d+)\s*(ms|s|min|m|h|d)?")
_SECONDS = {"ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def file_name(name: str) -> str:
    """The name of a file that a result brought, when it is one of a file below a folder and nowhere else; else `InvalidInput`."""
    if not _FILE.fullmatch(name):
        raise InvalidInput(f"file {name!r}: expected a name of letters, digits, - . _ that does not begin with a dot")
    return name


def seconds(flag: str, text: str) -> float | None:
    """Seconds from ``30``, ``30s``, ``500ms``, ``2min`` or ``1h``; None for an empty text."""
    if not text:
        return None
    match = _TIME.fullmatch(text.strip())
    if not match or float(match[1]) <= 0:
        raise InvalidInput(f"{flag} {text!r}: expected a time above 0, e.g. 30s, 500ms or 2min")
    return float(match[1]) * _SECONDS[match[2] or ""]


def share(flag: str, text: str) -> float | None:
    """A share of 1 from ``0.01`` or ``1%``; None for an empty text."""
    if not text:
        return None
    percent = text.strip().endswith("%")
    number = scalar(text.strip().removesuffix("%").strip())
    if isinstance(number, bool | str) or not math.isfinite(number) or number < 0:
        raise InvalidInput(f"{flag} {text!r}: expected a share of at least 0, e.g. 1% or 0.01")
    return number / 100 if percent else float(number)


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
