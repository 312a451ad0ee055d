"""Modules of PyTorch: against the zoo, closed forms and torch's own counter; files that are wrong, and files that must not be trusted."""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.workload import INPUTS, OUTPUTS, Workload
from tilewright.testing.frontends import FrontendConformance

torch = pytest.importorskip("torch", reason="needs torch")

MODELS = Path(__file__).with_name("torch_models.py")
TORCH: Any = registry.load("frontends", "torch")


class TestConformance(FrontendConformance):
    name = "torch"
    sources = tuple(f"{MODELS}::{name}" for name in ("mobilenetv2", "several"))


@pytest.mark.parametrize("model", ["unet", "vgg16", "mobilenetv2"])
def test_the_zoo_is_what_the_modules_do(model: str) -> None:
    """Node by node the same operators in the same order."""
    traced, ours = TORCH.load(f"{MODELS}::{model}", {}), registry.load("frontends", "zoo").load(model, {"bits": 32})
    assert [node.id for node in traced.nodes] == [node.id for node in ours.nodes]
    assert [traced.operators[node.operator] for node in traced.nodes] == [ours.operators[node.operator] for node in ours.nodes]
    assert traced.parameters == ours.parameters


def test_layers_of_many_kinds() -> None:
    workload = TORCH.load(f"{MODELS}::several", {"bits": 8})
    found = {node.id: workload.operators[node.operator] for node in workload.nodes}
    assert found["one"].macs == 2 * 20 * 8 * 6 * 5
    assert found["groups"].macs == 2 * 20 * 12 * 2 * 3
    assert found["norm"].function == "layernorm" and found["norm"].elements("Scale") == 12
    # A transposed convolution: every output meets every third tap; those beyond the border count, as in a padded convolution.
    up = sum(operator.macs for name, operator in found.items() if name.split("#")[0] == "up")
    assert up == 2 * 12 * 5 * sum((out + 1 - tap) % 3 == 0 for out in range(60) for tap in range(4))
    assert sum(operator.elements(OUTPUTS) for name, operator in found.items() if name.split("#")[0] == "up") == 2 * 5 * 60
    assert found["multiply_accumulate"].macs == 2 * 5 * 60 * 7
    assert {tensor.bits for operator in found.values() for tensor in operator.tensors} == {8}


def exported(tmp_path: Path, name: str = "mobilenetv2") -> Path:
    import importlib.util

    spec = importlib.util.spec_from_file_location("torch_models", MODELS)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network, arguments = getattr(module, name)()
    file = tmp_path / f"{name}.pt2"
    torch.export.save(torch.export.export(network.eval(), arguments), file)
    return file


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_an_exported_program_is_the_module(tmp_path: Path) -> None:
    program, module = TORCH.load(str(exported(tmp_path)), {}), TORCH.load(f"{MODELS}::mobilenetv2", {})
    assert [node.id for node in program.nodes] == [node.id for node in module.nodes]
    assert [program.operators[node.operator] for node in program.nodes] == [module.operators[node.operator] for node in module.nodes]
    assert program.parameters == module.parameters


