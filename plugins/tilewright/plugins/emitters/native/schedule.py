"""From a three-loop specification to straight-line vector code, in named steps.

The steps are those of the micro-kernel generation paper (arXiv 2310.17408, figures 6 to 11), with vectors along the
columns of a row-major C:

==  ==========================================================================================
V1  freeze the register tile: ``C[i, j] += A[i, p] * B[p, j]`` with constant row and column counts
V2  divide the column loop by the lanes of a vector
V3  keep the tile of C in registers across the p loop; its loads and stores become instructions
V4  bring the operands of one p step into registers
V5  the lane loop of multiply-adds becomes an instruction
V6  unroll everything inside the p loop
==  ==========================================================================================

A tile with a `masked` last vector computes only its first ``tail`` columns. Every lane loop is exchanged for an
instruction by `unify`; one that matches no instruction is an error, never silently scalar code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.kernel import InstructionLibrary

from .nest import Affine, Assign, Buffer, Call, Expr, For, If, Nest, Op, Ref, Stmt, Value, substitute
from .unify import instruction_for

STEPS = {
    "V1": "freeze the register tile",
    "V2": "divide columns by vector lanes",
    "V3": "keep C in registers",
    "V4": "bring operands into registers",
    "V5": "multiply-add instructions",
    "V6": "unroll",
}
_I, _J, _P, _L = map(Affine.var, ("i", "j", "p", "l"))


@dataclass(frozen=True)
class Tile:
    """A register tile: `rows` x `vectors` vector registers of C; the last vector may be partial."""

    rows: int
    vectors: int
    masked: bool = False

    def columns(self, lanes: int) -> int:
        """Columns when every vector is whole."""
        return self.vectors * lanes

    @property
    def registers(self) -> int:
        """Vector registers alive at once: C, the operand that is held, and one of the other."""
        return self.rows * self.vectors + min(self.rows, self.vectors) + 1


def check(tile: Tile, library: InstructionLibrary) -> None:
    """InvalidInput when the tile is empty or needs more registers than there are."""
    file = library.register_file("vector")
    count = file.count if file else 0
    if tile.rows < 1 or tile.vectors < 1:
        raise InvalidInput(f"tile: {tile.rows} rows x {tile.vectors} vectors, expected at least 1 x 1")
    if tile.registers > count:
        columns = tile.columns(library.lanes["f32"])
        raise InvalidInput(
            f"tile: {tile.rows}x{columns} needs {tile.registers} vector registers"
            f" ({tile.rows * tile.vectors} for C, {min(tile.rows, tile.vectors) + 1} for operands), {library.name} has {count}"
        )


def schedule(tile: Tile, library: InstructionLibrary) -> Iterator[tuple[str, Nest]]:
    """The nest after each of V1 to V6. Raises InvalidInput when the tile does not fit or an instruction is missing."""
    check(tile, library)
    steps = _Steps(tile, library, library.lanes["f32"])
    nest = steps.freeze()
    yield "V1", nest
    nest = steps.divide(nest)
    yield "V2", nest
    nest = steps.stage_result(nest)
    yield "V3", nest
    nest = steps.stage_operands(nest)
    yield "V4", nest
    nest = steps.use_multiply_add(nest)
    yield "V5", nest
    yield "V6", replace(nest, body=_unroll(nest.body))


@dataclass(frozen=True)
class _Steps:
    tile: Tile
    library: InstructionLibrary
    lanes: int

    def freeze(self) -> Nest:
        """V1."""
        columns: int | str = "n" if self.tile.masked else self.tile.columns(self.lanes)
        buffers = {
            "A": Buffer("memory", "f32", (self.tile.rows, "k"), ("a_row", "a_step")),
            "B": Buffer("memory", "f32", ("k", columns), ("b_step", "1")),
            "C": Buffer("memory", "f32", (self.tile.rows, columns), ("c_row", "1")),
        }
        update = _multiply_add(Ref("C", (_I, _J)), Ref("A", (_I, _P)), Ref("B", (_P, _J)))
        return Nest(buffers, (For("p", "k", (For("i", self.tile.rows, (For("j", columns, (update,)),)),)),))

    def divide(self, nest: Nest) -> Nest:
        """V2: one lane loop per vector; the lanes of a partial vector are guarded by a mask."""
        buffers = dict(nest.buffers)
        before: tuple[Stmt, ...] = ()
        if self.tile.masked:
            buffers["mask"] = Buffer("mask", "i32", (self.lanes,))
            before = (self.lane_loop(Assign(Ref("mask", (_L,)), Op("less", (Value(_L), Value(Affine.var("tail")))))),)
        updates = []
        for vector in range(self.tile.vectors):
            c, b = Ref("C", (_I, self.column(vector))), Ref("B", (_P, self.column(vector)))
            update = _multiply_add(c, Ref("A", (_I, _P)), b)
            updates.append(self.lane_loop(replace(update, value=self.guard(vector, update.value, c))))
        return Nest(buffers, (*before, For("p", "k", (For("i", self.tile.rows, tuple(updates)),))))

    def stage_result(self, nest: Nest) -> Nest:
        """V3: C in registers, zeroed before the p loop and added to memory (or stored) after it."""
        registers = Buffer("vector", "f32", (self.tile.rows, self.tile.vectors, self.lanes))
        nest = replace(nest, buffers={**nest.buffers, "acc": registers, "old": registers})
        zero: list[Stmt] = []
        update: list[Stmt] = []
        add: list[Stmt] = []
        store: list[Stmt] = []
        for vector in range(self.tile.vectors):
            at = Affine((), vector)
            acc, old, c = Ref("acc", (_I, at, _L)), Ref("old", (_I, at, _L)), Ref("C", (_I, self.column(vector)))
            b = self.guard(vector, Ref("B", (_P, self.column(vector))), Op("any"))
            zero.append(self.instruction(Assign(acc, Value(Affine())), nest))
            update.append(self.lane_loop(_multiply_add(acc, Ref("A", (_I, _P)), b)))
            add.append(self.instruction(Assign(old, self.guard(vector, c, Op("any"))), nest))
            add.append(self.instruction(Assign(acc, Op("add", (acc, old))), nest))
            store.append(self.instruction(Assign(c, self.guard(vector, acc, c)), nest))
        rows = self.tile.rows
        before = [self.instruction(stmt.body[0], nest) for stmt in nest.body[:-1] if isinstance(stmt, For)]
        return replace(
            nest,
            body=(
                *before,
                For("i", rows, tuple(zero)),
                For("p", "k", (For("i", rows, tuple(update)),)),
                If("accumulate", (For("i", rows, tuple(add)),), ()),
                For("i", rows, tuple(store)),
            ),
        )

    def stage_operands(self, nest: Nest) -> Nest:
        """V4: the shorter side of the tile is held in registers, the other passes through.

        An instruction that multiplies by a scalar in memory needs no staged A.
        """
        rows, vectors = self.tile.rows, self.tile.vectors
        nest = replace(
            nest,
            buffers={
                **nest.buffers,
                "b": Buffer("vector", "f32", (vectors, self.lanes)),
                "a": Buffer("vector", "f32", (rows, self.lanes)),
            },
        )
        a, in_memory = Ref("a", (_I, _L)), Ref("A", (_I, _P))
        loads: list[Stmt] = []
        updates: list[Stmt] = []
        scalar_a = instruction_for(self.lane_loop(self.register_update(0, in_memory)), nest.buffers, self.library) is not None
        for vector in range(vectors):
            b = Ref("b", (Affine((), vector), _L))
            loads.append(self.instruction(Assign(b, self.guard(vector, Ref("B", (_P, self.column(vector))), Op("any"))), nest))
            updates.append(self.lane_loop(self.register_update(vector, in_memory if scalar_a else a)))
        broadcast = () if scalar_a else (self.instruction(Assign(a, in_memory), nest),)
        if vectors <= rows or scalar_a:
            step: tuple[Stmt, ...] = (*loads, For("i", rows, (*broadcast, *updates)))
        else:
            passing = [stmt for load, update in zip(loads, updates, strict=True) for stmt in (load, For("i", rows, (update,)))]
            step = (For("i", rows, broadcast), *passing)
        return replace(nest, body=tuple(For("p", "k", step) if _is_p(stmt) else stmt for stmt in nest.body))

    def use_multiply_add(self, nest: Nest) -> Nest:
        """V5."""
        return replace(nest, body=tuple(self.replace_lane_loops(stmt, nest) for stmt in nest.body))

    def replace_lane_loops(self, statement: Stmt, nest: Nest) -> Stmt:
        if not isinstance(statement, For):
            return statement
        if statement.variable == "l":
            assert isinstance(statement.body[0], Assign)
            return self.instruction(statement.body[0], nest)
        return replace(statement, body=tuple(self.replace_lane_loops(each, nest) for each in statement.body))

    def column(self, vector: int) -> Affine:
        return replace(_L, constant=vector * self.lanes)

    def guard(self, vector: int, value: Expr, otherwise: Expr) -> Expr:
        """The value, in lanes that exist."""
        partial = self.tile.masked and vector == self.tile.vectors - 1
        return Op("select", (Ref("mask", (_L,)), value, otherwise)) if partial else value

    def register_update(self, vector: int, a: Ref) -> Assign:
        at = Affine((), vector)
        return _multiply_add(Ref("acc", (_I, at, _L)), a, Ref("b", (at, _L)))

    def lane_loop(self, assign: Assign) -> For:
        return For("l", self.lanes, (assign,))

    def instruction(self, assign: Stmt, nest: Nest) -> Call:
        """The instruction equal to an assignment over all lanes."""
        assert isinstance(assign, Assign)
        call = instruction_for(self.lane_loop(assign), nest.buffers, self.library)
        if call is None:
            raise InvalidInput(f"{self.library.name}: no instruction computes '{assign}' for l in {self.lanes}")
        return call


def _multiply_add(target: Ref, a: Expr, b: Expr) -> Assign:
    return Assign(target, Op("fma", (a, b, target)))


def _is_p(statement: Stmt) -> bool:
    return isinstance(statement, For) and statement.variable == "p"


def _unroll(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
    """Every loop with a constant trip count, unrolled."""
    result: list[Stmt] = []
    for statement in body:
        if isinstance(statement, For) and isinstance(statement.extent, int):
            for trip in range(statement.extent):
                result += _unroll(tuple(substitute(each, {statement.variable: Affine((), trip)}) for each in statement.body))
        elif isinstance(statement, For):
            result.append(replace(statement, body=_unroll(statement.body)))
        elif isinstance(statement, If):
            result.append(replace(statement, then=_unroll(statement.then), otherwise=_unroll(statement.otherwise)))
        else:
            result.append(statement)
    return tuple(result)
