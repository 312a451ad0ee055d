"""Models of the transformers library, from a configuration alone: no weights, no network, no code but the library's own.

The model is built on the meta device, given fake tensors, and run once while the frontend ``torch`` records it. A configuration
that needs code of its own (``auto_map``) is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput, suggest
from tilewright.protocol.plugin import Options
from tilewright.protocol.profile import Measurement
from tilewright.protocol.workload import Workload

from .inputs import inputs
from .models import Plan, build, configure, named, plan, read
from .sweeps import forward, many, trace


class HuggingFace:
    """Frontend ``huggingface``: a ``config.json``, a folder with one, or a model by name."""

    uses: ClassVar[tuple[str, ...]] = ("frontends:torch",)
    options: ClassVar[dict[str, str]] = {
        "batch": "sequences or images processed at once (1)",
        "bits": "bits of a word of every weight and activation (those of the configuration's type)",
        "seq": "tokens per sequence processed at once (128)",
        "decode": "decoders: one new token per sequence, the others in the key/value cache (false)",
        "ctx": "decode: tokens per sequence, the new one included",
        "decoder_seq": "encoder-decoders: tokens of the decoder (as many as seq)",
        "size": "image models: rows and columns of an image (those of the configuration)",
        "class": "class of transformers that is built (the configuration's first architecture)",
        "layers": "number of layers (that of the configuration)",
        "attention": "how attention is written: sdpa (one call) or eager (products and a softmax); the library's choice",
        "positions": "most tokens per sequence (that of the configuration)",
    }

    def models(self) -> Sequence[str]:
        """Names of the configurations that come with us."""
        return tuple(named())

    def load(self, source: str, options: Options) -> Workload:
        """Trace one forward pass; `InvalidInput` for what is not a model of transformers, or an option that it cannot have."""
        return trace(self._plan(source, options))

    def load_many(self, source: str, options: Sequence[Options]) -> list[Workload]:
        """As many `load`, but a model is traced in full once where that is enough (see `sweeps`)."""
        return many([self._plan(source, each) for each in options])

    def measure(self, source: str, options: Options, repeats: int) -> Measurement:
        """Run the model with random weights on this CPU."""
        plan = self._plan(source, options)
        working = max(operator.read_bytes + operator.write_bytes for operator in trace(plan).operators)
        model, _ = build(*configure(plan), plan.attention)
        runner = registry.load("frontends", "torch")
        found: Measurement = runner.run(plan.name, model, lambda real: ((), inputs(real, plan)), repeats, working=working)
        return found

    def forward(self, source: str, options: Options, watch: AbstractContextManager[Any], *, device: str = "cpu") -> None:
        """One forward pass inside of `watch`, for other counters: on fake tensors of the CPU, or on the meta device."""
        forward(self._plan(source, options), watch, device=device)

    def _plan(self, source: str, options: Options) -> Plan:
        for name in options:
            if name not in self.options:
                raise InvalidInput(f"option {name!r}: frontend huggingface has no such option{suggest(name, self.options)}")
        return plan(source, read(source), options)
