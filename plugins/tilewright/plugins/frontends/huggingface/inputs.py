"""What a model is run on: token ids, images, audio features, and a cache that holds the tokens before."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from tilewright.protocol.errors import InvalidInput

from .models import Plan

#: Images of a configuration that does not say how large they are.
SIDE = 224
Run = Callable[..., Any]


def inputs(model: Any, plan: Plan, *, run: bool = False) -> dict[str, Any]:
    """Keyword arguments of the forward pass. Made under fake tensors; a decoder's cache is filled by shape only, or by a pass (`run`)."""
    import torch

    config, main = model.config, model.main_input_name
    ids = torch.zeros(plan.batch, plan.seq, dtype=torch.long)
    if main == "pixel_values":
        if plan.past is not None:
            raise InvalidInput(f"decode: {plan.name} is an image model, expected a decoder")
        _refuse(plan, "an image model", "seq", "decoder_seq")
        return {main: _image(config, plan, model.dtype)}
    both = hasattr(config, "vision_config") and not model.can_generate()
    if not both:
        _refuse(plan, "no image model", "size")
    if not config.is_encoder_decoder:
        _refuse(plan, "no encoder-decoder", "decoder_seq")
    _check_positions(config.get_text_config(decoder=True), plan)
    if config.is_encoder_decoder:
        return _encoder_decoder(model, plan, main)
    if main != "input_ids":
        raise InvalidInput(f"{plan.name}: its input is {main!r}, expected input_ids, pixel_values, or an encoder-decoder")
    if plan.past is None:
        return {"input_ids": ids, **({"pixel_values": _image(config.vision_config, plan, model.dtype)} if both else {})}
    if not (getattr(model, "can_generate", lambda: False)() or hasattr(config, "use_cache")):
        raise InvalidInput(f"decode: {plan.name} ({type(model).__name__}) keeps no key/value cache, expected a decoder")
    return {"input_ids": ids, cache_name(model): _cache(model, plan, run), "use_cache": True}


def cache_name(model: Any) -> str:
    """What the key/value cache is called among a model's arguments and in its output: `transformers` renamed it in 5.24."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def _refuse(plan: Plan, what: str, *names: str) -> None:
    for name in names:
        if name in plan.given:
            raise InvalidInput(f"{name}: {plan.name} is {what}, expected no such option")


def _check_positions(config: Any, plan: Plan) -> None:
    most, tokens = getattr(config, "max_position_embeddings", None), max(plan.seq, (plan.past or 0) + 1)
    if isinstance(most, int) and tokens > most:
        name = "seq" if plan.past is None else "ctx"
        raise InvalidInput(
            f"{name}: {tokens}, expected at most {most} ({plan.name} has {most} positions; the option positions gives it more)"
        )


def _image(config: Any, plan: Plan, dtype: Any) -> Any:
    import torch

    side = plan.size or getattr(config, "image_size", None) or SIDE
    high, wide = side if isinstance(side, list | tuple) else (side, side)
    return torch.zeros(plan.batch, getattr(config, "num_channels", 3), high, wide, dtype=dtype)


def _cache(model: Any, plan: Plan, run: bool) -> Any:
    """A cache with `plan.past` tokens per sequence."""
    import torch
    from transformers import DynamicCache

    config, past = model.config.get_text_config(decoder=True), plan.past or 0
    if past == 0:
        return DynamicCache(config=config)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if run or kinds != {"full_attention"} or getattr(config, "kv_lora_rank", None) or getattr(config, "sliding_window", None):
        ids = torch.zeros(plan.batch, past, dtype=torch.long)
        with torch.no_grad():
            return getattr(model(input_ids=ids, use_cache=True), cache_name(model))
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cache = DynamicCache(config=config)
    for layer in range(config.num_hidden_layers):
        kept = [torch.zeros(plan.batch, heads, past, width, dtype=model.dtype) for _ in range(2)]
        cache.update(*kept, layer)
    return cache


def _encoder_decoder(model: Any, plan: Plan, main: str) -> dict[str, Any]:
    import torch

    config = model.config
    if main == "input_features":
        frames = 2 * getattr(config, "max_source_positions", 1500)
        encoder = torch.zeros(plan.batch, config.num_mel_bins, frames, dtype=model.dtype)
    elif main == "input_ids":
        encoder = torch.zeros(plan.batch, plan.seq if plan.past is None else plan.past + 1, dtype=torch.long)
    else:
        raise InvalidInput(f"{plan.name}: its input is {main!r}, expected input_ids or input_features")
    tokens = plan.decoder_seq if plan.past is None else plan.past
    said = {main: encoder, "decoder_input_ids": torch.zeros(plan.batch, max(1, tokens), dtype=torch.long)}
    if plan.past is None:
        return said
    with torch.no_grad():
        before = model(**said, use_cache=True)
    from transformers.modeling_outputs import BaseModelOutput

    return {
        "encoder_outputs": BaseModelOutput(last_hidden_state=before.encoder_last_hidden_state),
        cache_name(model): getattr(before, cache_name(model)),
        "decoder_input_ids": torch.zeros(plan.batch, 1, dtype=torch.long),
        "use_cache": True,
    }
