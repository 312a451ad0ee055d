"""Models of transformers from their configurations: against the zoo, recorded figures, closed forms, and torch's own counter."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tilewright.plugins.validations.workloads.reference import DATA
from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Frontend, Options, Validation
from tilewright.protocol.profile import ATTENTION, PROJECTION, classify
from tilewright.protocol.workload import WEIGHTS, Operator, Workload
from tilewright.testing.frontends import FrontendConformance

pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("transformers", reason="needs transformers")


@pytest.fixture(scope="module")
def huggingface() -> Any:
    return registry.load("frontends", "huggingface")


@pytest.fixture(scope="module")
def zoo() -> Frontend:
    loaded: Frontend = registry.load("frontends", "zoo")
    return loaded


class TestConformance(FrontendConformance):
    name = "huggingface"
    sources = ("bert-base", "resnet50", "t5-small")
    options: Options = {}  # noqa: RUF012 (as the suite has it)


def test_recorded_models_are_reproduced() -> None:
    """Every operator of every recorded model that transformers has: dims, counts, MACs, bytes, operations."""
    suite: Validation = registry.load("validations", "workloads")
    report = suite.run(str(DATA), {"frontend": "huggingface"})
    assert report.cases == report.exact == 264
    compared = [name for name, group in report.groups.items() if group.cases]
    assert len(compared) == 10 and "llama3-70b-prefill2048" in compared and "mixtral-8x7b-decode-ctx2048" in compared


def figures(operator: Operator) -> tuple[object, ...]:
    return operator.function, operator.iterations, operator.flops, operator.read_bytes, operator.write_bytes


def producers(workload: Workload) -> dict[str, set[str]]:
    made: dict[str, set[str]] = {node.id: set() for node in workload.nodes}
    for edge in workload.edges:
        for consumer in edge.consumers:
            if edge.producer:
                made[consumer].add(edge.producer)
    return made


@pytest.mark.parametrize(
    ("model", "options", "bits"),
    [
        ("bert-base", {"layers": 2, "seq": 48}, 32),
        ("bert-base", {"layers": 1, "seq": 48, "batch": 3}, 32),
        ("gpt2", {"layers": 2, "seq": 48}, 32),
        ("gpt2", {"layers": 2, "decode": True, "ctx": 48}, 32),
        ("llama-3-8b", {"layers": 1, "seq": 48}, 16),
        ("llama-3-8b", {"layers": 1, "seq": 48, "batch": 2, "bits": 8}, 8),
        ("llama-3-8b", {"layers": 2, "decode": True, "ctx": 48}, 16),
        ("mixtral-8x7b", {"layers": 1, "seq": 21, "batch": 2}, 16),
    ],
)
def test_the_zoo_is_what_transformers_does(huggingface: Frontend, zoo: Frontend, model: str, options: Options, bits: int) -> None:
    """Node by node: the same modules in the same order, the same figures, the same tensors between them; products in full."""
    traced, ours = huggingface.load(model, options), zoo.load(model, {**options, "bits": bits})
    assert [node.id for node in traced.nodes] == [node.id for node in ours.nodes]
    for one, other in zip(traced.nodes, ours.nodes, strict=True):
        mine, theirs = traced.operators[one.operator], ours.operators[other.operator]
        assert figures(mine) == figures(theirs), one.id
        if mine.is_contraction or mine.function in ("softmax", "layernorm", "rmsnorm", "gelu", "silu", "add", "gather"):
            assert mine == theirs, one.id
    assert traced.parameters == ours.parameters
    assert producers(traced) == producers(ours)


@pytest.mark.parametrize(
    ("model", "config"),
    [
        ("resnet50", {}),
        ("resnet18", {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]}),
    ],
)
def test_the_zoos_residual_networks_are_those_of_transformers(
    huggingface: Frontend, zoo: Frontend, tmp_path: Path, model: str, config: dict[str, object]
) -> None:
    """By other module names and in another order of the shortcuts: the same operators as often, the same parameters."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model_type": "resnet", "architectures": ["ResNetForImageClassification"], "num_labels": 1000, **config}))
    traced, ours = huggingface.load(str(file), {"size": 160}), zoo.load(model, {"size": 160, "bits": 32})
    counted = [Counter({task.operator: task.count for task in each.tasks if task.operator.is_contraction}) for each in (traced, ours)]
    assert counted[0] == counted[1]
    others = [Counter(figures(each.operators[node.operator]) for node in each.nodes) for each in (traced, ours)]
    assert others[0] == others[1]
    assert traced.parameters == ours.parameters