class Payload:
    """What a malicious file could hold: code that runs when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.file,))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_pickle_inside_of_an_exported_program_is_not_loaded(tmp_path: Path) -> None:
    file, touched = exported(tmp_path, "vgg16"), tmp_path / "touched"
    held = io.BytesIO()
    torch.save(Payload(touched), held)
    bad = tmp_path / "bad.pt2"
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(bad, "w") as copy:
        for name in archive.namelist():
            copy.writestr(
                name.replace("vgg16/", "bad/"), held.getvalue() if "sample_inputs" in name and name.endswith(".pt") else archive.read(name)
            )
    with pytest.raises(InvalidInput, match="holds a pickle, which could run any code and is never loaded"):
        TORCH.load(str(bad), {})
    assert not touched.exists()


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".pkl", ".ckpt"])
def test_pickles_are_refused_unseen(tmp_path: Path, suffix: str) -> None:
    file, touched = tmp_path / f"model{suffix}", tmp_path / "touched"
    file.write_bytes(pickle.dumps(Payload(touched)))
    with pytest.raises(InvalidInput, match="a pickle can run any code when it is loaded, so it never is"):
        TORCH.load(str(file), {})
    assert not touched.exists()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_dynamic_shapes_are_named(tmp_path: Path) -> None:
    batch = torch.export.Dim("batch", min=2, max=9)
    program = torch.export.export(torch.nn.Linear(3, 4), (torch.zeros(5, 3),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "dynamic.pt2")
    with pytest.raises(InvalidInput, match=r"dynamic shapes .*VR\[2, 9\].*, expected a program exported with the shapes"):
        TORCH.load(str(tmp_path / "dynamic.pt2"), {})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("recurrent", "module 'cell': operator aten.mkldnn_rnn_layer.default with trained parameters on 3x2x8"),
        ("picky", "the result of aten.nonzero.default depends on data"),
        ("nothing", "returned int, expected (module, arguments)"),
        ("broken", "RuntimeError: on purpose"),
        ("misfit", "cannot be run on its example inputs"),
        ("absent", "has no function 'absent'"),
        ("", "expected FILE.py::NAME"),
    ],
)
def test_factories_that_are_wrong(name: str, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        TORCH.load(f"{MODELS}::{name}" if name else str(MODELS), {})
    assert said in str(caught.value)


def test_files_that_are_wrong(tmp_path: Path) -> None:
    for file, text, said in (
        ("a.pt2", "no zip", "not a file of torch.export.save"),
        ("a.txt", "", "expected a .pt2 file of torch.export.save, or FILE.py::NAME"),
        ("a.py", "import nowhere_to_be_found", "cannot be run: ModuleNotFoundError"),
    ):
        (tmp_path / file).write_text(text)
        with pytest.raises(InvalidInput) as caught:
            TORCH.load(f"{tmp_path / file}{'::f' if file.endswith('.py') else ''}", {})
        assert said in str(caught.value)
    with zipfile.ZipFile(tmp_path / "b.pt2", "w") as archive:
        archive.writestr("b/nothing", "")
    with pytest.raises(InvalidInput, match="torch cannot read it as an exported program"):
        TORCH.load(str(tmp_path / "b.pt2"), {})
    with pytest.raises(InvalidInput, match=r"model file 'nowhere.pt2' does not exist"):
        TORCH.load("nowhere.pt2", {})
    with pytest.raises(InvalidInput, match="option 'seq': frontend torch has only bits"):
        TORCH.load(f"{MODELS}::vgg16", {"seq": 3})
    with pytest.raises(InvalidInput, match="bits: 65, expected an integer from 1 to 64"):
        TORCH.load(f"{MODELS}::vgg16", {"bits": 65})


def trace(module: Any, *arguments: Any) -> Workload:
    with TORCH.fake():
        made = module().eval()
        found: Workload = TORCH.trace("own", made, [argument() for argument in arguments], {})
    return found


SMALL = st.integers(1, 5)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    layers=st.lists(
        st.tuples(
            st.sampled_from(("dense", "depthwise", "grouped", "transposed")),
            SMALL,
            SMALL,
            st.integers(1, 3),
            st.integers(0, 2),
            st.integers(1, 2),
        ),
        min_size=1,
        max_size=4,
    ),
    channels=st.integers(1, 4),
    batch=st.integers(1, 3),
    size=st.integers(6, 14),
)
def test_small_networks_equal_closed_forms(layers: list[tuple[Any, ...]], channels: int, batch: int, size: int) -> None:
    """Random stacks of convolutions: MACs by definition, taps beyond the border included."""
    modules: list[Any] = []
    expected, at, before = 0, [size, size], channels
    for kind, after, window, stride, padding, dilation in layers:
        if kind == "transposed":
            padding = min(padding, window - 1)
            out = [(side - 1) * stride - 2 * padding + window for side in at]
            if min(out) < 1:
                continue
            modules.append((torch.nn.ConvTranspose2d, (before, after, window, stride, padding)))
            taps = [sum((o + padding - tap) % stride == 0 for o in range(side) for tap in range(window)) for side in out]
            expected += batch * before * after * math.prod(taps)
        else:
            reach = dilation * (window - 1) + 1
            out = [(side + 2 * padding - reach) // stride + 1 for side in at]
            if min(side + 2 * padding - reach for side in at) < 0:
                continue
            groups = {"dense": 1, "depthwise": before, "grouped": math.gcd(before, after)}[kind]
            after = before if kind == "depthwise" else after
            modules.append((torch.nn.Conv2d, (before, after, window, stride, padding, dilation, groups)))
            expected += batch * math.prod(out) * after * (before // groups) * window**2
        at, before = out, after
    workload = trace(
        lambda: torch.nn.Sequential(*(each(*arguments) for each, arguments in modules), torch.nn.ReLU()),
        lambda: torch.zeros(batch, channels, size, size),
    )
    assert workload.macs == expected
    assert workload.operators[workload.nodes[-1].operator].elements(OUTPUTS) == batch * before * math.prod(at)


def test_where_torch_counts_otherwise() -> None:
    """Its counter is right for plain products, and misses fused attention on the CPU and grouped products: both are stated here."""
    from torch.utils.flop_counter import FlopCounterMode

    def measured(function: Any) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            function()
        total: int = counter.get_total_flops()
        return total

    q = torch.zeros(1, 2, 8, 4)
    attend = torch.nn.functional.scaled_dot_product_attention

    class Attend(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, x: Any) -> Any:
            return attend(x, x, x)

    ours = 2 * trace(Attend, lambda: torch.zeros(1, 2, 8, 4)).macs
    assert ours == 2 * (2 * 2 * 8 * 8 * 4)
    assert measured(lambda: attend(q, q, q)) == 0  # fused, on the CPU: nothing
    assert measured(lambda: attend(q.to("meta"), q.to("meta"), q.to("meta"))) == ours


def test_words_follow_types_and_views_are_free() -> None:
    class Views(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, x: Any) -> Any:
            return x.transpose(0, 1).reshape(-1)[::2].half() + torch.arange(10)[:1].half()

    workload = trace(Views, lambda: torch.zeros(4, 5))
    assert Counter(workload.operators[node.operator].function for node in workload.nodes) == {"copy": 4, "add": 1}
    add = next(operator for operator in workload.operators if operator.function == "add")
    assert (add.tensor(INPUTS).bits, add.elements("Inputs2"), add.iterations) == (16, 1, 10)


def test_measured_on_this_cpu(tmp_path: Path) -> None:
    """Shares add up, the library's operations are those of the workload, and the spread is told."""
    found = TORCH.measure(f"{MODELS}::mobilenetv2", {}, 2)
    assert (found.name, found.repeats) == ("mobilenetv2", 2)
    assert found.seconds > 0 and found.spread >= 0 and found.load >= 0
    assert 0.9 * found.seconds < sum(each.seconds for each in found.operators) <= found.seconds * (1 + 1e-9)
    convolutions = [each for each in found.operators if "convolution" in each.name]
    assert convolutions
    assert [each.seconds for each in found.operators] == sorted((each.seconds for each in found.operators), reverse=True)
    with pytest.raises(InvalidInput, match="repeats: 0, expected at least 1"):
        TORCH.measure(f"{MODELS}::mobilenetv2", {}, 0)
    with pytest.raises(InvalidInput, match="misfit: cannot be run on this CPU"):
        TORCH.measure(f"{MODELS}::misfit", {}, 1)


