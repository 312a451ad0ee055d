"""What ``tilewright --help`` costs beside an empty typer app: CPU seconds, best of several, and their ratio.

``python tests/benchmarks/cli_help.py``; it should stay at or below 1.5.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

EMPTY = """
import typer
app = typer.Typer()
@app.command()
def one(): "Do one thing."
@app.command()
def other(): "Do the other."
app()
"""
OURS = "from tilewright.services.cli import main; main()"
ROUNDS = 15


def cpu_seconds(code: str) -> float:
    """User and system time of a Python process that shows the help of `code`."""
    before = os.times()
    subprocess.run([sys.executable, "-c", code, "--help"], stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """Measure in turns, so that a busy machine hits both alike."""
    rounds = [(cpu_seconds(EMPTY), cpu_seconds(OURS)) for _ in range(ROUNDS)]
    empty, ours = (min(each) for each in zip(*rounds, strict=True))
    print(json.dumps({"empty_cpu_s": round(empty, 3), "tilewright_cpu_s": round(ours, 3), "ratio": round(ours / empty, 2)}))


if __name__ == "__main__":
    main()
