"""Semantics: parsed strictly, executed exactly."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.plugins.emitters.native.semantics import InvalidInstruction, execute, parse, round_to
from tilewright.protocol.kernel import Instruction, InstructionOperand

FLOAT = st.floats(allow_nan=False, allow_infinity=False, width=64, min_value=-1e30, max_value=1e30)


def _instruction(semantics, kind="f32", lanes=2, **operands):
    written = InstructionOperand("d", "vector", kind, lanes, "out")
    return Instruction("it", (written, *(InstructionOperand(n, "vector", k, many) for n, (k, many) in operands.items())), semantics, "")


@given(FLOAT)
def test_rounding_to_single_agrees_with_the_machine(value):
    assert float(round_to(Fraction(value), "f32")) == np.float32(value)


@given(FLOAT.filter(lambda x: abs(x) < 60000))
def test_rounding_to_half_agrees_with_the_machine(value):
    assert float(round_to(Fraction(value), "f16")) == np.float16(value)


@given(st.integers(-(2**40), 2**40))
def test_integers_wrap_like_twos_complement(value):
    assert round_to(value, "i16") == struct.unpack("<h", struct.pack("<q", value)[:2])[0]
    assert round_to(value, "u8") == value % 256


def test_a_fused_multiply_add_rounds_once():
    x = Fraction(1) + Fraction(1, 2**22)
    one = _instruction("d[i] = fma(a[i], a[i], b[i])", a=("f32", 2), b=("f32", 2))
    two = _instruction("d[i] = a[i] * a[i] + b[i]", a=("f32", 2), b=("f32", 2))
    inputs = {"a": [x, x], "b": [Fraction(-1)] * 2}
    assert execute(one, inputs)[0] == Fraction(1, 2**21) + Fraction(1, 2**44)
    assert execute(two, inputs)[0] == Fraction(1, 2**21)


def test_pairwise_products_saturate_and_lanes_stride():
    it = _instruction("d[i] = saturate(a[2*i] * b[2*i] + a[2*i+1] * b[2*i+1])", "i16", a=("u8", 4), b=("i8", 4))
    assert execute(it, {"a": [255, 255, 1, 2], "b": [127, 127, 3, -4]}) == [32767, -5]


@pytest.mark.parametrize(
    "semantics",
    ["d[i] = q[i]", "d[2*i] = a[i]", "d[i] = a[i*i]", "d[i] = open('x')", "d[i] += a[i]", "import os", "d[i] = a[i] / a[i]", "d = a", ""],
)
def test_what_is_not_in_the_language_is_refused(semantics):
    with pytest.raises(InvalidInstruction, match="instruction 'it': semantics"):
        parse(_instruction(semantics, a=("f32", 2)))
