"""What may be minimized: one list, whatever says it, and values in their units."""

from __future__ import annotations

from typing import get_args

from tilewright.protocol.cost import Objective
from tilewright.services.cli import options, units
from tilewright.services.cli.views import best


def test_the_command_line_knows_all_objectives() -> None:
    assert get_args(options.Objective) == get_args(Objective)


def test_objectives_without_a_unit_are_plain() -> None:
    assert units.objective_value("ed2p", 2.5e18) == "2.5e+18"
    assert best({"ed2p": 2.5e18}, "ed2p") == "best 2.5e+18"
