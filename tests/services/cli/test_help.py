"""``--help`` is light, complete, and the same everywhere."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from tilewright.protocol.subjects import STAGES
from tilewright.services.cli import options
from tilewright.services.cli.app import app

VERBS = ["run", *STAGES]
COMMANDS = [
    *VERBS, "runs", "show", "explain", "attach", "cancel", "plugins", "validate", "doctor", "services", "up", "down", "serve",
    "queue", "logs", "admin", "dlq", "cache",
]  # fmt: skip

IMPORTED = """
import sys
sys.argv = ["tilewright", *sys.argv[1:]]
from tilewright.services.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("IMPORTED", *sorted(sys.modules))
"""
HEAVY = ("numpy", "scipy", "pulp", "highspy", "nats", "torch", "msgpack", "asyncio", "tilewright.plugins", "tilewright.loopnest")


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["admin", "--help"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTED, *words], capture_output=True, text=True, check=True)
    modules = done.stdout.rpartition("IMPORTED")[2].split()
    assert "tilewright.services.cli.app" in modules
    assert [module for module in modules if module in HEAVY or module.startswith(tuple(f"{name}." for name in HEAVY))] == []


def test_every_command_has_help() -> None:
    text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    for command in COMMANDS:
        assert f" {command} " in text
        each = CliRunner().invoke(app, [command, "--help"])
        assert each.exit_code == 0 and "Usage:" in each.output
    assert "Exit codes: 0 ok, 1 failed, 2 bad input, 3 partial, 4 cancelled, 5 no connection." in text


def test_stages_are_those_of_the_protocol() -> None:
    assert options.ALL == STAGES


def test_every_field_is_declared_and_used_by_run() -> None:
    fields = [field.name for field in dataclasses.fields(options.RunOptions)]
    assert list(options.DECLARED) == fields
    assert [each.name for each in options.parameters(STAGES)] == fields


@pytest.mark.parametrize(
    ("verb", "has", "lacks"),
    [
        ("profile", "--seq", "--mapper"),
        ("map", "--mapper", "--codesigner"),
        ("codesign", "--limit", "--emitter"),
        ("kernel", "--emitter", "--simulator"),
        ("simulate", "--simulator", "--emitter"),
        ("run", "--stages", "--digest"),
    ],
)
def test_a_verb_takes_the_options_of_its_stages(verb: str, has: str, lacks: str) -> None:
    text = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "200"}).output
    assert has in text and lacks not in text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["rum"], "Did you mean"),
        (["run", "toy-net", "--target", "toy", "--objektive", "edp"], "--objective"),
        (["run", "toy-net", "--target", "toy", "--objective", "speed"], "'edp'"),
        (["run", "toy-net", "--target", "toy", "--evaluations", "0"], "--evaluations"),
        (["run", "toy-net"], "--target"),
    ],
)
def test_what_typer_refuses_is_bad_input(words: list[str], text: str) -> None:
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert text in result.output
    assert "Traceback" not in result.output
