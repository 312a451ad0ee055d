"""Plugins as third parties install them: found without being imported, refused with a reason, known by their code."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tilewright.protocol import registry
from tilewright.protocol.errors import AmbiguousPlugin, BrokenPlugin, UnknownPlugin
from tilewright.protocol.plugin import INTERFACES, KINDS
from tilewright.protocol.registry import find, fingerprint, load, plugins, sources, uses

GOOD = """
class Good:
    options = {}
    def search(self, request, ctx):
        yield from ()
"""
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs distributions as pip does: files and a ``.dist-info`` with entry points on ``sys.path``."""

    def add(name: str, files: dict[str, str], entry_points: dict[str, str], group: str = "mappers", version: str = "1.0") -> Path:
        site = tmp_path / name
        for path, text in files.items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_text(text)
        info = site / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = "\n".join(f"{plugin} = {value}" for plugin, value in entry_points.items())
        (info / "entry_points.txt").write_text(f"[tilewright.{group}.v1]\n{lines}\n")
        monkeypatch.syspath_prepend(site)
        importlib.invalidate_caches()
        return site

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield add
    for name, module in tuple(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)) or name == "shared":
            del sys.modules[name]


def forget(*modules: str) -> None:
    """As a new process would start: the modules are not loaded."""
    for module in modules:
        sys.modules.pop(module, None)
    importlib.invalidate_caches()


def test_it_is_listed_without_being_imported(install: Install) -> None:
    install("acme", {"acme_mapper.py": "raise SystemExit('imported')"}, {"acme": "acme_mapper:Good"})
    ref = find("mappers", "acme")
    assert (ref.kind, ref.name, ref.distribution, ref.version, ref.value) == ("mappers", "acme", "acme", "1.0", "acme_mapper:Good")
    assert ref.id == "acme==1.0:acme"
    assert ref in plugins()
    assert ref in plugins("mappers")
    assert ref not in plugins("targets")
    assert plugins() == sorted(plugins())
    assert "acme_mapper" not in sys.modules


def test_ours_register_like_everybodys() -> None:
    assert {"cosa", "random"} <= {ref.name for ref in plugins("mappers") if ref.distribution == "tilewright"}


def test_it_is_loaded_and_new_each_time(install: Install) -> None:
    install("acme", {"acme_mapper.py": GOOD}, {"acme": "acme_mapper:Good"})
    first, second = load("mappers", "acme"), load("mappers", "acme")
    assert type(first).__name__ == "Good"
    assert first is not second
    assert type(load("mappers", "acme:acme")) is type(first)


def test_unknown_with_the_nearest_name(install: Install) -> None:
    install("acme", {"acme_mapper.py": GOOD}, {"annealing": "acme_mapper:Good"})
    with pytest.raises(UnknownPlugin, match=r"mapper 'anealing' is not installed; did you mean 'annealing'\?"):
        find("mappers", "anealing")
    with pytest.raises(UnknownPlugin, match=r"mapper 'zzz' is not installed; expected one of annealing, .*random"):
        find("mappers", "zzz")
    with pytest.raises(UnknownPlugin, match="mapper 'nobody:annealing' is not installed"):
        find("mappers", "nobody:annealing")


def test_two_of_one_name_want_to_be_told_apart(install: Install) -> None:
    install("acme", {"acme_mapper.py": GOOD}, {"same": "acme_mapper:Good"})
    install("zeta", {"zeta_mapper.py": GOOD}, {"same": "zeta_mapper:Good"})
    with pytest.raises(AmbiguousPlugin, match="mapper 'same' is offered by several distributions; say which: acme:same, zeta:same"):
        load("mappers", "same")
    assert type(load("mappers", "zeta:same")).__module__ == "zeta_mapper"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("1/0", "ZeroDivisionError: division by zero"),
        ("def Good(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("", "AttributeError: .*no attribute 'Good'"),
        ("class Good:\n    def __init__(self, needed): pass", "TypeError: .*needed"),
        ("class Good:\n    pass", "has no class attribute 'options'"),
        ("class Good:\n    options = {}", r"has no method search\(self, request: 'MapRequest', ctx: 'Context'\)"),
        ("class Good:\n    options = {}\n    search = 5", "has no method search"),
        (
            "class Good:\n    options = {}\n    def search(self, request): pass",
            r"search\(\) does not accept \['request', 'ctx'\]: too many",
        ),
        ("class Good:\n    options = {}\n    def search(self, request, ctx, more): pass", "missing a required argument: 'more'"),
    ],
)
def test_a_broken_one_says_why_and_takes_nothing_down(install: Install, code: str, reason: str) -> None:
    install("acme", {"acme_mapper.py": code}, {"acme": "acme_mapper:Good"})
    with pytest.raises(BrokenPlugin, match=f"mapper acme==1.0:acme: .*{reason}"):
        load("mappers", "acme")
    assert "acme" in {ref.name for ref in plugins("mappers")}
    load("mappers", "random")


def test_a_module_that_is_not_there(install: Install) -> None:
    install("acme", {}, {"acme": "acme_mapper:Good"})
    with pytest.raises(BrokenPlugin, match="No module named 'acme_mapper'"):
        load("mappers", "acme")
    with pytest.raises(BrokenPlugin, match="No module named 'acme_mapper'"):
        fingerprint("mappers", "acme")


