"""The commands, as typer sees them. Bodies import what they need, so that ``--help`` stays light."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from tilewright.protocol.errors import TilewrightError

from . import codesigning, kerneling, mapping, operations, options, profiling

if TYPE_CHECKING:
    from tilewright.protocol.subjects import Stage

TRACE = "One figure down to its coefficients: energy, cycles, DRAM.Inputs.reads, ..."
RUNS, HOUSE, TOOLS = "Runs", "The house", "Tools"


class Commands(TyperGroup):
    """Turns our errors into one paragraph on standard error and their exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except TilewrightError as error:
            print(f"tilewright: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from None
        except BrokenPipeError:  # the reader of our output has left, as in ``tilewright runs | head -1``
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    help="Given a model and a target: the best way to run it, what hardware would be better, and how sure that is.",
    epilog="Exit codes: 0 ok, 1 failed, 2 bad input, 3 partial, 4 cancelled, 5 no connection.",
)

Json = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, an unambiguous part of it, or `last`.", show_default=False)]


def _start(goals: tuple[Stage, ...]) -> Any:
    def start(said: options.RunOptions) -> None:
        from .running import start

        start(said, goals)

    return start


def _verb(name: str, goals: tuple[Stage, ...], uses: tuple[str, ...], help: str) -> None:
    app.command(name, rich_help_panel=RUNS)(options.command(uses, _start(goals), help))


_verb("run", options.ALL, options.ALL, "Run a model through profile, map, codesign, kernel and simulate.")
app.command("profile", rich_help_panel=RUNS)(profiling.command("Count a model's operators and bytes, and place them on rooflines."))
_MAP = "Find the best mapping of every operator, race mappers, or look at the mapspace."
app.command("map", rich_help_panel=RUNS)(mapping.command(_MAP))
app.command("codesign", rich_help_panel=RUNS)(codesigning.command("Find better hardware, with the mappings on it."))
_KERNEL = "Generate and verify the kernels of a model's operators, or of one product."
app.command("kernel", rich_help_panel=RUNS)(kerneling.command(_KERNEL))


def _export(panel: str | None = None) -> Any:
    help = "Write operator, architecture and mapping there, for Timeloop or another tool."
    return typer.Option("--export", metavar="FOLDER", help=help, rich_help_panel=panel)


def _export_format(panel: str | None = None) -> Any:
    return typer.Option("--export-format", metavar="NAME", help="Format of the files that --export writes.", rich_help_panel=panel)


def _simulate_command() -> Any:
    """``simulate`` takes a model like every verb, or files that describe one mapping."""

    def file(name: str, hint: Any, default: Any, help: str) -> Any:
        declared = typer.Option(f"--{name}", metavar="FILE", help=help, rich_help_panel="Instead of a model")
        return options.parameter(name, hint, declared, default)

    files = [
        file("mapping", str, "", "Mapping to cost (in the format timeloop, unless --format says another)."),
        file("arch", str, "", "Architecture that it is for."),
        file("problem", str, "", "Operator that it maps."),
        file("tables", list[str], [], "Energy and area tables of the architecture; repeatable."),
        options.parameter(
            "trace",
            str,
            typer.Option(
                "--trace", metavar="FIGURE", help=f"{TRACE}; with a model: FILE for its timeline.", rich_help_panel="Instead of a model"
            ),
            "",
        ),
        options.parameter("export", Path | None, _export("Instead of a model"), None),
        options.parameter("export_format", str, _export_format("Instead of a model"), "timeloop"),
    ]

    def run(
        *,
        mapping: str,
        arch: str,
        problem: str,
        tables: list[str],
        trace: str,
        export: Path | None,
        export_format: str,
        **values: Any,
    ) -> None:
        from .costing import Files, simulate

        simulate(options.RunOptions(**values), Files(mapping, arch, problem, tables, trace, export, export_format))

    optional = {"model", "target"}
    said = [each.replace(default="") if each.name in optional else each for each in options.parameters(("map", "simulate"))]
    options.describe(run, [*said, *files], "Cost the mappings of a model, or one mapping in files, with a simulator.")
    return run


