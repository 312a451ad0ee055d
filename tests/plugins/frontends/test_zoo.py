"""The zoo: closed forms at sizes that are in no table, the graph's structure, options and what is refused."""

from __future__ import annotations

import math

import pytest

from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Frontend, Options
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS, Workload
from tilewright.testing.frontends import FrontendConformance

ZOO: Frontend = registry.load("frontends", "zoo")


class TestZoo(FrontendConformance):
    name = "zoo"


def attention_macs(b: int, layers: int, s: int, context: int, h: int) -> int:
    """Scores and mix of all layers."""
    return 2 * b * layers * s * context * h


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("layers", "heads", "seq"), [(12, 12, 128), (5, 4, 77), (1, 16, 1), (7, 1, 509)])
def test_bert_closed_form(layers: int, heads: int, seq: int, batch: int) -> None:
    h, f, b = 768, 3072, batch
    workload = ZOO.load("bert-base", {"layers": layers, "heads": heads, "seq": seq, "batch": b})
    projections = layers * b * seq * (4 * h * h + 2 * h * f)
    assert workload.macs == projections + attention_macs(b, layers, seq, seq, h) + b * h * h
    softmax = [task for task in workload.tasks if task.operator.function == "softmax"]
    assert sum(task.count * task.operator.iterations for task in softmax) == layers * b * heads * seq * seq
    layer = 4 * (h * h + h) + h * f + f + f * h + h + 4 * h
    assert workload.parameters == (30522 + 512 + 2) * h + 2 * h + layers * layer + h * h + h
    assert workload.nodes[-1].module == "pooler.activation"


@pytest.mark.parametrize(("layers", "heads", "seq", "batch"), [(12, 12, 1024, 1), (3, 6, 333, 2)])
def test_gpt2_closed_form(layers: int, heads: int, seq: int, batch: int) -> None:
    h, f, v = 768, 3072, 50257
    workload = ZOO.load("gpt2", {"layers": layers, "heads": heads, "seq": seq, "batch": batch})
    expected = batch * seq * (layers * (4 * h * h + 2 * h * f) + h * v) + attention_macs(batch, layers, seq, seq, h)
    assert workload.macs == expected


@pytest.mark.parametrize(("ctx", "batch"), [(1, 1), (2, 1), (777, 1), (1024, 5)])
def test_gpt2_decode_closed_form(ctx: int, batch: int) -> None:
    h, f, v, layers = 768, 3072, 50257, 12
    workload = ZOO.load("gpt2", {"decode": True, "ctx": ctx, "batch": batch})
    assert workload.macs == batch * (layers * (4 * h * h + 2 * h * f) + h * v) + attention_macs(batch, layers, 1, ctx, h)
    caches = [edge for edge in workload.edges if edge.name.endswith("_cache")]
    # One word per cached token, channel, layer, and keys and values.
    assert sum(math.prod(edge.shape) for edge in caches) == 2 * layers * batch * (ctx - 1) * h


@pytest.mark.parametrize(
    ("layers", "heads", "kv", "seq", "batch"),
    [(32, 32, 8, 2048, 1), (3, 16, 4, 100, 2), (2, 32, 32, 64, 1), (2, 64, 1, 9, 3)],
)
def test_llama_closed_form(layers: int, heads: int, kv: int, seq: int, batch: int) -> None:
    h, f, v, d = 4096, 14336, 128256, 4096 // heads
    workload = ZOO.load("llama-3-8b", {"layers": layers, "heads": heads, "kv_heads": kv, "seq": seq, "batch": batch, "bits": 16})
    per_token = layers * (2 * h * h + 2 * h * kv * d + 3 * h * f) + h * v
    assert workload.macs == batch * seq * per_token + attention_macs(batch, layers, seq, seq, h)
    assert workload.parameters == 2 * v * h + h + layers * (2 * h * h + 2 * h * kv * d + 3 * h * f + 2 * h)
    scores = next(task.operator for task in workload.tasks if task.operator.is_contraction and not task.operator.tensor(WEIGHTS).static)
    # Keys are read once per key/value head, however many query heads share them.
    assert scores.elements(WEIGHTS) == batch * kv * d * seq
    assert scores.elements(INPUTS) == batch * seq * h