def tiny(folder: Path, kind: str, **fields: object) -> str:
    file = folder / "config.json"
    sizes = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    file.write_text(json.dumps({"model_type": kind, **sizes, **fields}))
    return str(file)


@pytest.mark.parametrize(
    ("kind", "fields", "layer"),
    [
        # MACs of a layer per token: projections and feed-forward.
        ("mistral", {"num_key_value_heads": 2, "sliding_window": 8}, 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64),
        ("gemma3_text", {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8}, 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64),
        ("falcon", {}, 2 * 32 * 32 + 2 * 32 * 8 + 2 * 32 * 128),  # one key/value head for all, which its configuration does not say
        ("cohere", {"num_key_value_heads": 2}, 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64),
        ("bloom", {}, 4 * 32 * 32 + 2 * 32 * 128),
    ],
)
def test_decoders_of_many_kinds(huggingface: Frontend, tmp_path: Path, kind: str, fields: dict[str, object], layer: int) -> None:
    """Grouped and single key/value heads, windows, other ways to write positions: projections in full, attention over the cache."""
    file = tiny(tmp_path, kind, **fields)
    context = 24
    for options, tokens in (({"seq": 12}, 12), ({"decode": True, "ctx": context, "batch": 2}, 2)):
        workload = huggingface.load(file, options)
        macs = [
            (each.operator.macs * each.count, each.operator.tensor(WEIGHTS).static)
            for each in workload.tasks
            if each.operator.is_contraction
        ]
        assert sum(each for each, static in macs if static) == tokens * 2 * layer, kind
        attention = sum(each for each, static in macs if not static)
        past = 12 if "seq" in options else min(context, int(str(fields.get("sliding_window", context))))
        assert attention in {tokens * 2 * 2 * 32 * keys for keys in (past, context)} or kind == "gemma3_text"


def test_a_model_of_images_and_texts(huggingface: Frontend, tmp_path: Path) -> None:
    """CLIP: both towers, and their projections."""
    text = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 50,
        "max_position_embeddings": 16,
    }
    seen = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model_type": "clip", "text_config": text, "vision_config": seen, "projection_dim": 24}))

    def layer(tokens: int, d: int) -> int:
        return 4 * tokens * d * d + 2 * tokens * tokens * d + 2 * tokens * d * 2 * d

    expected = layer(12, 32) + 32 * 24 + 16 * 3 * 8 * 8 * 48 + layer(17, 48) + 48 * 24 + 24  # the last: how alike they are
    assert huggingface.load(str(file), {"seq": 12}).macs == expected


def test_what_a_model_cannot_do_is_said(huggingface: Frontend, tmp_path: Path) -> None:
    """The library's own complaint, not a traceback."""
    with pytest.raises(InvalidInput, match="cannot be run: RuntimeError: Attempting to broadcast"):
        huggingface.load(tiny(tmp_path, "gptj", rotary_dim=64), {"seq": 8})
    with pytest.raises(InvalidInput, match="keeps no key/value cache, expected a decoder"):
        huggingface.load(tiny(tmp_path, "distilbert"), {"decode": True, "ctx": 8})


