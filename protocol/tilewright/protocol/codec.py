"""The wire: MessagePack by the ``msgpack`` package with strict limits, typed and validated by ``msgspec.convert``.

Rules of evolution: fields are only added, with defaults; unknown fields are ignored; a wrong one is named by its path.
"""

from __future__ import annotations

import functools
from typing import Any, TypeVar

import msgpack
import msgspec
import msgspec.structs

from ._lengths import check_lengths
from .errors import InvalidMessage

T = TypeVar("T")

#: Largest message on a subject, in bytes; larger values travel as blobs.
MAX_MESSAGE = 1_000_000
#: Values above this many bytes are stored as blobs.
BLOB_THRESHOLD = 256 * 1024
#: Largest value that is decoded from a blob, in bytes.
MAX_VALUE = 256 * 1024 * 1024
#: Deepest nesting that is decoded.
MAX_DEPTH = 32
#: Elements that an array may announce before anything is known of the rest.
BELIEVED = 4096


def encode(value: Any) -> bytes:
    """Encode a struct (or builtins) as MessagePack."""
    return bytes(msgpack.packb(msgspec.to_builtins(value, builtin_types=(bytes,)), use_bin_type=True))


def canonical(value: Any) -> bytes:
    """Bytes that depend on the value alone: sorted keys, defaults left out, numbers of the declared type. `decode` reads them.

    (`encode` leaves out a default only where it is the very same object, so equal values may differ in it.)
    """
    if isinstance(value, msgspec.Struct):
        value = msgspec.convert(_plain(value, defaults=True), type(value))
    return bytes(msgpack.packb(_plain(value, defaults=False), use_bin_type=True))


def _plain(value: Any, *, defaults: bool) -> Any:
    """Builtins with sorted keys; fields at their default are kept or left out by equality."""
    if isinstance(value, msgspec.Struct):
        fields = _fields(type(value))
        if type(value).__struct_config__.array_like:
            return [_plain(getattr(value, name), defaults=defaults) for name, _ in fields]
        found = {name: getattr(value, name) for name, default in fields if defaults or getattr(value, name) != default}
        return {name: _plain(found[name], defaults=defaults) for name in sorted(found)}
    if isinstance(value, dict):
        return {key: _plain(value[key], defaults=defaults) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_plain(item, defaults=defaults) for item in value]
    return value


@functools.cache
def _fields(kind: type[msgspec.Struct]) -> tuple[tuple[str, Any], ...]:
    """Name and default (`msgspec.NODEFAULT` when it is required) of each field."""
    return tuple(
        (field.name, field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory())
        for field in msgspec.structs.fields(kind)
    )


def decode(data: bytes, kind: type[T], *, limit: int = MAX_MESSAGE) -> T:
    """Decode and validate; `InvalidMessage` names the path of what is wrong. Never allocates more than a small multiple of `data`."""
    if len(data) > limit:
        raise InvalidMessage(f"message of {len(data)} bytes, expected at most {limit}")
    try:
        plain = _unpack(data)
    except (ValueError, RecursionError) as error:
        raise InvalidMessage(f"not MessagePack: {error or 'nests too deep'}") from error
    return typed(plain, kind)


def _unpack(data: bytes) -> Any:
    """Builtins. The unpacker makes room for as many elements as an array says it has, at every level, before it sees them:
    short arrays are safe to believe, longer ones are looked at first."""
    limits = {"max_str_len": len(data), "max_bin_len": len(data), "max_map_len": len(data), "max_ext_len": 0}
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=True, max_array_len=min(len(data), BELIEVED), **limits)
    except ValueError as error:
        if len(data) <= BELIEVED or "max_array_len" not in str(error):
            raise
    check_lengths(data)
    return msgpack.unpackb(data, raw=False, strict_map_key=True, max_array_len=len(data), **limits)


def typed(plain: Any, kind: type[T]) -> T:
    """Convert decoded builtins to a type; `InvalidMessage` names the path of what is wrong."""
    if _depth(plain) > MAX_DEPTH:
        raise InvalidMessage(f"message nests deeper than {MAX_DEPTH} levels")
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise InvalidMessage(f"{getattr(kind, '__name__', kind)}: {error}") from error


def _depth(plain: Any) -> int:
    """Nesting depth, at most ``MAX_DEPTH + 1``, found without recursion."""
    depth, layer = 0, [plain]
    while layer and depth <= MAX_DEPTH:
        inner: list[Any] = []
        for item in layer:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        layer = [item for item in inner if isinstance(item, dict | list)]
        depth += 1
    return depth
