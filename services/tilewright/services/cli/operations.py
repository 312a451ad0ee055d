"""The commands of whoever runs a house for others: set up a server. Bodies import what they need."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

admin = typer.Typer(no_args_is_help=True, help="Set up a server of your own.")

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the roles' secrets are made and kept.", show_default=False)]


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands to the command line, listed in a panel of its help."""
    app.add_typer(admin, name="admin", rich_help_panel=panel)


@admin.command()
def init(replicas: Annotated[int, typer.Option("--replicas", metavar="N", min=1, max=5, help="Copies of every stream.")] = 1) -> None:
    """Create or update the streams on the server."""
    from .house import init

    init(replicas)


@admin.command()
def auth(folder: Folder) -> None:
    """Make users for a server: a secret for each role, and auth.conf with what each may do."""
    from .auth import auth

    auth(folder)
