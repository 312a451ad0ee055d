"""From a configuration to a model on the meta device, and what it is run on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tilewright.protocol.errors import InvalidInput, suggest
from tilewright.protocol.plugin import Options

CONFIG = "config.json"
#: Largest configuration file, in bytes.
MAX_BYTES = 4 << 20
DEFAULT_SEQ = 128
#: Names under which configurations keep the number of layers.
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers", "decoder_layers", "num_decoder_layers")
POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_target_positions")
ATTENTION = ("sdpa", "eager")
#: Most modules of a model; the largest published ones have a few thousand (or one per expert).
MAX_MODULES = 100_000
_LIMIT = 1 << 24


class Plan(NamedTuple):
    """A model and how it is run."""

    name: str
    #: Fields of the configuration, ``model_type`` or ``class`` among them.
    fields: dict[str, Any]
    class_name: str
    seq: int
    decoder_seq: int
    batch: int
    bits: int
    #: Tokens in the cache already; None: no decoding.
    past: int | None
    size: int | None
    layers: int | None
    attention: str
    #: Names of the options that were given.
    given: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        """How it is run, in words."""
        length = f"seq={self.seq}" if self.past is None else f"decode, ctx={self.past + 1}"
        return f"huggingface: {self.name} ({self.class_name or self.fields.get('model_type')}, batch={self.batch}, {length})"


@cache
def named() -> Mapping[str, Mapping[str, Any]]:
    """Configurations that come with us."""
    text = resources.files(__package__).joinpath("models.yaml").read_text("utf-8")
    models: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return models


def read(source: str) -> dict[str, Any]:
    """Fields of a configuration by name, file or folder; `InvalidInput` says what is wrong with it."""
    if source in named():
        model = named()[source]
        return {**model["config"], "architectures": [model["class"]], "seq": model.get("seq", DEFAULT_SEQ)}
    path = Path(source)
    if path.is_dir():
        path = path / CONFIG
    if not path.is_file():
        raise InvalidInput(f"model {source!r}: neither a file, nor a folder with a {CONFIG}, nor a name{suggest(source, named())}")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InvalidInput(f"{path}: more than {MAX_BYTES} bytes, expected a {CONFIG} of transformers")
        fields = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{path}: {error}; expected a {CONFIG} of transformers") from error
    if not isinstance(fields, dict) or not ("model_type" in fields or fields.get("architectures")):
        raise InvalidInput(f"{path}: no model_type, expected a {CONFIG} of transformers")
    named_classes = fields.get("architectures") or []
    if not isinstance(named_classes, list) or not all(isinstance(each, str) for each in named_classes):
        raise InvalidInput(f"{path}: architectures: {str(named_classes)[:60]}, expected a list of names")
    if fields.get("auto_map"):
        raise InvalidInput(
            f"{path}: auto_map: the model is code that comes with it ({_first(fields['auto_map'])}), which is never run here"
        )
    if fields.get("quantization_config"):
        method = fields["quantization_config"].get("quant_method") if isinstance(fields["quantization_config"], dict) else None
        raise InvalidInput(
            f"{path}: quantization_config: {method or 'present'}, expected a model without; say the word width with the option bits"
        )
    return fields


def _first(value: Any) -> str:
    return str(next(iter(value.values()))) if isinstance(value, dict) and value else str(value)


def plan(source: str, fields: dict[str, Any], options: Options) -> Plan:
    """What is to be run; `InvalidInput` names the option that is wrong."""
    fields = dict(fields)
    default = fields.pop("seq", DEFAULT_SEQ) if source in named() else DEFAULT_SEQ
    architectures = fields.get("architectures") or [""]
    decode = options.get("decode", False)
    if not isinstance(decode, bool):
        raise InvalidInput(f"decode: {decode!r}, expected true or false")
    if decode and "seq" in options:
        raise InvalidInput(f"seq: {options['seq']!r}, expected none with decode: give the tokens per sequence as ctx")
    if not decode and "ctx" in options:
        raise InvalidInput(f"ctx: {options['ctx']!r}, expected only with decode=true; without it give seq")
    seq = 1 if decode else _integer(options, "seq", default)
    if "positions" in options:
        fields = _replaced(fields, POSITIONS, _integer(options, "positions", 1), source)
    attention = options.get("attention", "")
    if attention not in ("", *ATTENTION):
        raise InvalidInput(f"attention: {attention!r}, expected one of {', '.join(ATTENTION)}")
    return Plan(
        name=source if source in named() else (Path(source).stem if Path(source).name != CONFIG else Path(source).resolve().parent.name),
        fields=fields,
        class_name=str(options.get("class", architectures[0])),
        seq=seq,
        decoder_seq=_integer(options, "decoder_seq", seq),
        batch=_integer(options, "batch", 1),
        bits=_integer(options, "bits", 0) if "bits" in options else 0,
        past=_integer(options, "ctx", default) - 1 if decode else None,
        size=_integer(options, "size", 1) if "size" in options else None,
        layers=_integer(options, "layers", 1) if "layers" in options else None,
        attention=str(attention),
        given=tuple(sorted(options)),
    )


def _integer(options: Options, name: str, default: int) -> int:
    value = options.get(name, default)
    high = 64 if name == "bits" else _LIMIT
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= high:
        raise InvalidInput(f"{name}: {value!r}, expected an integer from 1 to {high}")
    return value


def _replaced(fields: dict[str, Any], names: tuple[str, ...], value: int, source: str) -> dict[str, Any]:
    known = [name for name in names if name in fields]
    return {**fields, **dict.fromkeys(known or names[:1], value)}


def configure(plan: Plan) -> tuple[Any, Any]:
    """The configuration object and the class to build; `InvalidInput` when transformers has no such model."""
    try:
        import transformers
    except ImportError as error:
        raise InvalidInput(f"frontend huggingface needs transformers ({error}); install tilewright with the extra frontends") from error
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    model = getattr(transformers, plan.class_name, None) if plan.class_name else None
    if plan.class_name and not (isinstance(model, type) and issubclass(model, transformers.PreTrainedModel)):
        raise InvalidInput(f"{plan.name}: transformers {transformers.__version__} has no model class {plan.class_name!r}")
    fields = {name: value for name, value in plan.fields.items() if name not in ("model_type", "architectures", "transformers_version")}
    kind = plan.fields.get("model_type")
    if kind is not None and kind not in CONFIG_MAPPING:
        near = suggest(str(kind), CONFIG_MAPPING.keys())
        raise InvalidInput(f"{plan.name}: model_type {kind!r} is unknown to transformers {transformers.__version__}{near}")
    factory: Any = CONFIG_MAPPING[kind] if kind is not None else getattr(model, "config_class", None)
    try:
        config = factory(**fields)
    except Exception as error:  # the library checks what it is given in many ways
        raise InvalidInput(f"{plan.name}: transformers refuses the configuration: {type(error).__name__}: {error}") from error
    if plan.layers is not None:
        shorten(config, plan.layers)
    if model is None:
        from transformers.models.auto.modeling_auto import MODEL_MAPPING

        if type(config) not in MODEL_MAPPING:
            raise InvalidInput(
                f"{plan.name}: transformers has no model for model_type {kind!r}, expected architectures in the configuration"
            )
        model = MODEL_MAPPING[type(config)]
    return config, model


def shorten(config: Any, layers: int) -> None:
    """Give a configuration that many layers."""
    names = [name for name in LAYERS if isinstance(config.to_dict().get(config.attribute_map.get(name, name)), int)]
    if not names:
        raise InvalidInput(f"layers: {layers}: the configuration {type(config).__name__} does not say how many it has")
    kinds = getattr(config, "layer_types", None)
    for name in names:
        setattr(config, config.attribute_map.get(name, name), layers)
    if isinstance(kinds, list) and not isinstance(getattr(type(config), "layer_types", None), property):
        config.layer_types = kinds[:layers]


def build(config: Any, model: Any, attention: str) -> tuple[Any, int]:
    """The model on the meta device, and the width of a word where it is not that of its type (else 0)."""
    import torch

    dtype = getattr(config, "dtype", None) or torch.float32
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype, None)
    if dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        raise InvalidInput(
            f"dtype: {config.dtype!r}, expected float32, float16, bfloat16 or float64; say other word widths with the option bits"
        )
    bits = 0
    if dtype == torch.float32 and any("expert" in name for name in config.to_dict()):
        # The library's grouped product exists for bfloat16 only; the words are as wide as they should be all the same.
        dtype, bits = torch.bfloat16, 32
    config.dtype = dtype
    try:
        with torch.device("meta"), _bounded(model.__name__):
            said = {"attn_implementation": attention} if attention else {}
            made = model._from_config(config, dtype=dtype, **said)
    except InvalidInput:
        raise
    except Exception as error:  # whatever a model's constructor does not like
        raise InvalidInput(f"{model.__name__}: cannot be built from its configuration: {type(error).__name__}: {error}") from error
    return made.eval(), bits


@contextmanager
def _bounded(name: str) -> Iterator[None]:
    """Inside, a model of more than `MAX_MODULES` modules is refused before it fills the memory."""
    from torch.nn.modules.module import register_module_module_registration_hook

    count = itertools.count(1)

    def hook(module: Any, label: str, part: Any) -> None:
        if next(count) > MAX_MODULES:
            raise InvalidInput(f"{name}: more than {MAX_MODULES} modules, expected a configuration with fewer layers")

    handle = register_module_module_registration_hook(hook)
    try:
        yield
    finally:
        handle.remove()
