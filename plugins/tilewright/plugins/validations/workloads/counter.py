"""Against torch's own counter (``torch.utils.flop_counter.FlopCounterMode``): where it is right, and which operators it misses.

The counter knows the operators of its registry. A pass in which every contraction is one of them is a case, and must agree to the
last operation. Other passes are not cases: they are listed with the operators that the counter misses, and what those make up; should
the rest not be what it counted, that is a case with an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Options
from tilewright.protocol.profile import ATTENTION, classify
from tilewright.protocol.validation import ValidationReport
from tilewright.protocol.workload import WEIGHTS, Workload

COUNTER = "torch.utils.flop_counter"
#: Models and options of the frontend ``huggingface``; large ones with few layers, which are all alike.
PASSES: tuple[tuple[str, Options], ...] = (
    ("bert-base", {"seq": 128}),
    ("bert-base", {"seq": 512}),
    ("gpt2", {"seq": 1024}),
    ("gpt2", {"decode": True, "ctx": 1024}),
    ("llama-3-8b", {"seq": 2048, "layers": 2}),
    ("llama-3-8b", {"decode": True, "ctx": 2048, "layers": 2}),
    ("mixtral-8x7b", {"seq": 2048, "layers": 2}),
    ("vit-base", {}),
    ("t5-small", {"seq": 128}),
    ("whisper-tiny", {"seq": 64}),
    ("resnet50", {}),
)
#: How a pass runs: its name, the device, how attention is written.
WAYS = (
    ("CPU", "cpu", "sdpa"),
    ("CPU, eager attention", "cpu", "eager"),
    ("meta device", "meta", "sdpa"),
)


class Pass(NamedTuple):
    """One forward pass, counted by both."""

    name: str
    #: Operations that the counter found, that we found, and those of ours that it cannot know.
    counted: int
    ours: int
    beyond: int
    #: Operators that it does not know.
    missed: tuple[str, ...]

    @property
    def error(self) -> float:
        """Relative difference where it should agree."""
        return abs(self.ours - self.beyond - self.counted) / self.ours


def report(suite: str) -> ValidationReport:
    """All passes; `InvalidInput` without torch or transformers."""
    errors: list[float] = []
    groups: dict[str, ValidationReport] = {}
    skipped = 0
    for each in passes():
        wrong = each.beyond and not each.error
        if not wrong:
            errors.append(each.error)
        skipped += bool(wrong)
        groups[_said(each)] = ValidationReport.of(suite, COUNTER, [] if wrong else [each.error], skipped=int(bool(wrong)))
    return ValidationReport.of(suite, COUNTER, errors, skipped=skipped, groups=groups)


def _said(each: Pass) -> str:
    if not each.missed:
        return f"{each.name}: {each.ours / 1e9:.6g} GFLOPs"
    share = each.counted / each.ours
    return f"{each.name}: the counter has {each.counted / 1e9:.6g} of {each.ours / 1e9:.6g} GFLOPs ({100 * share:.1f} %); it misses " + (
        ", ".join(each.missed)
    )


def passes() -> Iterator[Pass]:
    """Every model in every way that it has."""
    try:
        from torch.utils.flop_counter import FlopCounterMode
    except ImportError as error:
        raise InvalidInput(f"against: torch needs torch ({error}); install tilewright with the extra frontends") from error
    frontend = registry.load("frontends", "huggingface")
    for model, options in PASSES:
        for way, device, attention in WAYS:
            asked = {**options, "attention": attention} if model != "resnet50" else options
            if model == "resnet50" and attention == "eager":
                continue
            counter, seen = FlopCounterMode(display=False), seen_by()
            frontend.forward(model, asked, _Both(seen, counter), device=device)
            missed = tuple(sorted(seen.names & MISSED.keys()))
            workload = frontend.load(model, asked)
            said = " ".join(f"{name}={value}" for name, value in options.items())
            yield Pass(
                f"{model} {said}".strip() + f", {way}",
                int(counter.get_total_flops()),
                2 * workload.macs,
                2 * sum(MISSED[name](workload) for name in missed),
                missed,
            )


def attention(workload: Workload) -> int:
    """MACs of products of activations."""
    kinds = classify(workload)
    return sum(workload.operators[node.operator].macs for node in workload.nodes if kinds[node.id] == ATTENTION)


def experts(workload: Workload) -> int:
    """MACs of products in which every group has weights of its own."""
    operators = (workload.operators[node.operator] for node in workload.nodes)
    return sum(each.macs for each in operators if each.is_contraction and each.tensor(WEIGHTS).static and "G" in each.bounds)


#: Contractions that may be absent from the counter's registry -> our MACs of them.
MISSED = {"_scaled_dot_product_flash_attention_for_cpu": attention, "_grouped_mm": experts}


class _Both:
    """Two modes as one."""

    def __init__(self, outer: Any, inner: Any) -> None:
        self._modes = (outer, inner)

    def __enter__(self) -> None:
        for mode in self._modes:
            mode.__enter__()

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)


def seen_by() -> Any:
    """A mode that keeps the names of the operators outside of the counter's registry."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    class Seen(TorchDispatchMode):  # type: ignore[no-untyped-call]
        """Sees every call."""

        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.names: set[str] = set()

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func._overloadpacket not in flop_registry:
                self.names.add(func._overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    return Seen()
