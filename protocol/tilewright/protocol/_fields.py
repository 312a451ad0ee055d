"""From YAML values to structs: what a struct's fields are comes from its type hints, how people may write it from `Reader.special`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from ._nodes import Value
from .errors import InvalidInput

T = TypeVar("T")


class Reader:
    """Reads structs; `special` maps a struct type to a function that reads what people may write for it."""

    def __init__(self, special: dict[type, Callable[[Reader, Value], Any]]) -> None:
        self.special = special

    def read(self, value: Value, kind: type[T]) -> T:
        """A value as a struct of a type."""
        special = self.special.get(kind)
        result: T = special(self, value) if special else self.build(value, kind, self.fields(value, kind))
        return result

    def fields(self, value: Value, kind: type, besides: Iterable[str] = (), entries: dict[str, Value] | None = None) -> dict[str, Any]:
        """The fields that a mapping gives, converted; keys in `besides` are the caller's. Unknown keys are errors."""
        info = inspect.type_info(kind)
        assert isinstance(info, inspect.StructType)
        known = {field.name: field for field in info.fields}
        given = value.mapping(f"a mapping with {', '.join(known)}") if entries is None else entries
        for key in given:
            if key not in known and key not in besides:
                raise value.key_error(key, [*known, *besides])
        return {key: self._convert(item, known[key].type) for key, item in given.items() if key in known and key not in besides}

    def build(self, value: Value, kind: type[T], fields: dict[str, Any]) -> T:
        """The struct of these fields; what it says about itself is told with the place."""
        for field in msgspec.structs.fields(kind):  # type: ignore[arg-type]
            if field.required and field.name not in fields:
                raise value.error(f"has no {field.name!r}")
        try:
            return kind(**fields)
        except InvalidInput as error:
            raise value.error(str(error)) from error

    def _convert(self, value: Value, info: inspect.Type) -> Any:
        match info:
            case inspect.IntType():
                return value.integer(info.ge)
            case inspect.FloatType():
                return value.number(info.gt if info.gt is not None else info.ge, above=info.gt is not None)
            case inspect.BoolType():
                return value.flag()
            case inspect.StrType():
                return value.text()
            case inspect.StructType():
                return self.read(value, info.cls)
            case inspect.DictType():
                return {key: self._convert(item, info.value_type) for key, item in value.mapping().items()}
            case inspect.VarTupleType():
                return tuple(self._convert(item, info.item_type) for item in value.items())
            case inspect.UnionType():
                return self._one_of(value, info)
        raise AssertionError(f"no file holds a {info}")

    def _one_of(self, value: Value, info: inspect.UnionType) -> Any:
        """Nothing, or a scalar, or a struct: told apart by how the value is written."""
        kinds = {type(each): each for each in info.types}
        if value.is_null and inspect.NoneType in kinds:
            return None
        struct = kinds.get(inspect.StructType)
        numeric = kinds.get(inspect.FloatType)
        if struct and (not numeric or value.is_mapping or value.is_word):
            return self._convert(value, struct)
        return self._convert(value, next(each for each in info.types if not isinstance(each, inspect.NoneType | inspect.StructType)))