@pytest.mark.parametrize(("tokens", "groups"), [(1, [(2, 1)]), (3, [(6, 1)]), (5, [(2, 2), (6, 1)]), (2048, [(8, 512)])])
def test_mixtral_spreads_tokens_evenly(tokens: int, groups: list[tuple[int, int]]) -> None:
    """Two of eight experts work on each token; (experts, rows of each) of one product."""
    workload = ZOO.load("mixtral-8x7b", {"seq": tokens, "layers": 1})
    products = [workload.operators[node.operator] for node in workload.nodes if node.module == "model.layers.0.mlp.experts"]
    wide = [operator for operator in products if operator.is_contraction and operator.bounds["K"] == 2 * 14336]
    assert [(operator.bounds["G"], operator.bounds["P"]) for operator in wide] == groups
    assert sum(operator.macs for operator in wide) == 2 * tokens * 4096 * 2 * 14336


#: ResNet-18 as published: R = S, P = Q, C, K, stride, count (the last row is the classifier).
RESNET18 = [
    (7, 112, 3, 64, 2, 1),
    (3, 56, 64, 64, 1, 4),
    (3, 28, 64, 128, 2, 1),
    (1, 28, 64, 128, 2, 1),
    (3, 28, 128, 128, 1, 3),
    (3, 14, 128, 256, 2, 1),
    (1, 14, 128, 256, 2, 1),
    (3, 14, 256, 256, 1, 3),
    (3, 7, 256, 512, 2, 1),
    (1, 7, 256, 512, 2, 1),
    (3, 7, 512, 512, 1, 3),
    (0, 1, 512, 1000, 1, 1),
]


def test_resnet18_layers() -> None:
    found = []
    for task in ZOO.load("resnet18", {}).tasks:
        operator, bounds = task.operator, task.operator.bounds
        if operator.is_contraction:
            terms = {term.dim: term.coefficient for rank in operator.tensor(INPUTS).ranks for term in rank.terms}
            found.append((bounds.get("R", 0), bounds["P"], bounds["C"], bounds["K"], terms["P"], task.count))
    assert sorted(found) == sorted(RESNET18)


