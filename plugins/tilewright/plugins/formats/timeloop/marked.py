"""YAML with places: every mapping and list knows where it stood, so that errors can say so."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tilewright.protocol.errors import InvalidInput

Place = tuple[str, int, int]

#: Counts are below this.
LARGEST = 2**63


class MarkedDict(dict[str, Any]):
    """A mapping with the place of each key; keys with ``-`` are read as if spelt with ``_``."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self.place: Place = (file, 1, 1)
        self.places: dict[str, Place] = {}
        #: Tag such as ``!Component``, empty for plain mappings.
        self.tag = ""

    def error(self, message: str, key: str = "") -> InvalidInput:
        """An error about this mapping, or about one of its keys."""
        file, line, column = self.places.get(key, self.place)
        return InvalidInput(f"{file}, line {line}, column {column}: {message}")

    def text(self, key: str, default: str | None = None) -> str:
        """A string value."""
        value = self.get(key, default)
        if value is None or isinstance(value, dict | list):
            raise self.error(f"{key}: {value!r}, expected a word" if key in self else f"has no {key}", key)
        return str(value)

    def number(self, key: str, default: float | None = None) -> float:
        """A numeric value."""
        value = self.get(key, default)
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                raise self.error(f"{key}: {value!r}, expected a number", key) from None
        if value is None or isinstance(value, bool | dict | list):
            raise self.error(f"{key}: {value!r}, expected a number" if key in self else f"has no {key}", key)
        if not math.isfinite(value):
            raise self.error(f"{key}: {value}, expected a finite number", key)
        return float(value)

    def rate(self, key: str) -> float:
        """A number above 0."""
        value = self.number(key)
        if value <= 0:
            raise self.error(f"{key}: {value:g}, expected a number above 0", key)
        return value

    def price(self, key: str) -> float:
        """A number of at least 0."""
        value = self.number(key)
        if value < 0:
            raise self.error(f"{key}: {value:g}, expected a number of at least 0", key)
        return value

    def count(self, key: str, default: int | None = None) -> int:
        """A whole number of at least 1."""
        value = self.number(key, default)
        if value < 1 or value != int(value):
            raise self.error(f"{key}: {value:g}, expected a whole number of at least 1", key)
        if value >= LARGEST:
            raise self.error(f"{key}: {value:g}, expected what an int64 holds", key)
        return int(value)

    def maps(self, key: str) -> Iterator[MarkedDict]:
        """A list of mappings; empty when there is none."""
        value = self.get(key, [])
        if not isinstance(value, list) or any(not isinstance(item, MarkedDict) for item in value):
            raise self.error(f"{key}: expected a list of mappings", key)
        yield from value

    def map(self, key: str) -> MarkedDict:
        """A mapping; an empty one when there is none."""
        value = self.get(key)
        if value is None:
            empty = MarkedDict(self.place[0])
            empty.place = self.place
            return empty
        if not isinstance(value, MarkedDict):
            raise self.error(f"{key}: expected a mapping", key)
        return value

    def names(self, key: str) -> tuple[str, ...]:
        """A list of words, or one string of them separated by blanks or commas."""
        value = self.get(key, [])
        if isinstance(value, str):
            value = value.replace(",", " ").split()
        if not isinstance(value, list) or any(isinstance(item, dict | list) for item in value):
            raise self.error(f"{key}: expected a list of words", key)
        return tuple(str(item) for item in value)


def load(path: str) -> MarkedDict:
    """Parse one YAML file whose top is a mapping; `InvalidInput` names file, line and column."""
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: cannot be read: {error}") from error
    try:
        # The loader is a SafeLoader: tags become names, nothing is executed.
        value = yaml.load(text, Loader=_loader(path))  # noqa: S506
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InvalidInput(f"{path}{where}: not YAML: {error.problem or error.context}") from error
    if not isinstance(value, MarkedDict):
        raise InvalidInput(f"{path}, line 1, column 1: expected a mapping with architecture, problem or mapping")
    return value


def _loader(path: str) -> type[yaml.SafeLoader]:
    class Loader(yaml.SafeLoader):
        """A SafeLoader that keeps places and tags."""

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode, tag: str = "") -> MarkedDict:
        loader.flatten_mapping(node)
        result = MarkedDict(path)
        result.tag = tag
        result.place = (path, node.start_mark.line + 1, node.start_mark.column + 1)
        for key_node, value_node in node.value:
            key = str(loader.construct_object(key_node, deep=True)).replace("-", "_")
            result[key] = loader.construct_object(value_node, deep=True)
            result.places[key] = (path, key_node.start_mark.line + 1, key_node.start_mark.column + 1)
        return result

    def tagged(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            return mapping(loader, node, suffix)
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return loader.construct_scalar(node)  # type: ignore[arg-type]

    Loader.add_constructor("tag:yaml.org,2002:map", mapping)
    Loader.add_multi_constructor("!", tagged)
    return Loader
