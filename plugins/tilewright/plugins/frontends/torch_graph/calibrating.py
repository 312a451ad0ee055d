"""This CPU as a machine for rooflines: what one thread reaches here, by processor time."""

from __future__ import annotations

import time
from collections.abc import Callable

from tilewright.protocol.profile import Machine, Memory, Peak

NAME = "this-cpu"
#: Rows and columns of the products that are timed, and words of the tensor that is copied (far more than caches hold).
SIDE, WORDS = 1024, 1 << 26
ROUNDS = 3


def calibrate() -> Machine:
    """Peak of 32-bit products and bandwidth of memory on one thread, the best of some rounds each. Takes about a second.

    Operations of other kinds have no peak of their own: only memory bounds them.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        a, b, out = (torch.ones(SIDE, SIDE) for _ in range(3))
        seconds = _best(lambda: torch.mm(a, b, out=out))
        source, target = torch.ones(WORDS), torch.empty(WORDS)
        copying = _best(lambda: target.copy_(source))
    finally:
        torch.set_num_threads(threads)
    rate, moved = 2.0 * SIDE**3 / seconds, 2 * 4.0 * WORDS / copying
    said = f"measured: products of {SIDE} x {SIDE}, copies of {4 * WORDS >> 20} MiB, one thread, processor time"
    return Machine(NAME, (Peak(32, rate),), (Memory("memory", moved),), source=said)


def _best(work: Callable[[], object]) -> float:
    """Least processor seconds of some rounds, after one that does not count."""
    work()
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return max(min(times), 1e-9)