def test_weights_modules_and_words(huggingface: Frontend) -> None:
    workload = huggingface.load("llama-3-8b", {"layers": 1, "seq": 16})
    edges = {edge.name: edge for edge in workload.edges}
    for node in workload.nodes:
        operator = workload.operators[node.operator]
        if operator.is_contraction and operator.tensor(WEIGHTS).static:
            assert edges[node.tensors[WEIGHTS]].name == f"{node.module}.weight"
            assert {tensor.bits for tensor in operator.tensors} == {16}
    kinds = classify(workload)
    assert {name.rpartition(".")[2] for name, kind in kinds.items() if kind == PROJECTION} == {"q_proj", "k_proj", "v_proj", "o_proj"}


def products(workload: Workload) -> Counter[tuple[int, ...]]:
    """(G, P, C, K) of every product."""
    found: Counter[tuple[int, ...]] = Counter()
    for task in workload.tasks:
        bounds = task.operator.bounds
        if task.operator.is_contraction:
            found[bounds.get("G", 1) * bounds.get("H", 1), bounds["P"], bounds["C"], bounds["K"]] += task.count
    return found


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    family=st.sampled_from(("bert", "gpt2", "llama")),
    layers=st.integers(1, 3),
    heads=st.sampled_from((1, 2, 4, 6)),
    width=st.sampled_from((8, 16)),
    ffn=st.integers(8, 96),
    seq=st.integers(2, 40),
    batch=st.integers(1, 3),
    vocabulary=st.integers(20, 90),
    shared=st.sampled_from((1, 2)),
    past=st.integers(0, 9),
)
def test_small_transformers_equal_closed_forms(
    huggingface: Frontend, tmp_path_factory: Any, family: str, layers: int, heads: int, width: int, ffn: int, seq: int, batch: int,
    vocabulary: int, shared: int, past: int,
) -> None:  # fmt: skip
    d, kv = heads * width, heads // shared if family == "llama" and heads % shared == 0 else heads
    sizes = {
        "bert": {"hidden_size": d, "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": ffn},
        "gpt2": {"n_embd": d, "n_layer": layers, "n_head": heads, "n_inner": ffn},
        "llama": {"hidden_size": d, "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": ffn,
                  "num_key_value_heads": kv},
    }[family]  # fmt: skip
    classes = {"bert": "BertModel", "gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM"}
    file = tmp_path_factory.mktemp("config") / "config.json"
    file.write_text(json.dumps({"model_type": family, "architectures": [classes[family]], "vocab_size": vocabulary, **sizes}))
    decode = past and family != "bert"
    options: Options = {"decode": True, "ctx": past + 1, "batch": batch} if decode else {"seq": seq, "batch": batch}
    queries, keys = (1, past + 1) if decode else (seq, seq)
    rows, found = batch * queries, products(huggingface.load(str(file), options))
    expected: Counter[tuple[int, ...]] = Counter()
    for _ in range(layers):
        projections = {"bert": [d] * 3, "gpt2": [3 * d], "llama": [d, kv * width, kv * width]}[family]
        for k in projections:
            expected[1, rows, d, k] += 1
        expected[batch * heads, queries, width, keys] += 1
        expected[batch * heads, queries, keys, width] += 1
        expected[1, rows, d, d] += 1
        for _ in range(2 if family == "llama" else 1):
            expected[1, rows, d, ffn] += 1
        expected[1, rows, ffn, d] += 1
    if family == "bert":
        expected[1, batch, d, d] += 1
    else:
        expected[1, rows, d, vocabulary] += 1
    assert found == expected


