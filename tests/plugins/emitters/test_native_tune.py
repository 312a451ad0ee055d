"""Tournaments and measurements: who wins, what is remembered, what an interval is. The races themselves are made up."""

from __future__ import annotations

import json

import pytest
from emitter_kit import TOY, needs_avx2

from tilewright.plugins.emitters.native import Native, tune
from tilewright.plugins.emitters.native.measure import BLAS, NotMeasurable, native_toolchain, race, summarize
from tilewright.plugins.targets.cpu import Avx2
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import EmitRequest
from tilewright.protocol.workload import matmul


def _plan(**options):
    return Native().plan(EmitRequest(matmul(p=60, c=70, k=80, bits=32), "avx2", options=options), Avx2().instructions())


@needs_avx2
def test_the_fastest_candidate_wins_is_remembered_and_not_raced_again(monkeypatch, tmp_path):
    plan, heats = _plan(), []

    def made_up(field, rounds, blas):
        heats.append(len(field))
        return {name: [1.0 if (each.tile.rows, each.tile.vectors) == (4, 3) else 2.0] * rounds for name, each in field.items()}

    monkeypatch.setattr(tune, "race", made_up)
    memory = tmp_path / "deep" / "tuning.json"
    winner = tune.tournament(plan, memory)
    assert (winner.tile.rows, winner.tile.vectors) == (4, 3)
    assert (winner.name, winner.only_own_size) == (plan.name, False)
    assert len(heats) == 3
    assert heats[0] > heats[1] > heats[2] >= 1
    (known,) = json.loads(memory.read_text()).values()
    assert known["tile"] == {"rows": 4, "vectors": 3}
    assert tune.tournament(plan, memory) == winner
    assert len(heats) == 3
    memory.write_text("not json")
    assert tune.tournament(plan, memory) == winner
    assert len(heats) == 6


def test_candidates_fit_the_registers_and_start_with_the_models_choice():
    plan = _plan()
    field = list(tune.candidates(plan))
    assert field[0] == plan
    assert len({(each.tile, each.blocks) for each in field}) > 8
    assert all(each.tile.rows * each.tile.vectors < 16 for each in field)


def test_the_interval_of_a_median_covers_its_order_statistics():
    """For 9 samples, ranks 2 and 8 hold the median with 96 %: 1 - 2 (1 + 9) / 2^9."""
    said = summarize("x", [9, 1, 8, 2, 7, 3, 6, 4, 5], 10**9)
    assert (said.median, said.low, said.high) == (1 / 5, 1 / 8, 1 / 2)


@needs_avx2
def test_numpys_blas_runs_beside_f32_kernels_only():
    assert set(race({"ours": _plan(tile="1x8")}, 1, blas=True)) <= {"ours", BLAS}
    assert set(race({"ours": _plan(tile="1x8", dtype="int8")}, 1, blas=True)) == {"ours"}
    with pytest.raises(InvalidInput, match="rounds: 0, expected 1 to 64"):
        race({"ours": _plan()}, 0, blas=False)


def test_without_a_native_toolchain_nothing_is_timed(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotMeasurable, match=r"avx2 kernels cannot be timed here: .*(no C compiler|do not run on)"):
        native_toolchain(_plan())


def test_an_emulator_is_no_measure():
    from dataclasses import replace

    with pytest.raises(NotMeasurable, match="toy kernels cannot be timed here"):
        native_toolchain(replace(_plan(), library=TOY))
