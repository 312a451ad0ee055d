"""YAML values that know where they stand, read with strict limits and without YAML's surprises.

Plain scalars are read as what the place asks for: ``1e-3`` is a number, ``no`` a name, ``12:30`` an error. Only mappings
with text keys, lists and scalars exist; tags, duplicate keys and huge or deep documents are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import yaml

from .errors import InvalidInput, suggest

#: Largest file, in bytes; deepest nesting; most values, every use of an alias counted.
MAX_BYTES, MAX_DEPTH, MAX_VALUES = 16 << 20, 24, 1_000_000
#: Longest piece of a wrong value that an error quotes.
MAX_QUOTE = 60
_INTEGER = re.compile(r"[-+]?[0-9]+(_[0-9]+)*")
_NUMBER = re.compile(r"[-+]?([0-9]+(_[0-9]+)*)?(\.[0-9]*)?([eE][-+]?[0-9]+)?")
_SURROGATE = re.compile("[\ud800-\udfff]")
_PLAIN = ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "value", "merge")
#: What plain YAML and JSON consist of; all scalars are read as text.
_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in _PLAIN)
_KINDS = {yaml.MappingNode: "a mapping", yaml.SequenceNode: "a list", yaml.ScalarNode: "text"}


class Source:
    """A file that is being read."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.lines = text.splitlines()
        #: Values that may still be looked at.
        self.left = MAX_VALUES

    def at(self, line: int, column: int) -> str:
        """``file:line:column``, counted from 1."""
        return f"{self.name}:{line + 1}:{column + 1}"


class Value:
    """A value of a file: a mapping, a list or a scalar."""

    def __init__(self, source: Source, node: yaml.Node, path: str) -> None:
        self.source, self.node, self.path = source, node, path
        source.left -= 1
        if source.left < 0:
            raise self.error(f"more than {MAX_VALUES} values, aliases included")
        #: How a scalar is written: None plain, quotes, ``|`` or ``>``.
        self.style: str | None = node.style if isinstance(node, yaml.ScalarNode) else None

    @property
    def where(self) -> str:
        """``file:line:column`` of its first character."""
        return self.source.at(self.node.start_mark.line, self.node.start_mark.column)

    def error(self, what: str) -> InvalidInput:
        """An error about this value: ``file:line:column: path: what``."""
        return InvalidInput(f"{self.where}: {f'{self.path}: ' if self.path else ''}{what}")

    def wrong(self, expected: str) -> InvalidInput:
        """The error that this value is not what was expected."""
        found = "nothing" if self.is_null else repr(_cut(self.node.value)) if self.is_scalar else _KINDS[type(self.node)]
        return self.error(f"{found}, expected {expected}")

    @property
    def is_scalar(self) -> bool:
        """True for a single value."""
        return isinstance(self.node, yaml.ScalarNode)

    @property
    def is_list(self) -> bool:
        """True for a list."""
        return isinstance(self.node, yaml.SequenceNode)

    @property
    def is_mapping(self) -> bool:
        """True for a mapping."""
        return isinstance(self.node, yaml.MappingNode)

    @property
    def is_null(self) -> bool:
        """True for nothing: empty, ``null`` or ``~``."""
        return self.is_scalar and self.style is None and self.node.value in ("", "~", "null")

    @property
    def is_word(self) -> bool:
        """True for a scalar that is neither nothing nor a number."""
        return self.is_scalar and not self.is_null and not (self._plain() and _NUMBER.fullmatch(self.node.value))

    def mapping(self, what: str = "a mapping") -> dict[str, Value]:
        """The entries of a mapping by key."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.wrong(what)
        entries: dict[str, Value] = {}
        for key, node in self.node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise Value(self.source, key, self.path).wrong("a name as key")
            if key.value in entries:
                raise Value(self.source, key, self.path).error(f"key {_cut(key.value)!r} is given twice")
            entries[key.value] = Value(self.source, node, f"{self.path}.{key.value}" if self.path else key.value)
        return entries

    def key_error(self, key: str, known: Iterable[str], what: str = "key") -> InvalidInput:
        """The error that a mapping must not have this key."""
        assert isinstance(self.node, yaml.MappingNode)
        node = next(each for each, _ in self.node.value if each.value == key)
        return Value(self.source, node, self.path).error(f"{what} {_cut(key)!r} is unknown{suggest(key, known)}")

    def items(self, what: str = "a list") -> list[Value]:
        """The items of a list."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.wrong(what)
        return [Value(self.source, node, f"{self.path}[{i}]") for i, node in enumerate(self.node.value)]

    def text(self, what: str = "text") -> str:
        """A scalar as text."""
        if not self.is_scalar or self.is_null:
            raise self.wrong(what)
        return str(self.node.value)

    def integer(self, low: int | None = None) -> int:
        """A 64-bit integer, at least `low`."""
        bounds = "" if low is None else f" >= {low}"
        if not self._plain() or not _INTEGER.fullmatch(self.node.value) or len(self.node.value) > MAX_QUOTE:
            raise self.wrong(f"an integer{bounds}")
        number = int(self.node.value)
        if number < (-(2**63) if low is None else low):
            raise self.wrong(f"an integer{bounds}")
        if number >= 2**63:
            raise self.wrong("an integer below 2^63")
        return number

    def number(self, low: float | None = None, *, above: bool = False) -> float:
        """A finite number, at least (or `above`) a limit."""
        bounds = "" if low is None else f" {'>' if above else '>='} {low:g}"
        text = self.node.value if self._plain() else ""
        if not text or not _NUMBER.fullmatch(text) or not any(c.isdigit() for c in text):
            raise self.wrong(f"a number{bounds}")
        number = float(text.replace("_", ""))
        if number == float("inf") or (low is not None and (number < low or (above and number == low))):
            raise self.wrong(f"a number{bounds}")
        return number

    def flag(self) -> bool:
        """``true`` or ``false``."""
        if not self._plain() or self.node.value not in ("true", "false"):
            raise self.wrong("true or false")
        return bool(self.node.value == "true")

    def line(self, index: int, token: str) -> str:
        """Where `token` stands in line `index` of this (block) text."""
        number = self.node.start_mark.line + 1 + index
        if self.style != "|" or number >= len(self.source.lines):
            return self.where
        return self.source.at(number, max(0, self.source.lines[number].find(token)))

    def _plain(self) -> bool:
        return self.is_scalar and self.style is None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, stopped before its recursion is."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {MAX_DEPTH} levels", problem_mark=parent.start_mark if parent else None)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if isinstance(node, yaml.ScalarNode) and _SURROGATE.search(node.value):
            node.value = _joined(node)
        if node is not None and node.tag not in _TAGS:
            raise yaml.MarkedYAMLError(
                problem=f"no tags are allowed: {node.tag.replace('tag:yaml.org,2002:', '!!')}", problem_mark=node.start_mark
            )
        return node


