"""Schedules: every step computes what the specification computes, in instructions that unify with it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from emitter_kit import TOY, interpret

from tilewright.plugins.emitters.native.nest import Affine, Assign, Buffer, Call, For, Op, Ref
from tilewright.plugins.emitters.native.schedule import STEPS, Tile, schedule
from tilewright.plugins.emitters.native.unify import instruction_for
from tilewright.plugins.targets.cpu import Avx2
from tilewright.protocol.errors import InvalidInput

AVX2 = Avx2().instructions()
L, P = Affine.var("l"), Affine.var("p")
BUFFERS = {
    "acc": Buffer("vector", "f32", (8,)),
    "a": Buffer("vector", "f32", (8,)),
    "b": Buffer("vector", "f32", (8,)),
    "mask": Buffer("mask", "i32", (8,)),
    "M": Buffer("memory", "f32", ("k", "n"), ("row", "1")),
    "T": Buffer("memory", "f32", ("k", "n"), ("1", "column")),
}


def _matrices(rows, columns, depth):
    rng = np.random.default_rng(rows * columns)

    def matrix(*shape):
        return np.vectorize(Fraction, otypes=[object])(rng.integers(-8, 9, shape))

    return matrix(rows, depth), matrix(depth, columns), matrix(rows, columns)


@pytest.mark.parametrize("library", [AVX2, TOY], ids=lambda library: library.name)
@pytest.mark.parametrize(("rows", "vectors", "tail"), [(2, 2, 0), (1, 3, 0), (3, 1, 2), (2, 2, 3), (1, 2, 1)])
@pytest.mark.parametrize("packs", [False, True])
@pytest.mark.parametrize("edge", ["masked", "moved"])
def test_every_step_computes_the_product(library, rows, vectors, tail, packs, edge):
    lanes = library.lanes["f32"]
    if edge == "moved" and (vectors == 1 or not tail):
        pytest.skip("no neighbour to move over")
    columns = vectors * lanes if not tail else (vectors - 1) * lanes + tail
    a, b, c = _matrices(rows, columns, 3)
    names = []
    for name, nest in schedule(Tile(rows, vectors, edge if tail else "whole", packs, packs and library is AVX2), library):
        names.append(name)
        # V1 and V2 specify the update of C; later steps may also overwrite it.
        for accumulate in (1,) if name in ("V1", "V2") else (0, 1):
            result = np.full((rows, vectors * lanes), Fraction(-5), dtype=object)
            result[:, :columns] = c
            wide = np.full((3, vectors * lanes), Fraction(9), dtype=object)
            wide[:, :columns] = b
            packed = np.zeros((3, vectors * lanes), dtype=object)
            strip = np.zeros((3, rows), dtype=object)
            memory = {"A": a.copy(), "B": wide, "C": result, "packed_b": packed, "packed_a": strip}
            interpret(nest, memory, {"k": 3, "n": columns, "tail": tail or lanes, "accumulate": accumulate, "lanes": lanes})
            assert (result[:, :columns] == a @ b + c * accumulate).all(), name
            assert (result[:, columns:] == -5).all(), name
            if packs and name in ("V4", "V5", "V6"):
                assert (packed[:, :columns] == b).all(), name
                assert library is TOY or (strip == a.T).all(), name
    assert names == list(STEPS)


def test_the_last_step_is_straight_line_code_with_the_papers_counts():
    *_, (_, nest) = schedule(Tile(6, 2), AVX2)
    (loop,) = [statement for statement in nest.body if isinstance(statement, For)]
    assert all(isinstance(statement, Call) for statement in loop.body)
    counts = {}
    for call in loop.body:
        counts[call.instruction.name] = counts.get(call.instruction.name, 0) + 1
    assert counts == {"fma": 12, "broadcast": 6, "load_f32": 2}


def _find(target, value, lanes=8):
    return instruction_for(Assign(target, value), lanes, BUFFERS, AVX2)


def _fma(a, b):
    acc = Ref("acc", (L,))
    return acc, Op("fma", (a, b, acc))


def test_unification_finds_an_instruction_up_to_exchanged_factors():
    call = _find(*_fma(Ref("b", (L,)), Ref("a", (L,))))
    assert call is not None
    assert call.instruction.name == "fma"


@pytest.mark.parametrize(
    "assignment",
    [
        (Ref("a", (L,)), Ref("T", (P, L))),  # not unit stride: the hole of Exo 1.0.0
        (Ref("a", (L,)), Ref("M", (P, Affine.of({"l": 2})))),  # every other word
        (Ref("a", (L,)), Ref("M", (P, L)), 4),  # half a vector
        (Ref("a", (L,)), Op("select", (Ref("mask", (L,)), Ref("M", (P, L)), Ref("b", (L,))))),  # blends instead of zeroing
        (Ref("acc", (L,)), Op("fma", (Ref("a", (L,)), Ref("b", (L,)), Ref("b", (L,))))),  # adds to another register
        (Ref("acc", (L,)), Op("sub", (Ref("acc", (L,)), Ref("a", (L,))))),  # no such instruction
        _fma(Ref("a", (L,)), Ref("M", (P, L))),  # an operand in memory
    ],
)
def test_unification_refuses_what_is_not_the_same(assignment):
    assert _find(*assignment) is None


def test_a_tile_that_needs_more_registers_than_there_are_is_refused():
    with pytest.raises(InvalidInput, match=r"7x16 needs 17 vector registers \(14 for C, 3 for operands\), avx2 has 16"):
        list(schedule(Tile(7, 2), AVX2))
    with pytest.raises(InvalidInput, match="0 rows x 1 vectors"):
        list(schedule(Tile(0, 1), AVX2))


def test_a_library_without_the_needed_instruction_is_refused_by_name():
    import msgspec

    bare = msgspec.structs.replace(AVX2, instructions=tuple(each for each in AVX2.instructions if each.name != "store_masked_f32"))
    assert list(schedule(Tile(2, 2), bare))
    with pytest.raises(InvalidInput, match="avx2: no instruction computes 'C"):
        list(schedule(Tile(2, 2, "masked"), bare))
