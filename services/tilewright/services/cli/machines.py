"""Described processors for rooflines: those that come with us, and files of the same form."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import yaml

from tilewright.protocol.errors import InvalidInput, suggest
from tilewright.protocol.profile import Machine

OURS = "machines.yaml"
#: Largest file that is read, in bytes.
MAX_BYTES = 1 << 20


def find(word: str) -> Machine:
    """A machine by name, or ``FILE`` (which describes one) or ``FILE:NAME``; `InvalidInput` says what is wrong."""
    file, _, name = word.rpartition(":")
    path = Path(file or word)
    if not file and path.suffix not in (".yaml", ".yml"):
        return _pick(_read(resources.files(__package__).joinpath(OURS).read_text("utf-8"), OURS), word, OURS)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InvalidInput(f"--machine {path}: more than {MAX_BYTES} bytes")
        machines = _read(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"--machine {path}: cannot be read: {error}") from error
    if file:
        return _pick(machines, name, file)
    if len(machines) != 1:
        raise InvalidInput(f"--machine {path}: describes {', '.join(machines) or 'none'}, expected one, or {path}:NAME")
    return next(iter(machines.values()))


def _pick(machines: dict[str, Machine], name: str, file: str) -> Machine:
    if name not in machines:
        raise InvalidInput(f"--machine {name!r}: {file} has no such machine{suggest(name, machines)}")
    return machines[name]


def _read(text: str, file: str) -> dict[str, Machine]:
    try:
        entries: Any = yaml.safe_load(text)
        if not isinstance(entries, dict):
            raise InvalidInput("expected machines by name")
        return {name: msgspec.convert({"name": name, **fields}, Machine, strict=False) for name, fields in entries.items()}
    except (yaml.YAMLError, msgspec.ValidationError, InvalidInput, TypeError) as error:
        form = "{NAME: {peaks: [{bits, ops_per_second}], memories: [{name, bytes_per_second, capacity_bytes}], vector_ops_per_second}}"
        raise InvalidInput(f"--machine {file}: {error}; expected the form {form}") from error
