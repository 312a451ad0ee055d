"""Generated code and what was verified about it."""

from __future__ import annotations

from typing import Literal

import msgspec

from .workload import Operator


class Verification(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was checked of a kernel, and how it came out."""

    #: ``not verified`` says why in `reason` (e.g. ``no C compiler``).
    status: Literal["verified", "not verified"]
    reason: str = ""
    #: Shapes (edges included) that were executed and compared.
    cases: int = 0
    #: Largest error relative to the float64 reference, in units of the bound that was allowed.
    worst_error: float = 0.0
    compiler: str = ""


class Kernel(msgspec.Struct, frozen=True, omit_defaults=True):
    """A kernel for one operator."""

    operator: Operator
    #: Target whose instructions it uses; ``avx2`` when a target without an emitter got host kernels.
    target: str
    #: C identifier of the entry point.
    name: str
    source: str
    header: str
    test: str
    verification: Verification
    #: Named schedule steps, in the order applied.
    steps: tuple[str, ...] = ()
    #: Register tiles (rows, columns) generated, the main one first.
    tiles: tuple[tuple[int, int], ...] = ()
    #: Instruction stream for targets that execute one.
    program: bytes | None = None
    #: Things a user should know, e.g. ``target 'simba' has no emitter: host kernels``.
    notes: tuple[str, ...] = ()
