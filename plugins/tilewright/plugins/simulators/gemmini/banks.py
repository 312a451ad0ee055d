"""Ports of banked memories: which cycles are taken."""

from __future__ import annotations

#: Cycles by which the record grows.
GROWTH = 1 << 16


class Ports:
    """One port per bank; a cycle is taken or free. `taken[bank][cycle - origin]`."""

    def __init__(self, banks: int) -> None:
        self.taken = [bytearray(GROWTH) for _ in range(banks)]

    def reach(self, cycle: int) -> None:
        """Make the record cover `cycle` and a margin."""
        short = cycle + GROWTH - len(self.taken[0])
        if short > 0:
            for bank in self.taken:
                bank.extend(bytes(short + GROWTH))