def test_this_cpu_is_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rates are operations and bytes over seconds."""
    from tilewright.plugins.frontends.torch_graph import calibrating

    monkeypatch.setattr(calibrating, "SIDE", 64)
    monkeypatch.setattr(calibrating, "WORDS", 1 << 12)
    monkeypatch.setattr(calibrating, "_best", lambda work: 0.5 if work() is not None else 0.0)
    machine = TORCH.calibrate()
    assert (machine.name, machine.peak(16), machine.memories[-1].bytes_per_second) == ("this-cpu", 2 * 64**3 / 0.5, 2 * 4 * 4096 / 0.5)
    assert "products of 64 x 64" in machine.source


def test_best_of_some_rounds() -> None:
    from tilewright.plugins.frontends.torch_graph import calibrating

    runs: list[int] = []
    assert calibrating._best(lambda: runs.append(1)) > 0 and len(runs) == calibrating.ROUNDS + 1


def test_what_does_not_fit_into_memory_is_not_tried() -> None:
    with torch.device("meta"):
        huge = torch.nn.Linear(1 << 22, 1 << 22)
    with pytest.raises(InvalidInput, match=r"its weights take 70368\.8 GB, expected at most 80 % of"):
        TORCH.run("huge", huge, lambda real: ((), {}), 1)
