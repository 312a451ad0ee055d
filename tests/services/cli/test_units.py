"""Numbers for people."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.services.cli import units


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0, "J", "0 J"),
        (1, "J", "1.00 J"),
        (0.00186, "J", "1.86 mJ"),
        (999.4, "J", "999 J"),
        (999.6, "J", "1.00 kJ"),
        (999_999, "", "1.00 M"),
        (1234, "cycles", "1.23 kcycles"),
        (3.87e6, "cycles", "3.87 Mcycles"),
        (6.83e-5, "J", "68.3 µJ"),
        (1e-7, "J", "100 nJ"),
        (9.999, "s", "10.0 s"),
        (-2.5e-9, "s", "-2.50 ns"),
        (1e-20, "J", "0.00 fJ"),
        (5e22, "J", "50000 EJ"),
        (math.inf, "J", "inf J"),
        (math.nan, "J", "nan J"),
    ],
)
def test_si(value: float, unit: str, shown: str) -> None:
    assert units.si(value, unit) == shown


@given(st.floats(min_value=1e-14, max_value=9e20))
def test_si_says_the_value_to_three_digits(value: float) -> None:
    number, prefix = re.fullmatch(r"([0-9.]+) ([fpnµmkMGTPE]?)J", units.si(value, "J")).groups()  # type: ignore[union-attr]
    scale = {"f": -15, "p": -12, "n": -9, "µ": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}[prefix]
    assert math.isclose(float(number) * 10.0**scale, value, rel_tol=5.01e-3)
    assert len(number.replace(".", "")) == 3


def test_units_of_our_quantities() -> None:
    assert units.energy(1.86e9) == "1.86 mJ"
    assert units.edp(28.3e3 * 512) == "14.5 µJ·cycles"
    assert units.cycles(512) == "512 cycles"
    assert units.cycles(8.2e6) == "8.20 Mcycles"
    assert units.size(224) == "224 B"
    assert units.size(2048) == "2.05 kB"
    assert units.count(64.0) == "64"
    assert units.count(6.4) == "6.40"
    assert units.percent(0.4567) == "45.7 %"
    assert units.ratio(1.834) == "1.83x"
    assert units.duration(0.0032) == "3.20 ms"
    assert [units.objective_value(name, 1e12) for name in ("edp", "energy", "latency")] == ["1.00 J·cycles", "1.00 J", "1.00 Tcycles"]
