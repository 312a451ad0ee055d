"""The survey's counts against an independent script's, class by class, and its rules on models of one layer."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Convention, Frontend, Options
from tilewright.protocol.profile import Counted
from tilewright.protocol.steps import summed

REFERENCE: Any = json.loads(gzip.decompress((Path(__file__).parents[2] / "data/transformer_profile_reference.json.gz").read_bytes()))
CLASSES = {"mha_proj": "MHA projections", "mha_act2act": "act-to-act", "ffn_proj": "FFN", "other": "other"}
ZOO: Frontend = registry.load("frontends", "zoo")
SURVEY: Convention = registry.load("conventions", "survey")
STANDARD: Convention = registry.load("conventions", "standard")


def sums(items: Iterable[Counted]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for item in items:
        found[item.kind][0] += item.flops
        found[item.kind][1] += item.bytes
    return found


def count(model: str, options: Options, **said: bool) -> dict[str, list[float]]:
    return sums(SURVEY.count(ZOO.load(model, {"positions": 4096, **options} if not model.startswith("resnet") else options), {**said}))


@pytest.mark.parametrize("length", REFERENCE["paper"]["bert-base"])
@pytest.mark.parametrize(
    ("reference", "model", "options"),
    [
        ("bert-base", "bert-base", {}),
        ("bert-large", "bert-large", {}),
        ("bert-base-4head", "bert-base", {"heads": 4}),
        ("gpt2-prefill", "gpt2", {}),
    ],
)
def test_forward_passes(reference: str, model: str, options: Options, length: str) -> None:
    found = count(model, {"seq": int(length), **options})
    expected = REFERENCE["paper"][reference][length]
    assert {kind: found[ours] for kind, ours in CLASSES.items()} == expected
    assert set(found) == set(CLASSES.values())


@pytest.mark.parametrize("length", REFERENCE["paper"]["gpt2-decode-full-sequence"])
def test_generations_and_their_last_step(length: str) -> None:
    last = count("gpt2", {"decode": True, "ctx": int(length)})
    assert {kind: last[ours] for kind, ours in CLASSES.items()} == REFERENCE["paper"]["gpt2-decode-last-token"][length]
    whole = sums(summed(lambda ctx: SURVEY.count(ZOO.load("gpt2", {"decode": True, "ctx": ctx, "positions": 4096}), {}), 1, int(length)))
    assert {kind: whole[ours] for kind, ours in CLASSES.items()} == REFERENCE["paper"]["gpt2-decode-full-sequence"][length]


@pytest.mark.parametrize(("reference", "model"), [("v15", "resnet50"), ("v1", "resnet50-v1")])
def test_resnet(reference: str, model: str) -> None:
    expected = REFERENCE["resnet50"][reference]
    plain, fused = count(model, {}), count(model, {}, fused=True)
    for kind, ours in (("conv", "convolution"), ("batchnorm", "batch norm"), ("relu", "ReLU"), ("other", "other")):
        assert plain[ours] == expected[kind]
    assert [sum(each) for each in zip(*plain.values(), strict=True)] == expected["total_unfused"]
    assert [sum(each) for each in zip(*fused.values(), strict=True)] == expected["total_fused"]


@pytest.mark.parametrize(("length", "printed"), [("128", 106.11), ("512", 111.12), ("4096", 47.07)])
def test_external_traffic(length: str, printed: float) -> None:
    """Table 5's last row. The independent script has scales and shifts of normalizations in 8 bit, with 5 d bytes per layer for 16 d."""
    items = SURVEY.count(ZOO.load("bert-base", {"seq": int(length), "positions": 4096}), {})
    flops, moved = sum(item.flops for item in items), sum(item.external_bytes or 0 for item in items)
    assert flops / moved == pytest.approx(printed, abs=0.005)
    assert flops / (moved - 12 * 11 * 768) == pytest.approx(REFERENCE["nonideal_ai"][length]["total"], rel=1e-12)


def test_a_fused_projection_is_three() -> None:
    """GPT-2 has queries, keys and values in one product; BERT has three: the same layer, the same counts."""
    one = count("gpt2", {"seq": 64, "layers": 1})
    three = count("bert-base", {"seq": 64, "layers": 1})
    assert one["MHA projections"] == three["MHA projections"]


@pytest.mark.parametrize("length", ["128", "4096"])
def test_the_standard_convention_counts_two_operations_per_multiply_accumulate(length: str) -> None:
    workload = ZOO.load("bert-base", {"seq": int(length), "positions": 4096})
    found = sums(STANDARD.count(workload, {}))
    expected = REFERENCE["std"]["bert-base"][length]
    names = {"mha_proj": "attention projections", "mha_act2act": "attention products", "ffn_proj": "feed-forward"}
    assert {kind: found[ours][0] for kind, ours in names.items()} == {kind: expected[kind][0] for kind in names}
    assert sum(each[0] for each in found.values()) == sum(task.count * task.operator.flops for task in workload.tasks)
    assert sum(each[1] for each in found.values()) == sum(
        task.count * (task.operator.read_bytes + task.operator.write_bytes) for task in workload.tasks
    )


def test_classes_of_grouped_queries_and_experts() -> None:
    workload = ZOO.load("mixtral-8x7b", {"seq": 16, "layers": 1})
    kinds = {item.node: item.kind for item in STANDARD.count(workload, {})}
    assert {kinds[f"model.layers.0.self_attn.{name}_proj"] for name in "qkvo"} == {"attention projections"}
    assert kinds["model.layers.0.mlp.gate"] == "feed-forward"
    assert kinds["lm_head"] == "linear"
    assert kinds["model.norm"] == "normalization"


def test_bad_options() -> None:
    with pytest.raises(InvalidInput, match="fused: 1, expected true or false"):
        SURVEY.count(ZOO.load("resnet50", {}), {"fused": 1})
