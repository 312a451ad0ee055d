"""Switchable rules of the model. The default is the reference tool's; each other rule reproduces another tool's figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from tilewright.protocol.errors import InvalidInput, suggest


class Conventions(msgspec.Struct, frozen=True):
    """What is counted, and how times combine. Results under different conventions are never compared."""

    #: Which release of the reference tool is followed. ``2022``: the first visit of an output tile is filled like any other, and two
    #: moves are the same only when nothing came between them, so a loop that does not move a window breaks its slide.
    release: Literal["2025", "2022"] = "2025"
    #: How accesses of the written tensor count:
    #: ``timeloop``: first read of each element elided, draining a tile upward is no read;
    #: ``zigzag``: every accumulation reads and writes, and draining reads;
    #: ``accelforge``: one access per accumulation next to the compute; elsewhere as ``timeloop`` plus a read per drained word.
    outputs: Literal["timeloop", "zigzag", "accelforge"] = "timeloop"
    #: How the latency combines: ``overlapped``: the slowest resource, in the reference tool's double-rounded arithmetic;
    #: ``roofline``: the slowest resource, every one with its own words over bandwidth rounded up once (AccelForge);
    #: ``first-load``: compute, plus stalls, plus the first load that nothing hides, plus the fill of the array.
    latency: Literal["overlapped", "roofline", "first-load"] = "overlapped"
    #: ``systolic``: add the time to load weights into, fill and drain a weight-stationary array, per stationary tile (SCALE-Sim);
    #: ``systolic-prefetch``: the same with the weights loaded meanwhile.
    array: Literal["none", "systolic", "systolic-prefetch"] = "none"
    #: Words that a neighbour received at the previous step come from it instead of the parent.
    peer_transfers: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The rules that differ from the default, for `Cost.conventions`."""
        default = Conventions()
        return tuple(
            f"{field}={getattr(self, field)}" for field in self.__struct_fields__ if getattr(self, field) != getattr(default, field)
        )

    @classmethod
    def parse(cls, settings: Mapping[str, object]) -> Conventions:
        """From rule names to values, as options and `names` say them; `InvalidInput` names what is unknown."""
        fields = cls.__struct_fields__
        for name in settings:
            if name not in fields:
                raise InvalidInput(f"conventions: {name!r} is unknown{suggest(name, fields)}")
        try:
            plain = {name: value if isinstance(value, bool) else str(value) for name, value in settings.items()}
            return msgspec.convert(plain, cls, strict=False)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"conventions: {error}") from error


TIMELOOP = Conventions()