def load(path: str | Path) -> Value:
    """The document in a file; `InvalidInput` says where it is not one."""
    try:
        with Path(path).open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise InvalidInput(f"{path}: more than {MAX_BYTES >> 20} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n")
        column = error.start - (before.rfind(b"\n") + 1)
        raise InvalidInput(f"{path}:{line + 1}:{column + 1}: byte 0x{data[error.start]:02x} is not UTF-8, expected text") from error
    return loads(text, str(path))


def loads(text: str, name: str) -> Value:
    """The document in a text; `name` stands for it in errors."""
    source = Source(name, text)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n"), error.position - (before.rfind("\n") + 1)
        raise InvalidInput(
            f"{source.at(line, column)}: character U+{ord(text[error.position]):04X} is not allowed, expected text"
        ) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = source.at(mark.line, mark.column) if mark else name
        raise InvalidInput(f"{where}: {_cut(str(error.problem or error.context))}{', expected YAML or JSON' if mark else ''}") from error
    if node is None:
        raise InvalidInput(f"{name}:1:1: empty, expected YAML or JSON")
    return Value(source, node, "")


def _joined(node: yaml.ScalarNode) -> str:
    """The text with surrogate pairs, as JSON escapes them, made one character each."""
    try:
        return str(node.value.encode("utf-16", "surrogatepass").decode("utf-16"))
    except UnicodeDecodeError as error:
        raise yaml.MarkedYAMLError(problem="half of a surrogate pair", problem_mark=node.start_mark) from error


def _cut(text: str) -> str:
    return text if len(text) <= MAX_QUOTE else f"{text[:MAX_QUOTE]}..."