@pytest.mark.parametrize("size", [32, 97, 256])
def test_resnet50_at_other_sizes(size: int) -> None:
    """MACs from the sizes that strides of two leave: ceil(size / 2) five times."""
    sides = [size]
    for _ in range(5):
        sides.append(-(-sides[-1] // 2))
    total = sides[1] ** 2 * 3 * 64 * 49
    channels = 64
    for stage, (blocks, side) in enumerate(zip((3, 4, 6, 3), sides[2:], strict=True)):
        width, before = 64 << stage, sides[2] if stage == 0 else sides[stage + 1]
        for block in range(blocks):
            total += channels * width * (before if block == 0 else side) ** 2
            total += 9 * width * width * side**2 + 4 * width * width * side**2
            total += channels * 4 * width * side**2 if block == 0 else 0
            channels = 4 * width
    assert ZOO.load("resnet50", {"size": size}).macs == total + 2048 * 1000


def test_batch_scales_images() -> None:
    for name in ("vgg16", "mobilenetv2", "unet", "retinanet"):
        assert ZOO.load(name, {"batch": 3}).macs == 3 * ZOO.load(name, {}).macs


@pytest.mark.parametrize(("size", "sides"), [(188, (4, 4)), (199, (4, 4)), (204, (20, 20)), (572, (388, 388))])
def test_unet_output_side(size: int, sides: tuple[int, int]) -> None:
    workload = ZOO.load("unet", {"size": size})
    assert workload.operators[workload.nodes[-1].operator].shape(OUTPUTS)[2:] == sides


def test_bits_change_bytes_and_nothing_else() -> None:
    narrow, wide = ZOO.load("bert-base", {}), ZOO.load("bert-base", {"bits": 32})
    assert narrow.macs == wide.macs
    first = [next(task.operator for task in workload.tasks if task.operator.is_contraction) for workload in (narrow, wide)]
    assert 4 * first[0].read_bytes == first[1].read_bytes == 4 * (128 * 768 + 768 * 768 + 768)


CASES: list[tuple[str, Options]] = [
    ("bert-base", {}),
    ("bert-base", {"batch": 2, "seq": 7}),
    ("gpt2", {"batch": 2}),
    ("gpt2", {"decode": True, "ctx": 100, "batch": 2}),
    ("llama-3-8b", {"layers": 2, "batch": 3, "seq": 33}),
    ("llama-3-8b", {"layers": 2, "decode": True, "ctx": 50, "batch": 2}),
    ("mixtral-8x7b", {"layers": 2, "seq": 5}),
    ("resnet50", {"size": 97}),
    ("vgg16", {}),
    ("mobilenetv2", {"size": 160}),
    ("unet", {"size": 300}),
    ("retinanet", {"size": 200, "batch": 2}),
]


@pytest.mark.parametrize(("model", "options"), CASES, ids=lambda value: value if isinstance(value, str) else ",".join(map(str, value)))
def test_edges_fit_what_they_join(model: str, options: Options) -> None:
    """A view splits each rank of the result exactly; operands are never larger than the tensors that their node reads."""
    workload = ZOO.load(model, options)
    nodes, edges = {node.id: node for node in workload.nodes}, {edge.name: edge for edge in workload.edges}
    for edge in workload.edges:
        if edge.producer:
            shape = operator_of(workload, edge.producer).shape(OUTPUTS)
            if edge.axes:
                split = [math.prod(e for e, axis in zip(edge.shape, edge.axes, strict=True) if axis == r) for r in range(len(shape))]
                assert tuple(split) == shape, edge.name
            else:
                assert edge.shape == shape, edge.name
            assert nodes[edge.producer].tensors[OUTPUTS] == edge.name
    for node in workload.nodes:
        operator = workload.operators[node.operator]
        assert set(node.tensors) == {tensor.name for tensor in operator.tensors}
        read = [edge for edge in workload.edges if node.id in edge.consumers]
        assert {edge for name, edge in node.tensors.items() if name != OUTPUTS} <= {edge.name for edge in read}
        # Parts that several nodes wrote (phases, uneven groups of experts) are one operand, bound to the first part.
        parts = sum(math.prod(edge.shape) for edge in read if edge.producer)
        for name, edge_name in node.tensors.items():
            # Only a table may be read more often than it has rows.
            if name != OUTPUTS and (operator.function, name) != ("gather", WEIGHTS):
                assert operator.elements(name) <= max(math.prod(edges[edge_name].shape), parts), (node.id, name)


def operator_of(workload: Workload, node: str):  # type: ignore[no-untyped-def]
    return workload.operators[next(each.operator for each in workload.nodes if each.id == node)]


@pytest.mark.parametrize(("model", "options"), CASES, ids=lambda value: value if isinstance(value, str) else ",".join(map(str, value)))
def test_only_ends_are_open(model: str, options: Options) -> None:
    """Every result is consumed, but for the network's own; nothing that a node reads lacks a source."""
    workload = ZOO.load(model, options)
    unused = [edge.name for edge in workload.edges if edge.producer and not edge.consumers]
    results = {
        "gpt2": ["lm_head.out"],
        "llama-3-8b": ["lm_head.out"],
        "mixtral-8x7b": ["lm_head.out"],
        "bert-base": ["pooler.activation.out"],
    }
    heads = {"retinanet": ["head.classification_head#5.out", "head.regression_head#5.out"], "unet": ["o.out"]}
    classifiers = {"resnet50": ["fc.out"], "vgg16": ["classifier.6.out"], "mobilenetv2": ["classifier.1.out"]}
    assert unused == {**results, **heads, **classifiers}[model]


def test_tied_embedding_is_one_parameter() -> None:
    edge = next(edge for edge in ZOO.load("gpt2", {"layers": 1}).edges if edge.name == "transformer.wte.weight")
    assert edge.consumers == ("transformer.wte", "lm_head")


def test_retinanet_heads_share_weights_over_levels() -> None:
    edge = next(edge for edge in ZOO.load("retinanet", {}).edges if edge.name == "head.classification_head.conv.0.0.weight")
    assert len(edge.consumers) == 5


def test_attention_is_seen_head_by_head() -> None:
    """A projection's ``[tokens, heads x 64]`` reaches the product as ``[heads, tokens, 64]``, the keys transposed."""
    edges = {edge.name: edge for edge in ZOO.load("bert-base", {"seq": 10, "layers": 1}).edges}
    at = "encoder.layer.0.attention.self"
    assert (edges[f"{at}.query.out"].shape, edges[f"{at}.query.out"].axes) == ((12, 10, 64), (1, 0, 1))
    assert (edges[f"{at}.key.out"].shape, edges[f"{at}.key.out"].axes) == ((12, 64, 10), (1, 1, 0))
    assert (edges[f"{at}#2.out"].shape, edges[f"{at}#2.out"].axes) == ((10, 12, 64), (1, 0, 2))


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("bert-bse", {}, "model 'bert-bse' is not in the zoo; did you mean 'bert-base'?"),
        ("bert-base", {"sek": 3}, "option 'sek': bert-base has no such option; did you mean 'seq'?"),
        ("bert-base", {"seq": 0}, "seq: 0, expected an integer from 1 to 512 (bert-base has 512 positions)"),
        ("bert-base", {"seq": -5}, "seq: -5, expected an integer from 1 to 512 (bert-base has 512 positions)"),
        ("bert-base", {"seq": 513}, "seq: 513, expected an integer from 1 to 512 (bert-base has 512 positions)"),
        ("gpt2", {"seq": 1025}, "seq: 1025, expected an integer from 1 to 1024 (gpt2 has 1024 positions)"),
        ("llama-3-70b", {"seq": 8193}, "seq: 8193, expected an integer from 1 to 8192 (llama-3-70b has 8192 positions)"),
        ("bert-base", {"seq": 12.5}, "seq: 12.5, expected an integer from 1 to 512 (bert-base has 512 positions)"),
        ("bert-base", {"seq": True}, "seq: True, expected an integer from 1 to 512 (bert-base has 512 positions)"),
        ("bert-base", {"seq": "128"}, "seq: '128', expected an integer from 1 to 512 (bert-base has 512 positions)"),
        (
            "bert-base",
            {"decode": True},
            "option 'decode': bert-base has no such option; expected one of batch, bits, heads, layers, positions, seq",
        ),
        ("bert-base", {"heads": 7}, "heads: 7, expected a divisor of bert-base's hidden size 768"),
        ("bert-base", {"layers": 0}, "layers: 0, expected an integer from 1 to 1000"),
        ("bert-base", {"batch": 0}, "batch: 0, expected an integer from 1 to 65536"),
        ("bert-base", {"bits": 65}, "bits: 65, expected an integer from 1 to 64"),
        ("llama-3-8b", {"kv_heads": 5}, "kv_heads: 5, expected a divisor of the 32 heads"),
        ("llama-3-8b", {"heads": 4096, "kv_heads": 1}, "heads: 4096 makes heads of 1 channels, expected an even number (rotary pairs)"),
        ("gpt2", {"ctx": 5}, "ctx: 5, expected only with decode=true; without it give seq"),
        ("gpt2", {"decode": True, "seq": 5}, "seq: 5, expected none with decode: give the tokens per sequence as ctx"),
        ("gpt2", {"decode": True, "ctx": 0}, "ctx: 0, expected an integer from 1 to 1024 (gpt2 has 1024 positions)"),
        ("gpt2", {"decode": 1}, "decode: 1, expected true or false"),
        ("resnet50", {"seq": 128}, "option 'seq': resnet50 has no such option; expected one of batch, bits, size"),
        ("resnet50", {"size": 31}, "size: 31, expected an integer from 32 to 8192"),
        ("unet", {"size": 187}, "size: 187, expected an integer from 188 to 8192"),
        ("vgg16", {"size": 256}, "size: 256, expected a multiple of 224 (vgg16's classifier pools to 7 x 7)"),
    ],
)
def test_bad_input(model: str, options: Options, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        ZOO.load(model, options)
    assert str(caught.value) == message
