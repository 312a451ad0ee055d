"""Installed plugins, with those that cannot be used and why."""

from __future__ import annotations

from collections import Counter

import typer

from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput, TilewrightError, suggest
from tilewright.protocol.plugin import KINDS, Kind

from . import console, tables


def plugins(kind: str, *, check: bool, json: bool) -> None:
    """List the plugins (of a kind). With `check` each is loaded; exit code 1 when one is broken."""
    refs = registry.plugins(_kind(kind))
    names = Counter((ref.kind, ref.name) for ref in refs)
    made = tables.table("kind", "name", "distribution", *(["state"] if check else []), "offers")
    broken = 0
    for ref in refs:
        twice = names[ref.kind, ref.name] > 1
        name = f"{ref.distribution}:{ref.name}" if twice else ref.name
        problem, offers = inspect(ref.kind, name) if check else ("", "ambiguous: say which" if twice else "")
        broken += bool(problem)
        if json:
            console.json_line(
                {"kind": ref.kind, "name": name, "distribution": ref.distribution, "version": ref.version, "broken": problem or None}
            )
        else:
            state = [f"BROKEN: {problem}" if problem else "ok"] if check else []
            made.add_row(ref.kind, name, f"{ref.distribution} {ref.version}", *state, offers)
    if not json:
        console.show(made)
    if broken:
        raise typer.Exit(1)


def _kind(word: str) -> Kind | None:
    for kind in KINDS:
        if word in (kind, kind[:-1]):
            return kind
    if word:
        raise InvalidInput(f"kind {word!r} is unknown{suggest(word, KINDS)}")
    return None


def inspect(kind: Kind, name: str) -> tuple[str, str]:
    """Load a plugin: why it cannot be used (empty when it can), and what it offers."""
    try:
        plugin = registry.load(kind, name)
        words = [f"{option}=" for option in getattr(plugin, "options", {})]
        if kind == "frontends":
            words = [*plugin.models(), *words]
        if kind == "targets":
            words = [f"{parameter.name}={parameter.default}" for parameter in plugin.design_space().parameters]
    except TilewrightError as error:
        return str(error), ""
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}", ""
    return "", " ".join(words)