@pytest.mark.parametrize("kind", KINDS)
def test_interfaces_name_methods_that_exist(kind: str) -> None:
    interface, methods = INTERFACES[kind]  # type: ignore[index]
    assert methods
    assert all(callable(getattr(interface, method)) for method in methods)


class TestFingerprint:
    def test_one_changed_line_is_seen(self, install: Install) -> None:
        site = install("acme", {"acme_mapper.py": GOOD}, {"acme": "acme_mapper:Good"})
        before = fingerprint("mappers", "acme")
        assert fingerprint("mappers", "acme") == before
        (site / "acme_mapper.py").write_text(GOOD.replace("yield from ()", "yield from []"))
        assert fingerprint("mappers", "acme") != before

    def test_any_file_of_a_package_counts(self, install: Install) -> None:
        files = {"acme/__init__.py": "", "acme/mapper.py": GOOD, "acme/parts/__init__.py": "", "acme/parts/table.csv": "1,2"}
        site = install("acme", files, {"acme": "acme.mapper:Good"})
        seen = {fingerprint("mappers", "acme")}
        (site / "acme/parts/table.csv").write_text("1,3")
        seen.add(fingerprint("mappers", "acme"))
        (site / "acme/parts/more.py").write_text("")
        seen.add(fingerprint("mappers", "acme"))
        assert len(seen) == 3
        (site / "acme/__pycache__").mkdir()
        (site / "acme/__pycache__/mapper.cpython-311.pyc").write_bytes(b"compiled")
        assert fingerprint("mappers", "acme") in seen, "compiled files don't count"

    def test_a_package_below_a_shared_namespace(self, install: Install) -> None:
        site = install("acme", {"shared/acme/__init__.py": "", "shared/acme/mapper.py": GOOD}, {"acme": "shared.acme.mapper:Good"})
        before = fingerprint("mappers", "acme")
        assert {path.name for path in sources("mappers", "acme") if site in path.parents} == {"__init__.py", "mapper.py"}
        (site / "shared/acme/mapper.py").write_text(GOOD + "\n")
        assert fingerprint("mappers", "acme") != before
        install("zeta", {"shared/zeta.py": GOOD}, {"zeta": "shared.zeta:Good"})
        assert fingerprint("mappers", "zeta")

    def test_the_version_counts(self, install: Install) -> None:
        install("acme", {"acme_mapper.py": GOOD}, {"acme": "acme_mapper:Good"})
        before = fingerprint("mappers", "acme")
        forget("acme_mapper")
        sys.path.pop(0)
        install("acme2", {"acme_mapper.py": GOOD}, {"acme": "acme_mapper:Good"}, version="2.0")
        assert fingerprint("mappers", "acme") != before

    def test_what_it_uses_counts(self, install: Install) -> None:
        asking = GOOD.replace("options = {}", 'options = {}\n    uses = ("mappers:helper", "mappers:random")')
        install("acme", {"acme_mapper.py": asking}, {"acme": "acme_mapper:Good"})
        circular = GOOD.replace("options = {}", 'options = {}\n    uses = ("mappers:acme",)')
        helper = install("helper", {"helper.py": circular}, {"helper": "helper:Good"})
        assert [ref.name for ref in uses(find("mappers", "acme"))] == ["helper", "random"]
        before = fingerprint("mappers", "acme")
        (helper / "helper.py").write_text(circular + "\n")
        assert fingerprint("mappers", "acme") != before

    @pytest.mark.parametrize(
        ("declared", "reason"),
        [
            ('("mappers:missing",)', "UnknownPlugin: mapper 'missing' is not installed"),
            ('("missing",)', "uses: 'missing', expected kind:name with a kind of frontends, targets"),
            ('("cars:x",)', "uses: 'cars:x', expected kind:name"),
            ("5", "TypeError"),
        ],
    )
    def test_what_it_uses_must_be_there(self, install: Install, declared: str, reason: str) -> None:
        install(
            "acme", {"acme_mapper.py": GOOD.replace("options = {}", f"options = {{}}\n    uses = {declared}")}, {"acme": "acme_mapper:Good"}
        )
        with pytest.raises(BrokenPlugin, match=f"mapper acme==1.0:acme: .*{reason}"):
            fingerprint("mappers", "acme")

    def test_the_cost_model_and_the_numbers_libraries_count(self, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
        install("acme", {"acme_mapper.py": GOOD}, {"acme": "acme_mapper:Good"})
        names = {path.as_posix().rpartition("tilewright/")[2] for path in sources("mappers", "acme")}
        assert {"loopnest/evaluate.py", "protocol/cost.py", "protocol/workload.py"} <= names
        before = fingerprint("mappers", "acme")
        monkeypatch.setattr(importlib.metadata, "version", lambda _name: "0")
        assert fingerprint("mappers", "acme") != before

    def test_libraries_that_are_not_installed_are_left_out(self, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
        install("acme", {"acme_mapper.py": GOOD}, {"acme": "acme_mapper:Good"})
        before = fingerprint("mappers", "acme")
        monkeypatch.setattr(registry, "NUMERICS", (*registry.NUMERICS, "no-such-distribution"))
        assert fingerprint("mappers", "acme") == before

    def test_a_module_without_files(self) -> None:
        with pytest.raises(BrokenPlugin, match="module 'no_such_module' cannot be found"):
            list(registry._sources("no_such_module"))
