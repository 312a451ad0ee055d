"""Instruction sets as data, generated code, and what was verified about it."""

from __future__ import annotations

from typing import Literal

import msgspec

from .workload import Operator

#: Scalar types of registers and memory.
ElementType = Literal["f32", "f64", "f16", "bf16", "i8", "u8", "i16", "i32"]
#: Where an instruction's operand lives. ``scalar`` is a run-time integer, ``immediate`` a constant known when C is compiled.
Space = Literal["vector", "mask", "memory", "scalar", "immediate"]


class InstructionOperand(msgspec.Struct, frozen=True, omit_defaults=True):
    """One operand of an instruction."""

    name: str
    space: Space
    #: Type of its elements; ``i32`` for scalars and immediates.
    type: ElementType = "i32"
    #: Elements touched, from the first on: lanes of a register, words in memory (unit stride).
    lanes: int = 1
    access: Literal["in", "out", "inout"] = "in"


class Instruction(msgspec.Struct, frozen=True, omit_defaults=True):
    """One instruction: what it computes, and the C that makes a compiler issue it.

    `semantics` is one assignment that holds for every lane ``i`` of the written operand, in Python's expression syntax::

        acc[i] = fma(a[i], b[i], acc[i])          rounded once
        dst[i] = src[i] if mask[i] else 0
        dst[i] = a[2*i] * b[2*i] + a[2*i+1] * b[2*i+1]
        dst[2*i+j] = src[j]                             lanes in groups, ``j`` the place in a group

    Operators ``+ - * <`` act on the operands' values and round to the written type after each operation; functions are
    ``fma(a, b, c)``, ``saturate(x)`` (to the written integer type) and ``any`` (an unspecified value). ``pass`` computes nothing.
    """

    name: str
    operands: tuple[InstructionOperand, ...]
    semantics: str
    #: A C statement; ``{operand}`` stands for a variable, a pointer (memory), or an integer expression.
    template: str
    #: Preconditions on scalars and immediates, e.g. ``0 <= n <= 8``.
    requires: tuple[str, ...] = ()
    #: Cycles from operands to result.
    latency: int = 1
    #: Issued per cycle at most.
    per_cycle: float = 1.0


class RegisterFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """Registers of one space."""

    space: Literal["vector", "mask"]
    count: int
    #: C type of a register, by element type.
    c_types: dict[ElementType, str]
    #: C statements that fill ``{register}`` from bytes at ``{pointer}`` and write it back, for types of which the size is unknown.
    fill: str = "memcpy(&{register}, {pointer}, sizeof {register});"
    spill: str = "memcpy({pointer}, &{register}, sizeof {register});"


class Cache(msgspec.Struct, frozen=True):
    """One data cache as seen by one core."""

    name: str
    size_bytes: int
    ways: int
    line_bytes: int = 64

    @property
    def sets(self) -> int:
        """Number of sets."""
        return self.size_bytes // (self.ways * self.line_bytes)


class Toolchain(msgspec.Struct, frozen=True, omit_defaults=True):
    """One way to compile and run code of an instruction set."""

    name: str
    #: Compilers to look for, the preferred one first.
    compilers: tuple[str, ...]
    flags: tuple[str, ...]
    #: Machines (as ``platform.machine()`` says) on which its programs run, directly or under `runner`.
    machines: tuple[str, ...]
    #: Command before the program, e.g. ``("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu")``.
    runner: tuple[str, ...] = ()
    #: False: an emulator that may round the product of a fused multiply-add too, which proofs then allow.
    fuses: bool = True
    #: Element types that it lacks.
    lacks: tuple[ElementType, ...] = ()
    #: Files that must be installed, named when they are not.
    needs: tuple[str, ...] = ()


class InstructionLibrary(msgspec.Struct, frozen=True, omit_defaults=True):
    """An instruction set as the kernel generator sees it. A target offers it through an optional method ``instructions()``."""

    name: str
    #: Lanes of a vector register, by element type.
    lanes: dict[ElementType, int]
    registers: tuple[RegisterFile, ...]
    instructions: tuple[Instruction, ...]
    headers: tuple[str, ...] = ()
    #: C text that templates rely on (tables, helpers), after the headers.
    preamble: str = ""
    #: C expression that is true on a machine which has the instructions (a toolchain that emulates them defines ``TW_AVAILABLE``).
    available: str = "1"
    #: C expression for the lanes of a vector of four-byte words where they are known only at run time; `lanes` then holds the
    #: least. Templates say ``LANES`` for the lanes in force.
    scalable: str = ""
    toolchains: tuple[Toolchain, ...] = ()
    #: Innermost first.
    caches: tuple[Cache, ...] = ()

    def register_file(self, space: Space) -> RegisterFile | None:
        """The registers of a space, or None."""
        return next((file for file in self.registers if file.space == space), None)


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


class Measurement(msgspec.Struct, frozen=True):
    """How fast something ran: giga-operations per second of CPU time, the median and its 95 % interval."""

    name: str
    median: float
    low: float
    high: float


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
    #: Further files, name -> text: a benchmark, a build description, a Python binding.
    files: dict[str, str] = {}
