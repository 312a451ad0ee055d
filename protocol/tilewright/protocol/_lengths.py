"""A look at MessagePack that believes no length: every announced element must have a byte left to be in."""

from __future__ import annotations

#: First byte -> bytes of payload after it (fixed-size scalars).
_FIXED = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8}
_FIXED |= {0xCC + power: 1 << power for power in range(4)} | {0xD0 + power: 1 << power for power in range(4)}
#: First byte -> bytes of the length that follows it.
_SIZED = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_ARRAYS = {0xDC: 2, 0xDD: 4}
_MAPS = {0xDE: 2, 0xDF: 4}


def check_lengths(data: bytes) -> None:
    """Raise ``ValueError`` when arrays, maps, strings or bytes announce more than `data` can hold; time grows with the elements."""
    at, owed, size = 0, 1, len(data)
    while owed:
        if owed > size - at:
            raise ValueError(f"{owed} more elements are announced at byte {at}, and {size - at} bytes are left")
        first = data[at]
        at += 1
        owed -= 1
        if first < 0x80 or first >= 0xE0:  # a small integer
            continue
        if first < 0x90:
            owed += 2 * (first & 0x0F)
        elif first < 0xA0:
            owed += first & 0x0F
        elif first < 0xC0:
            at += first & 0x1F
        elif first in _FIXED:
            at += _FIXED[first]
        elif first in _SIZED:
            width = _SIZED[first]
            at += width + int.from_bytes(data[at : at + width], "big")
        elif first in _ARRAYS or first in _MAPS:
            width = _ARRAYS.get(first) or _MAPS[first]
            count = int.from_bytes(data[at : at + width], "big")
            at += width
            owed += count if first in _ARRAYS else 2 * count
        else:
            raise ValueError(f"byte 0x{first:02x} at {at - 1} starts nothing that is allowed here")
    if at > size:
        raise ValueError(f"the last element ends at byte {at}, and there are {size}")
