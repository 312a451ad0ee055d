"""The paper's schedule in Exo's own operations (figures 6 to 11), vectors along the columns of a row-major C."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from .language import Language, define, exo

STEPS = {
    "V1": "freeze the register tile",
    "V2": "divide loops by vector lanes",
    "V3": "keep C in registers",
    "V4": "bring operands into registers",
    "V5": "multiply-add instructions",
    "V6": "unroll",
}
#: A is read where it lies, word by word; or, to multiply by lanes, from packed columns. Unit strides are asserted here: `replace`
#: does not carry an instruction's own assertion to its caller, and would load from any stride.
_SPECIFICATION = """@proc
def specification(rows: size, columns: size, k: size, A: [f32][{a}] @ DRAM, B: [f32][k, columns] @ DRAM, C: [f32][rows, columns] @ DRAM):
{asserts}
    for p in seq(0, k):
        for i in seq(0, rows):
            for j in seq(0, columns):
                C[i, j] += A[{at}] * B[p, j]
"""


def schedule(language: Language, rows: int, vectors: int) -> list[tuple[str, Any]]:
    """(step, Exo procedure after it) for a tile of `rows` x `vectors` vectors."""
    known, memory, lanes, by_lane = language.instructions, language.registers, language.lanes, language.by_lane
    unit = "\n".join(f"    assert stride({each}, 1) == 1" for each in (("A", "B", "C") if by_lane else ("B", "C")))
    text = _SPECIFICATION.format(a="k, rows" if by_lane else "rows, k", at="p, i" if by_lane else "i, p", asserts=unit)
    specification = define(text, {}, "<specification in Exo>")["specification"]
    steps = _ByLane(known, memory, rows, vectors, lanes) if by_lane else _ByBroadcast(known, memory, rows, vectors, lanes)
    return list(steps.run(specification))


def compiled(procedures: Sequence[Any]) -> tuple[str, str]:
    """C declarations (window types and prototypes) and definitions of some procedures."""
    definitions, header = exo().compile_procs_to_strings(list(procedures), "tiles.h")
    start, end = header.index("#include <stdint.h>"), header.rindex("#ifdef __cplusplus")
    return header[start:end], definitions[definitions.index("\n", definitions.index('#include "tiles.h"')) :]


@dataclass(frozen=True)
class _ByBroadcast:
    """One word of A at a time in every lane of a register."""

    known: Mapping[str, Any]
    memory: Any
    rows: int
    vectors: int
    lanes: int

    @property
    def do(self) -> Any:
        """Exo's scheduling operations."""
        return importlib.import_module("exo.stdlib.scheduling")

    def run(self, specification: Any) -> Iterator[tuple[str, Any]]:
        """The procedure after each step."""
        do = self.do
        p = do.rename(specification, f"tile_{self.rows}x{self.vectors * self.lanes}")
        p = do.simplify(p.partial_eval(rows=self.rows, columns=self.vectors * self.lanes))
        yield "V1", p
        p = self.divide(p)
        yield "V2", p
        p = self.keep_result(p)
        yield "V3", p
        p = self.bring_operands(p)
        yield "V4", p
        p = self.multiply(p)
        yield "V5", p
        yield "V6", self.unroll(p)

    def divide(self, p: Any) -> Any:
        """V2."""
        return self.do.divide_loop(p, "j", self.lanes, ["jt", "jtt"], perfect=True)

    #: Loops around one update, outermost first, and the row that they reach.
    loops: ClassVar[tuple[str, ...]] = ("p", "i", "jt", "jtt")
    row: ClassVar[str] = "i"

    def row_dims(self) -> tuple[tuple[str, int], ...]:
        """(loop, trips) over rows, innermost first."""
        return (("i", self.rows),)

    def keep_result(self, p: Any) -> Any:
        """V3: the tile of C is loaded before the loop over depth and stored after it."""
        do, deep = self.do, len(self.loops)
        p = do.stage_mem(p, "C[_] += _", f"C[{self.row.format(lanes=self.lanes)}, {self.lanes} * jt + jtt]", "C_reg")
        for loop, trips in (("jtt", self.lanes), ("jt", self.vectors), *self.row_dims()):
            p = do.expand_dim(p, "C_reg", trips, loop)
        p = do.lift_alloc(p, "C_reg", n_lifts=deep)
        p = do.autofission(p, p.find("C_reg[_] = _").after(), n_lifts=deep)
        p = do.autofission(p, p.find("C[_] = _").before(), n_lifts=deep)
        p = self.exchange(p, "C_reg[_] = _", "load")
        p = self.exchange(p, "C[_] = _", "store")
        return do.simplify(do.set_memory(p, "C_reg", self.memory))

    def bring_operands(self, p: Any) -> Any:
        """V4."""
        p = self.bring(p, "B", (("jtt", self.lanes), ("jt", self.vectors)), "load")
        return self.do.simplify(self.bring(p, "A", (("jtt", self.lanes), ("i", self.rows)), "broadcast"))

    def bring(self, p: Any, operand: str, dims: tuple[tuple[str, int], ...], role: str) -> Any:
        """One operand into registers with these (loop, trips), lanes first, before the updates of a step of depth."""
        do, register, deep = self.do, f"{operand}_reg", len(self.loops)
        p = do.bind_expr(p, p.find(f"{operand}[_]", many=True), register)
        for loop, trips in dims:
            p = do.expand_dim(p, register, trips, loop)
        p = do.lift_alloc(p, register, n_lifts=deep)
        p = do.autofission(p, p.find(f"{register}[_] = _").after(), n_lifts=deep - 1)
        return do.set_memory(self.exchange(p, f"{register}[_] = _", role), register, self.memory)

    def exchange(self, p: Any, statement: str, role: str) -> Any:
        """The lane loop around a statement becomes an instruction."""
        return self.do.replace(p, p.find(statement).parent(), self.known[role])

    def multiply(self, p: Any) -> Any:
        """V5."""
        return self.do.simplify(self.exchange(p, "C_reg[_] += _", "fma"))

    def unroll(self, p: Any) -> Any:
        """V6."""
        for loop in ("jt", *(name for name, _ in self.row_dims())):
            for _ in range(str(p).count(f"for {loop} in")):
                p = self.do.unroll_loop(p, loop)
        return self.do.simplify(p)


@dataclass(frozen=True)
class _ByLane(_ByBroadcast):
    """Whole vectors of A, multiplied lane by lane: the paper's own case."""

    loops: ClassVar[tuple[str, ...]] = ("p", "it", "itt", "jt", "jtt")
    row: ClassVar[str] = "{lanes} * it + itt"

    def divide(self, p: Any) -> Any:
        """V2, rows too."""
        return self.do.divide_loop(super().divide(p), "i", self.lanes, ["it", "itt"], perfect=True)

    def row_dims(self) -> tuple[tuple[str, int], ...]:
        """(loop, trips) over rows, innermost first."""
        return (("itt", self.lanes), ("it", self.rows // self.lanes))

    def bring_operands(self, p: Any) -> Any:
        """V4."""
        p = self.bring(p, "B", (("jtt", self.lanes), ("jt", self.vectors)), "load")
        return self.do.simplify(self.bring(p, "A", (("itt", self.lanes), ("it", self.rows // self.lanes)), "load"))

    def multiply(self, p: Any) -> Any:
        """V5."""
        return self.do.simplify(self.exchange(p, "C_reg[_] += _", "fma_lane"))