app.command("simulate", rich_help_panel=RUNS)(_simulate_command())


@app.command(rich_help_panel=RUNS)
def runs(json: Json = False, all: Annotated[bool, typer.Option("--all", help="Not only the last twenty.")] = False) -> None:
    """List what ran."""
    from .look import runs

    runs(json=json, everything=all)


@app.command(rich_help_panel=RUNS)
def show(
    run: Run,
    json: Json = False,
    digest: Annotated[bool, typer.Option("--digest", help="Only the sha256 over all results.")] = False,
    kernels: Annotated[Path | None, typer.Option("--kernels", metavar="FOLDER", help="Write the generated C files there.")] = None,
) -> None:
    """Show a run's results again."""
    from .look import show

    show(run, json=json, digest=digest, kernels=kernels)


@app.command(rich_help_panel=RUNS)
def explain(
    run: Run,
    layer: Annotated[str, typer.Option("--layer", metavar="NAME", help="One layer in full.")] = "",
    trace: Annotated[str, typer.Option("--trace", metavar="FIGURE", help=TRACE)] = "",
    export: Annotated[Path | None, _export()] = None,
    export_format: Annotated[str, _export_format()] = "timeloop",
    json: Json = False,
) -> None:
    """Say what binds, layer by layer, draw the mapping of one, trace one of its figures, or write it for another tool."""
    from .explain import explain

    explain(run, layer, trace, export, export_format, json=json)


@app.command(rich_help_panel=RUNS)
def attach(run: Run, json: Json = False) -> None:
    """Watch a run that is under way."""
    from .running import attach

    attach(run, json=json)


@app.command(rich_help_panel=RUNS)
def cancel(run: Run, json: Json = False) -> None:
    """Stop a run and keep what it has found."""
    from .look import cancel

    cancel(run, json=json)


@app.command(rich_help_panel=TOOLS)
def plugins(
    kind: Annotated[str, typer.Argument(metavar="[KIND]", help="frontends, targets, mappers, ...", show_default=False)] = "",
    check: Annotated[bool, typer.Option("--check", help="Load each one, and say why it cannot be.")] = False,
    json: Json = False,
) -> None:
    """List the installed plugins."""
    from .catalogue import plugins

    plugins(kind, check=check, json=json)


@app.command(rich_help_panel=TOOLS)
def validate(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="See `tilewright plugins validations`.", show_default=False)],
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Reference data (.gz too) instead of the suite's own.")] = None,
    option: Annotated[list[str], typer.Option("--option", "-o", metavar="NAME=VALUE", help="Option of the suite; repeatable.")] = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Measure the models against reference data."""
    from .validation import validate

    validate(suite, file, option, json=json)


@app.command(rich_help_panel=TOOLS)
def doctor(
    json: Json = False,
    monitor: Annotated[
        str, typer.Option("--monitor", metavar="URL", help="The server's monitoring page, to see how it writes to disk.")
    ] = "",
) -> None:
    """Check what is installed and the server that is used, and say what works without the rest."""
    from .doctor import doctor

    doctor(json=json, monitor=monitor)


@app.command(rich_help_panel=HOUSE)
def services(json: Json = False) -> None:
    """List the services that answer."""
    from .house import services

    services(json=json)


@app.command(rich_help_panel=HOUSE)
def up(json: Json = False) -> None:
    """Start the embedded services and keep them running."""
    from .house import up

    up(json=json)


@app.command(rich_help_panel=HOUSE)
def down(json: Json = False) -> None:
    """Stop the embedded services."""
    from .house import down

    down(json=json)


@app.command(rich_help_panel=HOUSE)
def serve(
    service: Annotated[
        str, typer.Argument(metavar="SERVICE", envvar="SERVICE", help="pipeline, profiler, mapper, ...", show_default=False)
    ],
) -> None:
    """Be one service, in the foreground."""
    from .house import serve

    serve(service)


operations.register(app, HOUSE)
