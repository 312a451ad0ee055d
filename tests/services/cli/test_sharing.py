"""Several models that share one design."""

from __future__ import annotations

import pytest

from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput
from tilewright.services.cli import request
from tilewright.services.cli.options import RunOptions


def test_models_become_one_workload() -> None:
    said = RunOptions(model="bert-base", target="gemmini", seq=128, beside=["bert-large"])
    both = request.build(said, ("codesign",), local=True)
    assert both.workload is not None
    alone = [registry.load("frontends", "zoo").load(name, {"seq": 128}) for name in ("bert-base", "bert-large")]
    assert both.workload.macs == sum(each.macs for each in alone)
    assert len(both.workload.nodes) == sum(len(each.nodes) for each in alone)
    assert both.model == " + ".join(each.name for each in alone)


def test_unknown_models_are_refused() -> None:
    said = RunOptions(model="bert-base", target="gemmini", beside=["no-such"])
    with pytest.raises(InvalidInput, match="model 'no-such' is unknown"):
        request.build(said, ("codesign",), local=True)
