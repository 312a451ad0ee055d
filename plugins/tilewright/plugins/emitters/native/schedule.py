"""From a three-loop specification to straight-line vector code, in named steps.

The steps are those of the micro-kernel generation paper (arXiv 2310.17408, figures 6 to 11), with vectors along the
columns of a row-major C:

==  ==========================================================================================
V1  freeze the register tile: ``C[i, j] += A[i, p] * B[p, j]`` with constant row and column counts
V2  divide the column loop by the lanes of a vector (and depth by the group of one instruction)
V3  keep the tile of C in registers across the p loop; its loads and stores become instructions
V4  bring the operands of one p step into registers
V5  the lane loop of multiply-adds becomes an instruction
V6  unroll everything inside the p loop
==  ==========================================================================================

A tile whose last vector is partial computes only ``tail`` of its columns: under a mask, or, where masks are slow, by moving the last
vector back so that it ends with the tile; lanes it shares with its neighbour are computed twice. Every lane loop is exchanged for an
instruction by `unify`; one that matches no instruction is an error, never silently scalar code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.kernel import Instruction, InstructionLibrary

from .nest import Affine, Assign, Buffer, Call, Expr, For, If, Nest, Op, Ref, Stmt, Value, substitute
from .numbers import FORMATS, Numbers
from .unify import instruction_for

STEPS = {
    "V1": "freeze the register tile",
    "V2": "divide columns by vector lanes",
    "V3": "keep C in registers",
    "V4": "bring operands into registers",
    "V5": "multiply-add instructions",
    "V6": "unroll",
}
_I, _J, _P, _L, _Q = map(Affine.var, ("i", "j", "p", "l", "q"))
_ZERO = Affine()
#: Cycles of a masked store beyond which computing some lanes twice is cheaper.
_SLOW_STORE = 4


Edge = Literal["whole", "masked", "moved"]


@dataclass(frozen=True)
class Tile:
    """A register tile: `rows` x `vectors` vector registers of C."""

    rows: int
    vectors: int
    #: How the last vector covers fewer columns than it has lanes: not at all, under a mask, or moved back over its neighbour.
    edge: Edge = "whole"
    #: Copies the B it reads into a panel, for the tiles below it; the A it reads into a strip, for the tiles beside it.
    packs_b: bool = False
    packs_a: bool = False
    #: Asks for B this many p steps ahead; 0: leaves it to the hardware.
    ahead: int = 0

    def columns(self, lanes: int) -> int:
        """Columns when every vector is whole."""
        return self.vectors * lanes


def registers(tile: Tile, library: InstructionLibrary, numbers: Numbers) -> tuple[int, int]:
    """Vector registers alive at once: for C, and for operands.

    The shorter side is held and the other passes through one register; by lanes, whole vectors of both are held.
    """
    lanes = library.lanes[numbers.result]
    if multiplies_by_lane(library, numbers) and tile.rows % lanes == 0:
        operands = tile.vectors + tile.rows // lanes
    else:
        operands = min(tile.rows, tile.vectors) + 1
    return tile.rows * tile.vectors, operands


def check(tile: Tile, library: InstructionLibrary, numbers: Numbers = FORMATS["f32"]) -> None:
    """InvalidInput when the tile is empty, needs more registers than there are, or a type that the library lacks."""
    if numbers.result not in library.lanes:
        raise InvalidInput(f"{library.name} has no vectors of {numbers.result}, expected a dtype made of {', '.join(library.lanes)}")
    file = library.register_file("vector")
    count = file.count if file else 0
    if tile.rows < 1 or tile.vectors < 1:
        raise InvalidInput(f"tile: {tile.rows} rows x {tile.vectors} vectors, expected at least 1 x 1")
    results, operands = registers(tile, library, numbers)
    if results + operands > count:
        columns = tile.columns(library.lanes[numbers.result])
        raise InvalidInput(
            f"tile: {tile.rows}x{columns} needs {results + operands} vector registers"
            f" ({results} for C, {operands} for operands), {library.name} has {count}"
        )


def schedule(tile: Tile, library: InstructionLibrary, numbers: Numbers = FORMATS["f32"]) -> Iterator[tuple[str, Nest]]:
    """The nest after each of V1 to V6. Raises InvalidInput when the tile does not fit or an instruction is missing."""
    check(tile, library, numbers)
    steps = _Steps(tile, library, numbers, library.lanes[numbers.result])
    # Moving a vector back is right only once C is in registers: until then, its columns are guarded.
    guarded = replace(steps, tile=replace(tile, edge="masked")) if tile.edge == "moved" else steps
    nest = guarded.freeze()
    yield "V1", nest
    nest = guarded.divide(nest)
    yield "V2", nest
    nest = steps.stage_result(nest)
    yield "V3", nest
    nest = steps.stage_operands(nest)
    yield "V4", nest
    nest = steps.use_multiply_add(nest)
    yield "V5", nest
    yield "V6", replace(nest, body=_unroll(nest.body))


def edge_of(vectors: int, library: InstructionLibrary, numbers: Numbers) -> Edge:
    """How tiles of so many vectors end: moved back where there is a neighbour and masked stores are slow, else under a mask."""
    slow = any(
        each.latency > _SLOW_STORE and each.operands[0].type == numbers.result
        for each in library.instructions
        if any(operand.space == "mask" for operand in each.operands) and each.operands[0].space == "memory"
    )
    return "moved" if slow and vectors > 1 and not library.scalable else "masked"


def stores_words(library: InstructionLibrary, numbers: Numbers) -> bool:
    """True when the library can store the first lane of a vector: tiles can then pack the A that they broadcast."""
    lanes = library.lanes[numbers.result]
    buffers = {"to": Buffer("memory", numbers.item, ("k",), ("1",)), "a": Buffer("vector", numbers.item, (lanes,))}
    return instruction_for(Assign(Ref("to", (_L,)), Ref("a", (_ZERO,))), 1, buffers, library) is not None


def multiplies_by_lane(library: InstructionLibrary, numbers: Numbers) -> bool:
    """True when the library has an instruction that multiplies a vector by one lane of another."""
    lanes = library.lanes[numbers.result]
    vector = Buffer("vector", numbers.result, (lanes,))
    update = _multiply_add(Ref("acc", (_L,)), [Ref("a", (Affine((), 1),))], [Ref("b", (_L,))], numbers)
    return numbers.group == 1 and instruction_for(update, lanes, {"acc": vector, "a": vector, "b": vector}, library) is not None


@dataclass(frozen=True)
class _Steps:
    tile: Tile
    library: InstructionLibrary
    numbers: Numbers
    lanes: int

    def freeze(self) -> Nest:
        """V1."""
        columns: int | str = self.tile.columns(self.lanes) if self.tile.edge == "whole" else "n"
        item, result = self.numbers.item, self.numbers.result
        buffers = {
            "A": Buffer("memory", item, (self.tile.rows, "k"), ("a_row", "a_step")),
            "B": Buffer("memory", item, ("k", columns), ("b_step", "1")),
            "C": Buffer("memory", result, (self.tile.rows, columns), ("c_row", "1")),
        }
        update = _multiply_add(Ref("C", (_I, _J)), [Ref("A", (_I, _P))], [Ref("B", (_P, _J))], self.numbers)
        return Nest(buffers, (For("p", "k", (For("i", self.tile.rows, (For("j", columns, (update,)),)),)),))

    def divide(self, nest: Nest) -> Nest:
        """V2: one lane loop per vector; the lanes of a partial vector are guarded by a mask."""
        rows, vectors, group = self.tile.rows, self.tile.vectors, self.numbers.group
        item, result = self.numbers.item, self.numbers.result
        buffers = {
            "A": Buffer("memory", item, (rows, "k", group), ("a_row", "a_step", "1")),
            "B": Buffer(
                "memory", item, ("k", vectors, self.lanes * group), ("b_step", f"(LANES * {group})" if group > 1 else "LANES", "1")
            ),
            "C": Buffer("memory", result, (rows, vectors, self.lanes), ("c_row", "LANES", "1")),
        }
        before: tuple[Stmt, ...] = ()
        if self.tile.edge == "masked":
            buffers["mask"] = Buffer("mask", "i32", (self.lanes,))
            before = (self.lane_loop(Assign(Ref("mask", (_L,)), Op("less", (Value(_L), Value(Affine.var("tail")))))),)
        updates = []
        for vector in range(vectors):
            c = self.c(vector)
            update = self.update(c, "A", self.b_words(vector))
            updates.append(self.lane_loop(replace(update, value=self.guard(vector, update.value, c))))
        return Nest(buffers, (*before, For("p", "k", (For("i", rows, tuple(updates)),))))

    def stage_result(self, nest: Nest) -> Nest:
        """V3: C in registers, zeroed before the p loop and added to memory (or stored) after it."""
        registers = Buffer("vector", self.numbers.result, (self.tile.rows, self.tile.vectors, self.lanes))
        kept = {name: buffer for name, buffer in nest.buffers.items() if buffer.space != "mask" or self.tile.edge == "masked"}
        nest = replace(nest, buffers={**kept, "acc": registers, "old": registers})
        zero: list[Stmt] = []
        update: list[Stmt] = []
        add: list[Stmt] = []
        store: list[Stmt] = []
        for vector in range(self.tile.vectors):
            at, c = Affine((), vector), self.c(vector)
            acc, old = Ref("acc", (_I, at, _L)), Ref("old", (_I, at, _L))
            zero.append(self.instruction(Assign(acc, Value(_ZERO)), nest))
            update.append(self.lane_loop(self.update(acc, "A", self.b_words(vector))))
            add.append(self.instruction(Assign(old, self.guard(vector, c, Op("any"))), nest))
            add.append(self.instruction(Assign(acc, Op("add", (acc, old))), nest))
            store.append(self.instruction(Assign(c, self.guard(vector, acc, c)), nest))
        rows = self.tile.rows
        masks = nest.body[:-1] if self.tile.edge == "masked" else ()
        before = [self.instruction(stmt.body[0], nest) for stmt in masks if isinstance(stmt, For)]
        return replace(
            nest,
            body=(
                *before,
                *self.touch_result(),
                For("i", rows, tuple(zero)),
                For("p", "k", (For("i", rows, tuple(update)),)),
                If("accumulate", (For("i", rows, tuple(add)),), ()),
                For("i", rows, tuple(store)),
            ),
        )

    def touch_result(self) -> tuple[Stmt, ...]:
        """Ask for the lines of C early, where the library can."""
        prefetch = _prefetch(self.library, "inout")
        if prefetch is None:
            return ()
        name = prefetch.operands[0].name
        lines = range(0, self.tile.vectors, self.vectors_per_line)
        return (For("i", self.tile.rows, tuple(Call(prefetch, ((name, self.c(v, _ZERO)),)) for v in lines)),)

    @property
    def vectors_per_line(self) -> int:
        """Vectors of four-byte words in a cache line of 64 bytes."""
        return max(1, 64 // (4 * self.lanes))

    def stage_operands(self, nest: Nest) -> Nest:
        """V4: the shorter side of the tile is held in registers, the other passes through.

        An instruction that multiplies by a scalar in memory needs no staged A; one that multiplies by a lane takes whole
        vectors of a packed A.
        """
        rows, vectors, group, item = self.tile.rows, self.tile.vectors, self.numbers.group, self.numbers.item
        wide = self.lanes * group
        panel = (f"({vectors} * LANES * {group})" if group > 1 else f"({vectors} * LANES)", nest.buffers["B"].strides[1], "1")
        by_lane = multiplies_by_lane(self.library, self.numbers) and rows % self.lanes == 0
        buffers = {
            **nest.buffers,
            "b": Buffer("vector", item, (vectors, wide)),
            "a": Buffer("vector", item, (rows // self.lanes if by_lane else rows, wide)),
        }
        if self.tile.packs_b:
            buffers["packed_b"] = Buffer("memory", item, ("k", vectors, wide), panel)
        if self.tile.packs_a:
            buffers["packed_a"] = Buffer("memory", item, ("k", rows), (str(rows), "1"))
        if by_lane:
            buffers["A"] = replace(buffers["A"], shape=("k", rows // self.lanes, wide), strides=("a_step", "LANES", "1"))
        nest = replace(nest, buffers=buffers)
        scalar_a = instruction_for(self.update(self.acc(0), "A", self.b_lanes(0)), self.lanes, nest.buffers, self.library) is not None
        loads = [self.load(vector, nest) for vector in range(vectors)]
        held = "a" if not scalar_a else "A"
        if by_lane:
            step: tuple[Stmt, ...] = (*self.load_a_lanes(nest), *(stmt for load in loads for stmt in load), *self.lane_updates())
        else:
            updates = [self.lane_loop(self.update(self.acc(vector), held, self.b_lanes(vector))) for vector in range(vectors)]
            spread = Assign(Ref("a", (_I, self.spread())), Ref("A", (_I, _P, _Q if group > 1 else _ZERO)))
            broadcast: tuple[Stmt, ...] = () if scalar_a else (self.instruction(spread, nest, group),)
            if self.tile.packs_a:
                broadcast = (*broadcast, self.store_word(nest))
            if vectors <= rows or scalar_a:
                step = (*(stmt for load in loads for stmt in load), For("i", rows, (*broadcast, *updates)))
            else:
                passing = [stmt for load, update in zip(loads, updates, strict=True) for stmt in (*load, For("i", rows, (update,)))]
                step = (For("i", rows, broadcast), *passing)
        return replace(nest, body=tuple(For("p", "k", step) if _is_p(stmt) else stmt for stmt in nest.body))

    def load(self, vector: int, nest: Nest) -> list[Stmt]:
        """One vector of B into a register, and from there into the panel where the tile packs."""
        group = self.numbers.group
        at, lanes = Affine((), vector), self.spread()
        b, source = Ref("b", (at, lanes)), self.b_at(vector, lanes)
        stmts: list[Stmt] = []
        prefetch = _prefetch(self.library, "in") if self.tile.ahead else None
        if prefetch is not None and vector % self.vectors_per_line == 0:
            later = Ref("B", (replace(_P, constant=self.tile.ahead), at, _ZERO))
            stmts.append(Call(prefetch, ((prefetch.operands[0].name, later),)))
        stmts.append(self.instruction(Assign(b, self.guard_b(vector, source)), nest, group))
        if self.tile.packs_b:
            stmts.append(self.instruction(Assign(self.b_at(vector, lanes, "packed_b"), b), nest, group))
        return stmts

    def store_word(self, nest: Nest) -> Call:
        """The word of A that was just broadcast, into the strip."""
        assign = Assign(Ref("packed_a", (_P, Affine.of({"i": 1, "l": 1}))), Ref("a", (_I, _ZERO)))
        call = instruction_for(assign, 1, nest.buffers, self.library)
        if call is None:
            raise InvalidInput(f"{self.library.name}: no instruction computes '{assign}'")
        return call

    def load_a_lanes(self, nest: Nest) -> list[Stmt]:
        """Whole vectors of a packed A."""
        count = self.tile.rows // self.lanes
        return [self.instruction(Assign(Ref("a", (Affine((), v), _L)), Ref("A", (_P, Affine((), v), _L))), nest) for v in range(count)]

    def lane_updates(self) -> list[Stmt]:
        return [
            self.lane_loop(
                _multiply_add(
                    Ref("acc", (Affine((), row), Affine((), vector), _L)),
                    [Ref("a", (Affine((), row // self.lanes), Affine((), row % self.lanes)))],
                    [Ref("b", (Affine((), vector), _L))],
                    self.numbers,
                )
            )
            for row in range(self.tile.rows)
            for vector in range(self.tile.vectors)
        ]

    def use_multiply_add(self, nest: Nest) -> Nest:
        """V5."""
        return replace(nest, body=tuple(self.replace_lane_loops(stmt, nest) for stmt in nest.body))

    def replace_lane_loops(self, statement: Stmt, nest: Nest) -> Stmt:
        if not isinstance(statement, For):
            return statement
        if statement.variable == "l":
            return self.instruction(statement.body[0], nest)
        return replace(statement, body=tuple(self.replace_lane_loops(each, nest) for each in statement.body))

    def moved(self, vector: int, lane: Affine, group: int = 1) -> Affine:
        """Index in memory of a lane of a vector: the last one may start earlier."""
        if self.tile.edge != "moved" or vector < self.tile.vectors - 1:
            return lane
        return Affine.of({**dict(lane.terms), "tail": group}, lane.constant - group * self.lanes)

    def spread(self) -> Affine:
        """Index of a lane of an operand's register: ``l``, or ``group x l + q``."""
        return Affine.of({"l": self.numbers.group, "q": 1}) if self.numbers.group > 1 else _L

    def acc(self, vector: int) -> Ref:
        return Ref("acc", (_I, Affine((), vector), _L))

    def c(self, vector: int, lane: Affine = _L) -> Ref:
        return Ref("C", (_I, Affine((), vector), self.moved(vector, lane)))

    def b_words(self, vector: int) -> list[Expr]:
        """The items of B in memory that lane ``l`` of a vector multiplies; unspecified past the tail."""
        return [self.guard_b(vector, self.b_at(vector, place)) for place in self.places()]

    def b_at(self, vector: int, place: Affine, buffer: str = "B") -> Ref:
        return Ref(buffer, (_P, Affine((), vector), self.moved(vector, place, self.numbers.group)))

    def b_lanes(self, vector: int) -> list[Expr]:
        return [Ref("b", (Affine((), vector), place)) for place in self.places()]

    def places(self) -> list[Affine]:
        group = self.numbers.group
        return [Affine.of({"l": group}, q) for q in range(group)]

    def update(self, target: Ref, a: str, b: list[Expr]) -> Assign:
        """``target += sum of a x b`` with A from memory (``A``) or from registers (``a``)."""
        if a == "A":
            items: list[Expr] = [Ref("A", (_I, _P, Affine((), q))) for q in range(self.numbers.group)]
        else:
            items = [Ref("a", (_I, place)) for place in self.places()]
        return _multiply_add(target, items, b, self.numbers)

    def guard(self, vector: int, value: Expr, otherwise: Expr) -> Expr:
        """The value, in lanes that exist."""
        partial = self.tile.edge == "masked" and vector == self.tile.vectors - 1
        return Op("select", (Ref("mask", (_L,)), value, otherwise)) if partial else value

    def guard_b(self, vector: int, value: Expr) -> Expr:
        """B in memory, unspecified past the tail; grouped items come from panels, which are padded."""
        return self.guard(vector, value, Op("any")) if self.numbers.group == 1 else value

    def lane_loop(self, assign: Assign) -> For:
        return For("l", self.lanes, (assign,))

    def instruction(self, assign: Stmt, nest: Nest, group: int = 1) -> Call:
        """The instruction equal to an assignment over all lanes."""
        assert isinstance(assign, Assign)
        call = instruction_for(assign, self.lanes, nest.buffers, self.library, group)
        if call is None:
            raise InvalidInput(f"{self.library.name}: no instruction computes '{assign}' for l in {self.lanes}")
        return call


def _multiply_add(target: Ref, a: list[Expr], b: list[Expr], numbers: Numbers) -> Assign:
    """``fma`` for floats; for integers ``target + (a0 * b0 + a1 * b1 + ...)``."""
    if not numbers.exact:
        return Assign(target, Op("fma", (a[0], b[0], target)))
    total: Expr = Op("mul", (a[0], b[0]))
    for x, y in zip(a[1:], b[1:], strict=True):
        total = Op("add", (total, Op("mul", (x, y))))
    return Assign(target, Op("add", (target, total)))


def _prefetch(library: InstructionLibrary, access: str) -> Instruction | None:
    """The instruction that computes nothing and takes one memory operand, to be read (``in``) or written."""
    return next(
        (
            each
            for each in library.instructions
            if each.semantics == "pass"
            and len(each.operands) == 1
            and (each.operands[0].space, each.operands[0].access) == ("memory", access)
        ),
        None,
    )


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
