"""The wheel, and an example plugin package beside it, in an environment that has never seen this checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*argv: str | Path, **env: str) -> str:
    """Run a command away from the checkout; its output, or a failure that shows it."""
    outside = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV", "TILEWRIGHT"))}
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, cwd="/", env=outside | env, timeout=600)
    assert done.returncode == 0, f"{argv} ended with {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    for project in (ROOT, ROOT / "tests" / "example_plugin"):
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, project)
    return folder


@pytest.fixture(scope="module")
def empty(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """bin/ of a new virtual environment that holds both wheels, their dependencies, and pytest."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", *wheels.glob("*.whl"), "pytest")
    yield folder / "bin"


def test_wheel_holds_the_three_rooms_and_nothing_else(wheels: Path) -> None:
    names = zipfile.ZipFile(next(wheels.glob("tilewright-[0-9]*.whl"))).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"tilewright"}
    assert {"protocol", "plugins", "services", "loopnest", "testing"} <= {
        name.split("/")[1] for name in names if name.startswith("tilewright/")
    }
    assert "tilewright/__init__.py" not in names


def test_default_install_is_light(empty: Path) -> None:
    installed = json.loads(run(empty / "python", "-m", "pip", "list", "--format=json"))
    assert "torch" not in {package["name"] for package in installed}
    site = next((empty.parent / "lib").glob("python*/site-packages"))
    size = sum(path.stat().st_size for path in [*site.rglob("*"), *empty.iterdir()] if path.is_file() and not path.is_symlink())
    assert size < 350e6


def test_plugins_of_both_wheels_are_listed_and_sound(empty: Path) -> None:
    listed = run(empty / "tilewright", "plugins", "--check", "--json")
    names = {(row["kind"], row["name"]): row for row in map(json.loads, listed.splitlines())}
    assert {("mappers", "greedy"), ("targets", "nano"), ("mappers", "cosa"), ("targets", "gemmini")} <= set(names)
    assert [row for row in names.values() if row.get("broken")] == []


def test_example_passes_the_conformance_suites(empty: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests" / "example_plugin" / "tests", tmp_path / "tests")
    assert " passed" in run(empty / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path / "tests")


def test_example_is_used_in_a_run(empty: Path, tmp_path: Path) -> None:
    output = run(
        empty / "tilewright",
        "map",
        "bert-base",
        "--seq",
        "128",
        "--target",
        "nano",
        "--mapper",
        "greedy",
        "--json",
        TILEWRIGHT_STATE=str(tmp_path),
    )
    summary = json.loads(output.splitlines()[-1])
    assert summary["status"] == "done"
    assert summary["request"]["mapper"] == "greedy"
