"""Words to values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.protocol.errors import InvalidInput
from tilewright.services.cli import parse


def test_values_get_the_type_they_look_like() -> None:
    words = ["a=1", "b=1.5", "c=true", "d=False", "e=x=y", "f=", " g = 2 ", "h=1e-3", "i=-4"]
    assert parse.options(words, "--option") == {
        "a": 1, "b": 1.5, "c": True, "d": False, "e": "x=y", "f": "", "g": 2, "h": 0.001, "i": -4,
    }  # fmt: skip


@given(st.one_of(st.integers(), st.booleans(), st.floats(allow_nan=False)))
def test_scalars_round_trip(value: bool | int | float) -> None:
    parsed = parse.scalar(str(value))
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["depth"], "--option 'depth': expected NAME=VALUE"),
        (["=3"], "--option '=3': expected NAME=VALUE"),
        (["a=1", "a=2"], "'a' was given before"),
    ],
)
def test_what_is_no_pair_says_so(words: list[str], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        parse.options(words, "--option")


def test_integers_and_numbers() -> None:
    assert parse.integers(["a=4"], "--parameter") == {"a": 4}
    assert parse.numbers(["a=4", "b=2.5"], "--limit") == {"a": 4.0, "b": 2.5}
    with pytest.raises(InvalidInput, match=r"--parameter a=4\.5: expected an integer"):
        parse.integers(["a=4.5"], "--parameter")
    for word in ("a=x", "a=true", "a=nan", "a=inf", "a=-inf"):
        with pytest.raises(InvalidInput, match=f"--limit {word}: expected a number"):
            parse.numbers([word], "--limit")


def test_stages() -> None:
    assert parse.stages("simulate, map") == ("map", "simulate")
    with pytest.raises(InvalidInput, match="'mapp' is not a stage; did you mean 'map'"):
        parse.stages("mapp")
    with pytest.raises(InvalidInput, match="expected some of profile"):
        parse.stages(" , ")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b.c", ".bashrc", "..", "", "a\0b", "a\n", "x" * 300, "a\\b"])
def test_what_a_result_calls_a_file_stays_in_its_folder(name: str) -> None:
    with pytest.raises(InvalidInput, match="expected a name of letters"):
        parse.file_name(name)


def test_names_of_files() -> None:
    for name in ("gemm_f32.c", "CMakeLists.txt", "a-b.1.h"):
        assert parse.file_name(name) == name
