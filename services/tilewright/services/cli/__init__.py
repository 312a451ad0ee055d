"""The command line: a client of the bus that asks for runs, watches them and shows what came out."""

from __future__ import annotations


def main() -> None:
    """Entry point of the ``tilewright`` command."""
    from .app import app

    app(prog_name="tilewright")
