"""``profile`` on models that cannot be profiled: every one ends with exit code 2 and a line that says what is wrong."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tilewright.services.cli.app import app

Make = Callable[[Path], list[str]]


def refused(words: list[str]) -> str:
    """What is said about a command that ends with 2 and without a traceback."""
    done = CliRunner().invoke(app, ["profile", *words], env={"COLUMNS": "200"})
    assert done.exit_code == 2, (done.output, done.exception)
    assert "Traceback" not in done.stderr
    return done.stderr


def config(**fields: object) -> Make:
    def make(folder: Path) -> list[str]:
        (folder / "config.json").write_text(json.dumps(fields))
        return [f"hf:{folder / 'config.json'}"]

    return make


def file(name: str, content: bytes = b"not what its name says", *words: str) -> Make:
    def make(folder: Path) -> list[str]:
        (folder / name).write_bytes(content)
        return [str(folder / name), *words]

    return make


class Payload:
    """Code that runs when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (sys.exit, (99,))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (file("model.onnx"), "not an ONNX file"),
        (file("model.onnx", b""), "not an ONNX file"),
        (file("config.json"), "expected a config.json of transformers"),
        (file("config.json", b"[" * 100_000), "expected a config.json of transformers"),
        (file("model.pt2"), "not a file of torch.export.save"),
        (file("model.yaml", b"workload: 3"), "workload"),
        (file("model.pkl", pickle.dumps(Payload())), "a pickle can run any code when it is loaded, so it never is"),
        (file("pytorch_model.bin", pickle.dumps(Payload())), "a pickle can run any code when it is loaded, so it never is"),
        (file("model.pt", pickle.dumps(Payload())), "a pickle can run any code when it is loaded, so it never is"),
        (file("model.safetensors"), "weights alone, expected the config.json beside them"),
        (file("model.gguf"), "weights alone, expected the config.json beside them"),
        (lambda folder: [str(folder)], "neither a file, nor a folder with a config.json, nor a name"),
        (lambda folder: [str(folder / "gone.onnx")], "gone.onnx' does not exist"),
        (lambda folder: ["bert-bas"], "did you mean 'bert-base'?"),
        (lambda folder: ["hf:bert-bas"], "did you mean 'bert-base'?"),
        (config(model_type="bert", auto_map={"AutoModel": "own--code.Model"}), "the model is code that comes with it (own--code.Model)"),
        (config(model_type="bert", dtype="int8"), "expected float32, float16, bfloat16 or float64"),
        (config(model_type="bert", quantization_config={"quant_method": "gptq"}), "quantization_config: gptq"),
        (config(model_type="brt"), "model_type 'brt' is unknown to transformers"),
        (config(model_type="bert", num_hidden_layers=1_000_000, hidden_size=8, num_attention_heads=1), "more than 1000 modules"),
    ],
)  # fmt: skip
def test_models_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Make, said: str) -> None:
    pytest.importorskip("transformers", reason="needs transformers")
    pytest.importorskip("onnx", reason="needs onnx")
    monkeypatch.setattr("tilewright.plugins.frontends.huggingface.models.MAX_MODULES", 1000)
    assert said in refused(make(tmp_path))


MODULES = """
import torch

class Recurrent(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = torch.nn.LSTM(8, 8)
    def forward(self, x):
        return self.cell(x)[0]

def recurrent():
    return Recurrent(), (torch.zeros(3, 2, 8),)

class Solve(torch.nn.Module):
    def forward(self, x):
        return torch.linalg.solve(x, x)

def solve():
    return Solve(), (torch.zeros(4, 4),)

class Picky(torch.nn.Module):
    def forward(self, x):
        return x[x > 0]

def picky():
    return Picky(), (torch.zeros(8),)

class Loops(torch.nn.Module):
    def forward(self, x):
        for _ in range(500):
            x = x + 1
        return x

def loops():
    return Loops(), (torch.zeros(8),)

def huge():
    return torch.nn.Linear(1 << 22, 1 << 22), (torch.zeros(1, 1 << 22),)
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{file}::recurrent"], "module 'cell': operator aten.mkldnn_rnn_layer.default with trained parameters"),
        (["{file}::solve"], "operator aten._linalg_solve_ex.default on 4x4, 4x4 is not one that can be counted"),
        (["{file}::picky"], "depends on data, expected shapes that do not"),
        (["{file}::loops"], "more than 100 calls, expected a model that loops less"),
        (["{file}::huge", "--measure", "1"], "huge: its weights take 70368.8 GB, expected at most 80 % of"),
        (["{file}::gone"], "has no function 'gone'"),
        (["{file}"], "expected FILE.py::NAME"),
        (["hf:bert-base", "--seq", "1000000", "-o", "layers=1", "-o", "positions=1000000", "-o", "attention=eager", "--measure", "1"],
         "bert-base: its weights and its largest operator take"),
    ],
)  # fmt: skip
def test_modules_that_cannot_be_counted_or_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str) -> None:
    pytest.importorskip("transformers", reason="needs transformers")
    monkeypatch.setattr("tilewright.plugins.frontends.torch_graph.recorder.MAX_CALLS", 100)
    own = tmp_path / "own.py"
    own.write_text(MODULES)
    assert said in refused([word.format(file=own) for word in words])


def test_symbolic_dims_without_values_are_named(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="needs onnx")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value("x", 1, ["batch", None])], [value("y", 1, None)]
    )
    model = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(graph), model)
    assert "symbolic dims without values: batch, x.1; give them with the option dims=batch:N,x.1:N" in refused([str(model)])


@pytest.mark.parametrize(
    ("library", "model", "extra"),
    [("transformers", "hf:bert-base", "frontends"), ("onnx", "model.onnx", "frontends"), ("torch", "own.py::f", "torch")],
)  # fmt: skip
def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, model: str, extra: str) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("model.onnx", "own.py"):
        Path(name).write_text("")
    for name in [each for each in sys.modules if each.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    words = [model, "--measure", "1"] if library == "transformers" else [model]  # by name the service loads it
    said = refused(words)
    assert f"needs {library}" in said and f"install tilewright with the extra {extra}" in said


def test_plots_without_their_library_are_refused_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "--plots and --html need matplotlib; install tilewright with the extra plots" in refused(["bert-base", "--plots", str(tmp_path)])