def flop_counter(model: str, options: Options, attention: str) -> int:
    """What torch's own counter says of a model on the meta device."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from tilewright.plugins.frontends.huggingface.models import build, configure, plan, read

    wanted = plan(model, read(model), options)
    built, _ = build(*configure(wanted), attention)
    counter = FlopCounterMode(display=False)
    ids = torch.zeros(1, wanted.seq, dtype=torch.long, device="meta")
    with torch.no_grad(), counter:
        built(pixel_values=torch.zeros(1, 3, 224, 224, device="meta")) if built.main_input_name == "pixel_values" else built(input_ids=ids)
    total: int = counter.get_total_flops()
    return total


@pytest.mark.parametrize(
    ("model", "options", "attention"),
    [
        ("bert-base", {"seq": 128}, "eager"),
        ("gpt2", {"seq": 64, "layers": 3}, "eager"),
        ("llama-3-8b", {"seq": 64, "layers": 2}, "eager"),
        ("vit-base", {}, "eager"),
        ("resnet50", {}, ""),
    ],
)
def test_torch_counts_the_same_where_it_is_right(huggingface: Frontend, model: str, options: Options, attention: str) -> None:
    assert 2 * huggingface.load(model, options).macs == flop_counter(model, options, attention)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_how_attention_is_written_changes_no_product(huggingface: Frontend, attention: str) -> None:
    plain = products(huggingface.load("bert-base", {"layers": 1, "seq": 32}))
    assert products(huggingface.load("bert-base", {"layers": 1, "seq": 32, "attention": attention})) == plain


def test_encoder_decoders(huggingface: Frontend) -> None:
    """T5-small: encoder, decoder with self- and cross-attention, tied head; closed form of its products."""
    seq, tokens, d, ffn, inner, vocabulary, layers = 24, 10, 512, 2048, 512, 32128, 6
    workload = huggingface.load("t5-small", {"seq": seq, "decoder_seq": tokens})
    encoder = layers * (4 * seq * d * inner + 2 * seq * seq * inner + 2 * seq * d * ffn)
    own = 4 * tokens * d * inner + 2 * tokens * tokens * inner
    cross = 2 * tokens * d * inner + 2 * seq * d * inner + 2 * tokens * seq * inner
    decoder = layers * (own + cross + 2 * tokens * d * ffn)
    assert workload.macs == encoder + decoder + tokens * d * vocabulary
    step = huggingface.load("t5-small", {"decode": True, "ctx": 16})
    assert step.macs == layers * (4 * d * inner + 2 * 16 * inner + 2 * d * inner + 2 * 16 * inner + 2 * d * ffn) + d * vocabulary


SWEEPS = [
    ("bert-base", {"layers": 3}, "seq", [8, 20, 64, 512]),
    ("gpt2", {"layers": 3, "decode": True}, "ctx", [5, 1024, 17]),
    ("llama-3-8b", {"layers": 2, "seq": 16}, "batch", [1, 2, 7]),
    ("t5-small", {"layers": 2}, "seq", [8, 16, 40]),  # its first layer is another one than the second
    ("mixtral-8x7b", {"layers": 1}, "seq", [8, 9, 13]),  # rows per expert are rounded
]


@pytest.mark.parametrize(("model", "options", "swept", "values"), SWEEPS, ids=lambda value: value if isinstance(value, str) else "")
def test_sweeps_are_what_single_traces_are(huggingface: Any, model: str, options: Options, swept: str, values: list[int]) -> None:
    settings = [{**options, swept: value} for value in values]
    for found, alone in zip(huggingface.load_many(model, settings), [huggingface.load(model, each) for each in settings], strict=True):
        assert (found.operators, found.nodes, found.source, found.parameters) == (
            alone.operators,
            alone.nodes,
            alone.source,
            alone.parameters,
        )
        made = [[edge for edge in each.edges if edge.producer] for each in (found, alone)]
        assert made[0] == made[1]


def test_a_sweep_traces_once_in_full(huggingface: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tilewright.plugins.frontends.huggingface import sweeps

    layers, real = [], sweeps.trace

    def counted(plan: Any) -> Workload:
        layers.append(plan.layers)
        return real(plan)

    monkeypatch.setattr(sweeps, "trace", counted)
    huggingface.load_many("bert-base", [{"layers": 4, "seq": seq} for seq in (16, 32, 64, 128, 256, 512)])
    assert layers == [4, 1, 1]


def test_measured(huggingface: Any) -> None:
    """The products that torch's profiler saw are those of the workload."""
    options: Options = {"layers": 1, "seq": 16}
    found = huggingface.measure("bert-base", options, 1)
    measured = sum(each.flops for each in found.operators if each.name.startswith(("aten::addmm", "aten::mm")))
    workload = huggingface.load("bert-base", options)
    kinds = classify(workload)
    counted = sum(2 * workload.operators[node.operator].macs for node in workload.nodes if kinds[node.id] != ATTENTION)
    assert measured == counted
    assert huggingface.measure("gpt2", {"layers": 1, "decode": True, "ctx": 8}, 1).seconds > 0
    assert huggingface.measure("t5-small", {"layers": 1, "decode": True, "ctx": 8}, 1).seconds > 0


