"""Plugin look-up by entry point: listed without importing, loaded on first use, identified by their code."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from .errors import AmbiguousPlugin, BrokenPlugin, UnknownPlugin, suggest
from .plugin import INTERFACES, KINDS, Kind

API = "v1"
NOUNS = ("workload", "architecture", "mapping", "cost", "profile", "design", "kernel", "plugin", "context")
#: Code that every plugin builds on.
SHARED = ("tilewright.loopnest", *(f"tilewright.protocol.{noun}" for noun in NOUNS))
#: Distributions whose version changes results.
NUMERICS = ("numpy", "scipy", "highspy", "pulp", "torch")


class PluginRef(msgspec.Struct, frozen=True, order=True):
    """An installed plugin that may never have been imported."""

    kind: Kind
    name: str
    distribution: str
    version: str
    #: ``module:attribute``.
    value: str

    @property
    def id(self) -> str:
        """``distribution==version:name``."""
        return f"{self.distribution}=={self.version}:{self.name}"


def plugins(kind: Kind | None = None) -> list[PluginRef]:
    """All installed plugins (of a kind), sorted, without importing any."""
    found = set()
    for each in KINDS if kind is None else (kind,):
        for entry in importlib.metadata.entry_points(group=f"tilewright.{each}.{API}"):
            dist = entry.dist
            found.add(PluginRef(each, entry.name, dist.name if dist else "?", dist.version if dist else "?", entry.value))
    return sorted(found)


def find(kind: Kind, name: str) -> PluginRef:
    """The plugin called `name`, or ``distribution:name``.

    Raises `UnknownPlugin` (with the nearest name) and `AmbiguousPlugin`.
    """
    wanted, _, bare = name.rpartition(":")
    matches = [ref for ref in plugins(kind) if ref.name == bare and wanted in ("", ref.distribution)]
    if not matches:
        raise UnknownPlugin(f"{kind[:-1]} {name!r} is not installed{suggest(name, (ref.name for ref in plugins(kind)))}")
    if len(matches) > 1:
        choices = ", ".join(f"{ref.distribution}:{ref.name}" for ref in matches)
        raise AmbiguousPlugin(f"{kind[:-1]} {name!r} is offered by several distributions; say which: {choices}")
    return matches[0]


def load(kind: Kind, name: str) -> Any:
    """Import and instantiate a plugin; `BrokenPlugin` says why it cannot be."""
    ref = find(kind, name)
    module, _, attribute = ref.value.partition(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
        plugin = factory()
    except (Exception, SystemExit) as error:
        raise BrokenPlugin(f"{kind[:-1]} {ref.id}: {type(error).__name__}: {error}") from error
    interface, methods = INTERFACES[kind]
    for attribute in interface.__annotations__:
        if not hasattr(plugin, attribute):
            raise BrokenPlugin(f"{kind[:-1]} {ref.id}: has no class attribute {attribute!r}")
    for method in methods:
        _check_method(ref, interface, plugin, method)
    return plugin


def _check_method(ref: PluginRef, interface: type, plugin: Any, method: str) -> None:
    expected = inspect.signature(getattr(interface, method))
    implementation = getattr(plugin, method, None)
    if not callable(implementation):
        raise BrokenPlugin(f"{ref.kind[:-1]} {ref.id}: has no method {method}{expected}")
    arguments = [p for p in expected.parameters.values() if p.name != "self"]
    positional = [p.name for p in arguments if p.kind is p.POSITIONAL_OR_KEYWORD]
    try:
        inspect.signature(implementation).bind(*positional)
    except (TypeError, ValueError) as error:
        raise BrokenPlugin(f"{ref.kind[:-1]} {ref.id}: {method}() does not accept {positional}: {error}") from error


def fingerprint(kind: Kind, name: str) -> str:
    """sha256 over what decides a plugin's answers: its source and that of what it `uses`, `SHARED`, and library versions.

    The plugin's module is imported for its `uses`; a plugin that cannot be imported is `BrokenPlugin`.
    """
    digest = hashlib.sha256()
    for ref in sorted(_closure(find(kind, name))):
        digest.update(ref.id.encode() + b"\0")
    for path in sources(kind, name):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for distribution in NUMERICS:
        try:
            digest.update(f"{distribution}=={importlib.metadata.version(distribution)}".encode())
        except importlib.metadata.PackageNotFoundError:
            continue
    return digest.hexdigest()


def sources(kind: Kind, name: str) -> tuple[Path, ...]:
    """The files that `fingerprint` reads, in order: when none has changed since it was taken, it still holds."""
    modules = [*(_unit(ref.value.partition(":")[0]) for ref in sorted(_closure(find(kind, name)))), *SHARED]
    return tuple(path for module in modules for path in _sources(module))


def uses(ref: PluginRef) -> tuple[PluginRef, ...]:
    """Plugins that `ref` declares in its class attribute ``uses`` (``"kind:name"`` strings)."""
    module, _, attribute = ref.value.partition(":")
    try:
        declared = getattr(getattr(importlib.import_module(module), attribute), "uses", ())
        return tuple(_used(item) for item in declared)
    except (Exception, SystemExit) as error:
        raise BrokenPlugin(f"{ref.kind[:-1]} {ref.id}: {type(error).__name__}: {error}") from error


def _used(item: str) -> PluginRef:
    kind, colon, name = item.partition(":")
    if kind not in KINDS or not colon:
        raise ValueError(f"uses: {item!r}, expected kind:name with a kind of {', '.join(KINDS)}")
    return find(kind, name)


def _closure(ref: PluginRef) -> set[PluginRef]:
    seen: set[PluginRef] = set()
    todo = [ref]
    while todo:
        each = todo.pop()
        if each not in seen:
            seen.add(each)
            todo.extend(uses(each))
    return seen


def _unit(module: str) -> str:
    """The module or package whose files are a plugin's code: ours are one module or package each, others their whole top package.

    (The top one that has files of its own: above it there may be a namespace that other distributions share.)
    """
    if module.startswith("tilewright."):
        return module
    unit, _, rest = module.partition(".")
    while rest and (spec := importlib.util.find_spec(unit)) is not None and spec.origin is None:
        step, _, rest = rest.partition(".")
        unit = f"{unit}.{step}"
    return unit


def _sources(module: str) -> Iterator[Path]:
    """Files of a module, or of the package it names, in a stable order."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise BrokenPlugin(f"module {module!r} cannot be found")
    origin = Path(spec.origin)
    if origin.name != "__init__.py":
        yield origin
        return
    yield from sorted(path for path in origin.parent.rglob("*") if path.is_file() and path.suffix not in (".pyc", ".pyo"))
