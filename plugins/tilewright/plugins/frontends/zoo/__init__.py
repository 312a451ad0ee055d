"""The model zoo: well-known networks as hyper-parameters, expanded to exact workloads for any batch and length.

Every number follows from ``models.yaml`` and the code beside it; nothing is downloaded. Operators come in execution
order under the module names of the reference implementations (transformers, torchvision), non-linear ones included, so
that operator counts, dims, MACs and compulsory bytes equal what a traced forward pass of those gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, ClassVar

import msgspec
import yaml

from tilewright.protocol.errors import InvalidInput, suggest
from tilewright.protocol.plugin import Options
from tilewright.protocol.workload import Workload

from .cnn import MobileNetV2, Vgg, mobilenet, vgg
from .graph import Graph
from .options import BITS, read_int, reject_unknown
from .resnet import ResNet, RetinaNet, resnet, retinanet
from .transformer import Transformer, bert, gpt2, llama
from .unet import UNet, unet
from .vision import Vision

#: Family -> how its configuration is read, and how it is expanded.
FAMILIES: Mapping[str, tuple[type[Transformer] | type[Vision], Callable[[Graph, Any], None]]] = {
    "bert": (Transformer, bert),
    "gpt2": (Transformer, gpt2),
    "llama": (Transformer, llama),
    "resnet": (ResNet, resnet),
    "retinanet": (RetinaNet, retinanet),
    "vgg": (Vgg, vgg),
    "mobilenet": (MobileNetV2, mobilenet),
    "unet": (UNet, unet),
}


class Zoo:
    """Frontend ``zoo``: a model by name."""

    options: ClassVar[dict[str, str]] = {
        "batch": "sequences or images processed at once (1)",
        "bits": "bits of a word of every weight and activation (8)",
        "size": "image models: rows and columns of an image",
        "seq": "transformers: tokens per sequence processed at once",
        "decode": "decoders: one new token per sequence, the others in the key/value cache (false)",
        "ctx": "decode: tokens per sequence, the new one included",
        "positions": "transformers: most tokens per sequence, where it is not to be the published one",
        "layers": "transformers: number of layers",
        "heads": "transformers: number of attention heads",
        "kv_heads": "Llama: number of key/value heads",
    }

    def models(self) -> Sequence[str]:
        """Names of the models."""
        return tuple(_models())

    def load(self, source: str, options: Options) -> Workload:
        """Expand a model; `InvalidInput` names the model or option that is wrong, and what was expected."""
        if source not in _models():
            raise InvalidInput(f"model {source!r} is not in the zoo{suggest(source, _models())}")
        fields = _models()[source]
        kind, expand = FAMILIES[fields["family"]]
        model = msgspec.convert(fields, kind)
        reject_unknown(source, options, model.option_names)
        graph = Graph(source, read_int(options, "bits", 8, BITS))
        expand(graph, model.configured(source, options))
        said = ", ".join(f"{name}={value}" for name, value in sorted(options.items()))
        return graph.build(f"zoo: {source}{f' ({said})' if said else ''}")


@cache
def _models() -> Mapping[str, Mapping[str, Any]]:
    text = resources.files(__package__).joinpath("models.yaml").read_text("utf-8")
    models: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return models