def test_a_folder(huggingface: Frontend, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    fields = {"model_type": "vit", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    (folder / "config.json").write_text(json.dumps({**fields, "image_size": 32, "patch_size": 8}))
    workload = huggingface.load(str(folder), {"batch": 2})
    tokens = 16 + 1
    block = 2 * (4 * tokens * 32 * 32 + 2 * tokens * tokens * 32 + 2 * tokens * 32 * 64)
    assert workload.name == "tiny"
    assert workload.macs == 2 * 16 * 3 * 8 * 8 * 32 + block + 2 * 32 * 32  # with its pooler


@pytest.mark.parametrize(
    ("fields", "options", "said"),
    [
        ("[1]", {}, "no model_type, expected a config.json of transformers"),
        ("{", {}, "expected a config.json of transformers"),
        (
            {"model_type": "bert", "auto_map": {"AutoModel": "own--code.Model"}},
            {},
            "auto_map: the model is code that comes with it (own--code.Model)",
        ),
        ({"model_type": "brt"}, {}, "model_type 'brt' is unknown to transformers"),
        ({"model_type": "bert", "architectures": ["BertModl"]}, {}, "has no model class 'BertModl'"),
        ({"model_type": "bert", "architectures": ["BertConfig"]}, {}, "has no model class 'BertConfig'"),
        ({"model_type": "bert", "quantization_config": {"quant_method": "gptq"}}, {}, "quantization_config: gptq"),
        ({"model_type": "bert", "dtype": "int8"}, {}, "expected float32, float16, bfloat16 or float64"),
        ({"model_type": "bert", "hidden_size": 30, "num_attention_heads": 7}, {}, "BertModel: cannot be built"),
        ({"model_type": "bert"}, {"seq": 0}, "seq: 0, expected an integer from 1"),
        ({"model_type": "bert"}, {"sequ": 3}, "option 'sequ': frontend huggingface has no such option; did you mean 'seq'?"),
        ({"model_type": "bert"}, {"ctx": 3}, "ctx: 3, expected only with decode=true"),
        ({"model_type": "bert"}, {"decode": True, "seq": 3}, "seq: 3, expected none with decode"),
        ({"model_type": "bert"}, {"attention": "flash"}, "attention: 'flash', expected one of sdpa, eager"),
        ({"model_type": "vit"}, {"decode": True}, "is an image model, expected a decoder"),
        ({"model_type": "vit"}, {"seq": 8}, "is an image model, expected no such option"),
        ({"model_type": "bert"}, {"size": 8}, "is no image model, expected no such option"),
        ({"model_type": "gpt2"}, {"decoder_seq": 8}, "is no encoder-decoder, expected no such option"),
        ({"model_type": "bert", "max_position_embeddings": 64}, {"seq": 65}, "seq: 65, expected at most 64 ("),
        ({"model_type": "gpt2"}, {"decode": True, "ctx": 1025}, "ctx: 1025, expected at most 1024 ("),
    ],
)
def test_bad_input(huggingface: Frontend, tmp_path: Path, fields: Any, options: Options, said: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(fields if isinstance(fields, str) else json.dumps(fields))
    with pytest.raises(InvalidInput) as caught:
        huggingface.load(str(file), options)
    assert said in str(caught.value)
