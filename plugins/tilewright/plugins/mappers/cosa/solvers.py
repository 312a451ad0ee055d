"""The MILP solvers behind PuLP: HiGHS where it is installed, else CBC, both single-threaded with a fixed seed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pulp

from tilewright.protocol.errors import InvalidInput

NAMES = ("auto", "highs", "cbc")
#: Absolute optimality gap: objectives are a few hundred, and different ones differ by far more.
GAP = 1e-7
#: A safety cut that counts; programs of real operators need a few hundred nodes.
NODES = 50_000


def solver(name: str) -> pulp.LpSolver:
    """The solver called `name`; ``auto`` prefers HiGHS. Raises `InvalidInput` when it is unknown or not installed."""
    if name not in NAMES:
        raise InvalidInput(f"options.solver: {name!r}, expected one of {', '.join(NAMES)}")
    if name != "cbc" and _has_highs():
        return pulp.HiGHS(msg=False, threads=1, gapRel=0.0, gapAbs=GAP, random_seed=0, mip_max_nodes=NODES)
    cbc = pulp.COIN_CMD(path=pulp.PULP_CBC_CMD.pulp_cbc_path, msg=False, threads=1, gapRel=0.0, gapAbs=GAP, maxNodes=NODES)
    if name != "highs" and cbc.available():
        return cbc
    raise InvalidInput(f"options.solver: {name!r} is not installed here; highs needs the package highspy, cbc a build of PuLP with CBC")


@cache
def _has_highs() -> bool:
    """True when HiGHS works; it prints a banner when first used, which is kept off our output."""
    with _no_stdout():
        if not pulp.HiGHS(msg=False).available():
            return False
        import highspy

        highspy.Highs()  # type: ignore[no-untyped-call]
    return True


@contextmanager
def _no_stdout() -> Iterator[None]:
    """Send what C code writes to file descriptor 1 to nowhere."""
    sys.stdout.flush()
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
