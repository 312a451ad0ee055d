"""Where things are printed. Colours and live views only on a terminal, and never against ``NO_COLOR``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

#: Width of what does not go to a terminal: wide enough that nothing is broken into lines.
PIPED_WIDTH = 4096


def console() -> Console:
    """The console of standard output."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False, markup=False, emoji=False)


def width() -> int:
    """Characters of a line of standard output."""
    return console().width


def show(renderable: RenderableType) -> None:
    """Print to standard output; without the blanks that fill tables up where it is not a terminal."""
    target = console()
    if target.is_terminal:
        target.print(renderable)
        return
    with target.capture() as captured:
        target.print(renderable)
    line("\n".join(row.rstrip() for row in captured.get().splitlines()))


def line(text: str) -> None:
    """Print one plain line to standard output."""
    print(text, flush=True)


def note(text: str) -> None:
    """Print one line to standard error."""
    print(text, file=sys.stderr, flush=True)


def json_line(value: Any) -> None:
    """Print a value as one line of JSON; bytes as base64."""
    import msgspec

    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()
