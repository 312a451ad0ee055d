"""The rules of the house: who may import whom, what is exported, what a reader must never find."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for room in ("protocol", "plugins", "services") for path in (ROOT / room / "tilewright").rglob("*.py"))
SERVICES = ("profiler", "mapper", "codesigner", "kernelgen", "simulator", "pipeline", "cli")


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> set[str]:
    """Absolute names of everything a file imports, wherever the import stands."""
    found = set()
    package = module_of(path).split(".") if path.name == "__init__.py" else module_of(path).split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found.update(f"{stem}.{alias.name}" for alias in node.names)
    return {name for name in found if name.startswith("tilewright")}


def allowed(importer: str, imported: str) -> bool:
    own, other = importer.split("."), imported.split(".")
    if other[1] == "protocol":
        return True
    if own[1] == "protocol":
        return False
    if own[1] == "loopnest":
        return other[1] == "loopnest"
    if own[1] == "testing":
        return other[1] in ("loopnest", "testing")
    if own[1] == "plugins":
        # A plugin is one module or one package below its kind.
        return other[1] == "loopnest" or own[:4] == other[:4]
    same = other[1] == "services" and other[2] in (own[2], "runtime")
    # The dispatcher starts a service by name; that is the one place that knows them all.
    return same or (importer == "tilewright.services.runtime.serve" and other[1] == "services")


def test_arrows_point_one_way() -> None:
    wrong = [f"{module_of(path)} imports {name}" for path in SOURCES for name in imports_of(path) if not allowed(module_of(path), name)]
    assert wrong == []


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("tilewright.protocol.codec", "tilewright.loopnest"),
        ("tilewright.loopnest.traffic", "tilewright.plugins.mappers.cosa"),
        ("tilewright.plugins.mappers.cosa", "tilewright.plugins.mappers.random"),
        ("tilewright.plugins.mappers.cosa", "tilewright.services.runtime.worker"),
        ("tilewright.services.mapper", "tilewright.services.simulator"),
        ("tilewright.services.mapper", "tilewright.loopnest"),
    ],
)
def test_a_wrong_arrow_is_seen(importer: str, imported: str) -> None:
    assert not allowed(importer, imported)


def test_namespace_has_no_init() -> None:
    assert [path for path in ROOT.glob("*/tilewright/__init__.py")] == []


def test_packages_are_typed() -> None:
    packages = {path.parent for path in ROOT.glob("*/tilewright/*/*.py")}
    assert sorted(str(package) for package in packages if not (package / "py.typed").exists()) == []


def reexports(path: Path) -> set[str]:
    """Public names that a package takes from its own modules; empty for a package with code of its own."""
    body = ast.parse(path.read_text()).body
    if any(isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) for node in body):
        return set()
    taken = {alias.asname or alias.name for node in body if isinstance(node, ast.ImportFrom) and node.level for alias in node.names}
    return {name for name in taken if not name.startswith("_")}


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name == "__init__.py" and reexports(path)], ids=module_of)
def test_exported_names(path: Path) -> None:
    """A package that re-exports says in ``__all__`` just what, and has it."""
    module = importlib.import_module(module_of(path))
    assert set(module.__all__) == reexports(path)


def test_nothing_of_this_machine_or_its_registries() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    forbidden = re.compile(
        "|".join(["/" + "root/", "/" + "work/", "/" + "home/", "files." + "pythonhosted", "pypi" + r"\.org", "deb" + r"ian\.org"])
    )
    hits = []
    for name in files:
        path = ROOT / name
        if path.is_file() and path.suffix not in (".gz", ".png"):
            hits += [f"{name}: {match.group()}" for match in forbidden.finditer(path.read_text(errors="replace"))]
    assert hits == []
