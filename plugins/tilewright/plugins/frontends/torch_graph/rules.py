"""Which call is counted how. A call that is in no table, and is not element by element, is an error that names it."""

from __future__ import annotations

from functools import lru_cache

from . import others, products, windows
from .calls import Call, Step, Unknown
from .others import Rule, elementwise, reduction

#: Multiply-accumulates.
PRODUCTS: dict[str, Rule] = {
    "mm": products.mm,
    "addmm": products.addmm,
    "mv": products.mv,
    "dot": products.mv,
    "bmm": products.bmm,
    "baddbmm": products.baddbmm,
    "convolution": windows.convolution,
    "_scaled_dot_product_flash_attention_for_cpu": products.attention,
    "_scaled_dot_product_flash_attention": products.attention,
    "_scaled_dot_product_efficient_attention": products.attention,
    "_scaled_dot_product_attention_math": products.attention,
    "scaled_dot_product_attention": products.attention,
    "_grouped_mm": products.grouped_mm,
}
_WINDOWS: dict[str, Rule] = {
    "max_pool2d_with_indices": windows.max_pool,
    "avg_pool2d": windows.average_pool,
    "avg_pool1d": windows.average_pool,
    "_adaptive_avg_pool2d": windows.adaptive_pool,
    "upsample_nearest2d": others.upsample,
}
_NORMALIZATIONS: dict[str, Rule] = {
    "native_layer_norm": others.layer_norm,
    "_fused_rms_norm": others.rms_norm,
    "native_group_norm": others.group_norm,
    "native_batch_norm": others.batch_norm,
    "_native_batch_norm_legit_no_training": others.batch_norm,
    "cudnn_batch_norm": others.batch_norm,
    "_softmax": others.softmax,
    "_safe_softmax": others.softmax,
    "_log_softmax": others.softmax,
}
_ELEMENTWISE: dict[str, Rule] = {
    **{name: elementwise(name) for name in ("add", "mul", "relu", "silu", "tanh", "sigmoid", "gelu")},
    **{f"{name}_": elementwise(name) for name in ("add", "mul", "relu", "silu", "tanh", "sigmoid", "gelu")},
}
#: Element by element, though torch does not mark them as such.
_UNMARKED = (
    "hardswish",
    "hardswish_",
    "hardsigmoid",
    "hardsigmoid_",
    "polar",
    "_prelu_kernel",
    "glu",
    "native_dropout",
    "log_sigmoid_forward",
)
_DATA = (
    "_to_copy", "clone", "copy", "copy_", "index_select", "index_put", "index_put_", "_index_put_impl_", "scatter",
    "scatter_", "select_scatter", "slice_scatter", "constant_pad_nd", "flip", "roll", "repeat", "floor_divide", "take_along_dim",
    "upsample_bilinear2d", "upsample_bicubic2d", "masked_fill", "masked_fill_", "triu", "tril", "fill_", "zero_", "unfold", "im2col",
    "masked_scatter", "pixel_shuffle", "one_hot", "_unsafe_index", "channel_shuffle", "stack",
)  # fmt: skip
_REDUCTIONS = (
    "sum", "amax", "amin", "max", "min", "argmax", "argmin", "any", "all", "prod", "std", "var", "var_mean", "cumsum", "cumprod", "topk",
    "sort", "argsort", "histc", "bincount", "linalg_vector_norm", "logsumexp", "count_nonzero", "norm",
)  # fmt: skip
_MADE = ("arange", "zeros", "ones", "full", "scalar_tensor", "linspace", "eye", "zeros_like", "ones_like", "full_like", "new_zeros",
         "new_ones", "new_full", "rand", "randn", "randint", "rand_like", "randn_like", "bernoulli")  # fmt: skip
#: Nothing is computed or moved.
NOTHING = ("device", "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "sym_size", "sym_stride", "sym_numel",
           "sym_storage_offset", "_local_scalar_dense", "is_same_size", "lift_fresh", "lift_fresh_copy", "_assert_async", "_assert_scalar",
           "sym_constrain_range_for_size", "as_strided_", "t_", "transpose_", "squeeze_", "unsqueeze_")  # fmt: skip

RULES: dict[str, Rule] = {
    **PRODUCTS,
    **_WINDOWS,
    **_NORMALIZATIONS,
    **_ELEMENTWISE,
    **dict.fromkeys(_UNMARKED, elementwise("elementwise")),
    **dict.fromkeys(_DATA, elementwise("copy")),
    **dict.fromkeys(_REDUCTIONS, reduction("reduce")),
    "mean": reduction("mean"),
    **dict.fromkeys(_MADE, others.made),
    "embedding": others.gather,
    "index": others.pick,
    "gather": others.along,
    "cat": others.concatenate,
}


def base(name: str) -> str:
    """``mm`` of ``aten.mm.default``."""
    return name.split(".")[1] if "." in name else name


@lru_cache(maxsize=8192)
def steps(call: Call) -> tuple[Step, ...]:
    """The operators of a call; `Unknown` for one that cannot be counted."""
    name = base(call.name)
    if name in ("hardtanh", "hardtanh_"):
        limits = (call.argument(1, "min_val", -1), call.argument(2, "max_val", 1))
        return tuple(elementwise("relu6" if limits == (0, 6) else "elementwise")(call))
    if name in RULES:
        return tuple(RULES[name](call))
    if call.pointwise:
        return tuple(elementwise("elementwise")(call))
    shapes = ", ".join("x".join(map(str, each.shape)) or "scalar" for each in call.tensors)
    trained = " with trained parameters" if any(each.static for each in call.tensors) else ""
    raise Unknown(f"operator {call.name}{trained} on {shapes or 'no tensors'} is not one that can be counted")
