"""Proving: templates that do not do what their semantics say are refused by a counter-example."""

from __future__ import annotations

import pytest
from emitter_kit import EACH, TOY, needs_avx2, needs_compiler, with_template

from tilewright.plugins.emitters.native.numbers import FORMATS
from tilewright.plugins.emitters.native.prove import prove
from tilewright.plugins.emitters.native.semantics import InvalidInstruction
from tilewright.plugins.emitters.native.toolchain import Ready, find
from tilewright.plugins.targets.cpu import Avx2

AVX2 = Avx2().instructions()


def _ready(library):
    ready = next(find(library))
    assert isinstance(ready, Ready)
    return ready


@needs_compiler
def test_the_made_up_instruction_set_is_proven():
    prove(TOY, _ready(TOY), FORMATS["f32"])


@needs_avx2
def test_avx2_is_proven():
    prove(AVX2, _ready(AVX2), FORMATS["f32"])


@needs_compiler
@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("axpy", EACH + "{y}.x[i] += *({a}) * {x}.x[i];"),  # rounds twice
        ("axpy", EACH + "{y}.x[i] = fmaf(({a})[0], {x}.x[0], {y}.x[i]);"),  # wrong lane
        ("add", EACH + "{y}.x[i] -= {x}.x[i];"),
        ("store", "for (int i = 0; i < 5; ++i) ({d})[i] = {s}.x[i & 3];"),  # one word too many
        ("store_first", EACH + "({d})[i] = {s}.x[i];"),  # ignores the mask
        ("first", "{mask} = (int)({n}) - 1;"),  # seen through the instructions that take masks
        ("load", EACH + "{d}.x[i] = ({s})[3 - i];"),
    ],
)
def test_a_wrong_template_is_refused_with_a_counter_example(name, template):
    wrong = with_template(TOY, name, template)
    with pytest.raises(
        InvalidInstruction, match=r"toy: instruction '\w+' is refused: its template .* Counter-example: .* gives .*, expected"
    ):
        prove(wrong, _ready(wrong), FORMATS["f32"])


@needs_avx2
def test_a_wrong_intrinsic_is_refused():
    wrong = with_template(AVX2, "fma", "{acc} = _mm256_fmsub_ps({a}, {b}, {acc});")
    with pytest.raises(InvalidInstruction, match="avx2: instruction 'fma' is refused"):
        prove(wrong, _ready(wrong), FORMATS["f32"])


@needs_compiler
def test_a_template_that_is_not_c_is_refused_with_the_compilers_words():
    wrong = with_template(TOY, "zero", "{d} = undeclared;")
    with pytest.raises(InvalidInstruction, match=r"templates do not compile: .*undeclared"):
        prove(wrong, _ready(wrong), FORMATS["f32"])
