"""The frontend for hand-written operators."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilewright.protocol import files, registry
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Frontend
from tilewright.protocol.workload import Workload
from tilewright.testing.frontends import FrontendConformance

TEXT = """\
workload:
  name: attention
  operators:
    - {name: q, count: 2, matmul: {p: 64, c: 96, k: 96, bias: true}}
    - {name: scores, batched_matmul: {g: 3, p: 64, c: 32, k: 64}}
    - {name: softmax, softmax: {shape: {G: 3, P: 64, K: 64}, reduced: [K]}}
    - {matmul: {p: 64, c: 96, k: 96}}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "attention.yaml"
    file.write_text(TEXT)
    return file


class TestYaml(FrontendConformance):
    name = "yaml"

    @pytest.fixture(autouse=True)
    def file(self, path: Path) -> None:
        self.path = path

    def workloads(self, frontend: Frontend) -> list[Workload]:
        return [frontend.load(str(self.path), {})]


def test_loads_operators_with_counts(path: Path) -> None:
    workload = registry.load("frontends", "yaml").load(str(path), {})
    assert workload.macs == 3 * 64 * 96 * 96 + 3 * 64 * 32 * 64
    assert [(task.name, task.count) for task in workload.tasks] == [("q", 2), ("scores", 1), ("softmax", 1), ("operator3", 1)]
    assert [node.id for node in workload.nodes] == ["q", "q#1", "scores", "softmax", "operator3"]


def test_a_zoo_model_survives_the_file(tmp_path: Path) -> None:
    """Graph, views, parameters and all."""
    workload = registry.load("frontends", "zoo").load("llama-3-8b", {"layers": 1, "decode": True, "ctx": 9})
    file = tmp_path / "llama.yaml"
    file.write_text(files.write(workload=workload))
    assert registry.load("frontends", "yaml").load(str(file), {}) == workload


def test_options_are_refused(path: Path) -> None:
    with pytest.raises(InvalidInput, match="option 'seq': frontend yaml has no options"):
        registry.load("frontends", "yaml").load(str(path), {"seq": 3})


def test_a_mistake_is_shown_with_its_place(path: Path) -> None:
    path.write_text(TEXT.replace("p: 64, c: 96, k: 96, bias", "p: sixty, c: 96, k: 96, bias"))
    with pytest.raises(InvalidInput) as caught:
        registry.load("frontends", "yaml").load(str(path), {})
    assert str(caught.value) == f"{path}:4:39: workload.operators[0].matmul.p: 'sixty', expected an integer >= 1"
