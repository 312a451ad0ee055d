"""The commands of whoever runs a house for others: a server, its queues, dead letters and store. Bodies import what they need."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

admin = typer.Typer(no_args_is_help=True, help="Set up a server of your own.")
dlq = typer.Typer(no_args_is_help=True, help="Dead letters: messages nobody could use, tasks that were given up.")
cache = typer.Typer(no_args_is_help=True, help="The store: how much it holds, and making room.")

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the roles' secrets are made and kept.", show_default=False)]

Json = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, an unambiguous part of it, or `last`.", show_default=False)]
Number = Annotated[int, typer.Argument(metavar="NUMBER", help="As `dlq list` says.", show_default=False)]
Numbers = Annotated[list[int], typer.Argument(metavar="NUMBER...", help="As `dlq list` says.", show_default=False)]
Age = Annotated[str, typer.Option("--older-than", metavar="TIME", help="How old, e.g. 12h or 7d.")]
Stages = Annotated[list[str], typer.Option("--stage", metavar="STAGE", help="Only answers of this stage; repeatable.")]
Runs = Annotated[bool, typer.Option("--runs", help="Also forget runs that ended before, with their events.")]


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands to the command line, listed in a panel of its help."""
    for name, group in (("admin", admin), ("dlq", dlq), ("cache", cache)):
        app.add_typer(group, name=name, rich_help_panel=panel)
    app.command(rich_help_panel=panel)(queue)
    app.command(rich_help_panel=panel)(logs)


def queue(json: Json = False) -> None:
    """List the work queues: what waits, and what is in work."""
    from .queues import queue

    queue(json=json)


def logs(
    run: Run, follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False, json: Json = False
) -> None:
    """Print what the tasks of a run have said."""
    from .logs import logs

    logs(run, follow=follow, json=json)


@dlq.command("list")
def dlq_list(json: Json = False) -> None:
    """List the dead letters."""
    from .letters import show_list

    show_list(json=json)


@dlq.command("show")
def dlq_show(number: Number, json: Json = False) -> None:
    """Show one in full."""
    from .letters import show

    show(number, json=json)


@dlq.command("requeue")
def dlq_requeue(numbers: Numbers) -> None:
    """Put messages back; a task of a run that ended is asked for again as a new run."""
    from .letters import requeue

    requeue(numbers)


@dlq.command("drop")
def dlq_drop(numbers: Numbers) -> None:
    """Forget dead letters."""
    from .letters import drop

    drop(numbers)


@cache.command("ls")
def cache_ls(json: Json = False) -> None:
    """List what the store holds."""
    from .storage import ls

    ls(json=json)


@cache.command("gc")
def cache_gc(older_than: Age, stage: Stages = [], runs: Runs = False, json: Json = False) -> None:  # noqa: B006
    """Remove old answers and the blobs that only they name."""
    from .storage import gc

    gc(older_than, stage, runs=runs, json=json)


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
