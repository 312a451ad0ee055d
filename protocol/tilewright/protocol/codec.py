"""The wire: MessagePack by the ``msgpack`` package with strict limits, typed and validated by ``msgspec.convert``.

Rules of evolution: fields are only added, with defaults; unknown fields are ignored; a wrong one is named by its path.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgpack
import msgspec

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


def encode(value: Any) -> bytes:
    """Encode a struct (or builtins) as MessagePack."""
    return bytes(msgpack.packb(msgspec.to_builtins(value, builtin_types=(bytes,)), use_bin_type=True))


def canonical(value: Any) -> bytes:
    """Bytes that depend on the value alone: sorted keys, defaults left out, numbers of the declared type."""
    plain = msgspec.to_builtins(value, builtin_types=(bytes,))
    if isinstance(value, msgspec.Struct):
        plain = msgspec.to_builtins(msgspec.convert(plain, type(value)), builtin_types=(bytes,), order="sorted")
    else:
        plain = msgspec.to_builtins(plain, builtin_types=(bytes,), order="sorted")
    return bytes(msgpack.packb(plain, use_bin_type=True))


def decode(data: bytes, kind: type[T], *, limit: int = MAX_MESSAGE) -> T:
    """Decode and validate; `InvalidMessage` names the path of what is wrong. Never allocates more than a small multiple of `data`."""
    if len(data) > limit:
        raise InvalidMessage(f"message of {len(data)} bytes, expected at most {limit}")
    try:
        # Lengths inside of the data can promise no more than there are bytes.
        plain = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_str_len=len(data),
            max_bin_len=len(data),
            max_array_len=len(data),
            max_map_len=len(data),
            max_ext_len=0,
        )
    except Exception as error:
        raise InvalidMessage(f"not MessagePack: {type(error).__name__}: {error}") from error
    return typed(plain, kind)


def typed(plain: Any, kind: type[T]) -> T:
    """Convert decoded builtins to a type; `InvalidMessage` names the path of what is wrong."""
    if _depth(plain) > MAX_DEPTH:
        raise InvalidMessage(f"message nests deeper than {MAX_DEPTH} levels")
    try:
        return msgspec.convert(plain, kind)
    except InvalidMessage:
        raise
    except (msgspec.ValidationError, ValueError) as error:
        raise InvalidMessage(f"{kind.__name__}: {error}") from error


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
