"""Some thousand damaged inputs at every entrance; `fuzz.py` plays as many as one likes."""

from __future__ import annotations

import pytest
from tests.faults import fuzz

from tilewright.protocol.errors import InvalidInput


@pytest.mark.parametrize(("entrance", "inputs"), [("codec", 10_000), ("yaml", 2_000), ("config", 2_000), ("onnx", 1_000)])
def test_damaged_inputs_are_read_or_refused(entrance: str, inputs: int) -> None:
    if entrance == "onnx":
        pytest.importorskip("onnx", reason="needs onnx")
    found = fuzz.play(entrance, 7, range(inputs))
    assert found.failures == []
    assert sum(found.outcomes.values()) == inputs and found.outcomes["read"] > 0
    assert found.grown_mb < fuzz.MOST_MB


def test_what_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entrance that breaks, hangs, or refuses: the first two are failures, by number."""

    def read(data: bytes) -> None:
        if data[:1] < b"a":
            raise KeyError("broken")
        if data[:1] < b"c":
            while True:
                pass
        raise InvalidInput("refused")

    monkeypatch.setitem(fuzz.ENTRANCES, "toy", lambda folder: fuzz.Entrance([b"abc", b"zzz"], read))
    monkeypatch.setattr(fuzz, "PATIENCE", 0.05)
    found = fuzz.play("toy", 1, range(40))
    kinds = {text.split(": ")[1] for text in found.failures}
    assert kinds == {"KeyError", "TimeoutError"} and found.failures[0].startswith("input ")
    assert found.outcomes["InvalidInput"] + len(found.failures) == 40


def test_a_campaign_is_played_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "CHUNK", 300)
    found = fuzz.campaign("config", 3, 100, 700)
    assert sum(found.outcomes.values()) == 700 and found.failures == []
