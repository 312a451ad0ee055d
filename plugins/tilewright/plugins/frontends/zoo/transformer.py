"""BERT, GPT-2 and Llama, layer by layer in execution order, under the module names of their reference implementations."""

from __future__ import annotations

import msgspec

from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Options
from tilewright.protocol.workload import INPUTS, OUTPUTS, Dim, Operator, Tensor, elementwise

from .attention import Heads, attend, cached
from .graph import Graph
from .layers import ID_BITS, broadcast, concatenate, convert, embedding, layernorm, linear, pointwise, positions, rank
from .moe import mixture
from .options import BATCH, LAYERS, POSITIONS, Limits, read_flag, read_int

#: Rotary angles are computed in single precision whatever the model's word is.
ANGLE_BITS = 32


class Transformer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hyper-parameters of a transformer, and how it is run."""

    family: str
    layers: int
    hidden: int
    heads: int
    #: Width of the feed-forward layer.
    ffn: int
    vocabulary: int
    #: Largest number of tokens per sequence.
    positions: int
    #: Tokens per sequence that are processed at once (1 when decoding).
    seq: int
    #: Key/value heads; 0: as many as heads.
    kv_heads: int = 0
    #: Tokens in the cache already.
    past: int = 0
    batch: int = 1
    #: Token types that BERT tells apart.
    types: int = 2
    #: Experts of each feed-forward layer, of which `active` work on a token; 0: it is one dense layer.
    experts: int = 0
    active: int = 2

    @property
    def rows(self) -> int:
        """Tokens processed at once, all sequences together."""
        return self.batch * self.seq

    @property
    def attention(self) -> Heads:
        """Sizes of the attention."""
        return Heads(self.batch, self.heads, self.kv_heads or self.heads, self.hidden // self.heads, self.seq, self.past + self.seq)

    @property
    def option_names(self) -> tuple[str, ...]:
        """Options that this model takes."""
        decodes = ("decode", "ctx") if self.family != "bert" else ()
        return ("batch", "bits", "seq", *decodes, "positions", "layers", "heads", *(("kv_heads",) if self.kv_heads else ()))

    def configured(self, name: str, options: Options) -> Transformer:
        """The model as `options` want it; `InvalidInput` names the option, the value and the limit."""
        heads = read_int(options, "heads", self.heads, Limits(1, self.hidden))
        if self.hidden % heads:
            raise InvalidInput(f"heads: {heads}, expected a divisor of {name}'s hidden size {self.hidden}")
        kv_heads = read_int(options, "kv_heads", self.kv_heads, Limits(1, heads)) if self.kv_heads else 0
        if kv_heads and heads % kv_heads:
            raise InvalidInput(f"kv_heads: {kv_heads}, expected a divisor of the {heads} heads")
        if self.family == "llama" and (self.hidden // heads) % 2:
            raise InvalidInput(f"heads: {heads} makes heads of {self.hidden // heads} channels, expected an even number (rotary pairs)")
        positions = read_int(options, "positions", self.positions, POSITIONS)
        tokens = Limits(1, positions, f"{name} has {positions} positions")
        if read_flag(options, "decode"):
            if "seq" in options:
                raise InvalidInput(f"seq: {options['seq']!r}, expected none with decode: give the tokens per sequence as ctx")
            seq, past = 1, read_int(options, "ctx", min(self.seq, positions), tokens) - 1
        elif "ctx" in options:
            raise InvalidInput(f"ctx: {options['ctx']!r}, expected only with decode=true; without it give seq")
        else:
            seq, past = read_int(options, "seq", min(self.seq, positions), tokens), 0
        return msgspec.structs.replace(
            self,
            positions=positions,
            layers=read_int(options, "layers", self.layers, LAYERS),
            batch=read_int(options, "batch", 1, BATCH),
            heads=heads,
            kv_heads=kv_heads,
            seq=seq,
            past=past,
        )


def bert(graph: Graph, model: Transformer) -> None:
    """BERT with its pooler and without a language-model head."""
    rows, d, heads = model.rows, model.hidden, model.attention
    shape = {"P": rows, "K": d}
    ids = graph.input("input_ids", (rows,), ID_BITS)
    places = graph.input("position_ids", (model.seq,), ID_BITS)
    kinds = _token_types(graph, model)
    x = embedding(graph, "embeddings.word_embeddings", ids, rows, model.vocabulary, d)
    stored = model.seq if model.batch > 1 else None
    kind = embedding(graph, "embeddings.token_type_embeddings", kinds, rows, model.types, d, stored=stored)
    x = pointwise(graph, "embeddings", "add", shape, x, kind)
    x = _add_positions(
        graph, "embeddings", model, x, embedding(graph, "embeddings.position_embeddings", places, model.seq, model.positions, d)
    )
    x = layernorm(graph, "embeddings.LayerNorm", x, rows, d)
    for i in range(model.layers):
        at = f"encoder.layer.{i}"
        q = linear(graph, f"{at}.attention.self.query", x, rows, d, d, view=heads.q_view)
        k = linear(graph, f"{at}.attention.self.key", x, rows, d, d, view=heads.k_view)
        v = linear(graph, f"{at}.attention.self.value", x, rows, d, d, view=heads.v_view)
        mixed = attend(graph, f"{at}.attention.self", heads, q, k, v)
        y = linear(graph, f"{at}.attention.output.dense", mixed, rows, d, d)
        x = layernorm(graph, f"{at}.attention.output.LayerNorm", pointwise(graph, f"{at}.attention.output", "add", shape, y, x), rows, d)
        y = linear(graph, f"{at}.intermediate.dense", x, rows, d, model.ffn)
        y = pointwise(graph, f"{at}.intermediate.intermediate_act_fn", "gelu", {"P": rows, "K": model.ffn}, y)
        y = linear(graph, f"{at}.output.dense", y, rows, model.ffn, d)
        x = layernorm(graph, f"{at}.output.LayerNorm", pointwise(graph, f"{at}.output", "add", shape, y, x), rows, d)
    pooled = linear(graph, "pooler.dense", x, model.batch, d, d)
    pointwise(graph, "pooler.activation", "tanh", {"P": model.batch, "K": d}, pooled)


def gpt2(graph: Graph, model: Transformer) -> None:
    """GPT-2 with its (tied) language-model head and its key/value cache."""
    rows, d, heads = model.rows, model.hidden, model.attention
    shape = {"P": rows, "K": d}
    ids = graph.input("input_ids", (rows,), ID_BITS)
    x = embedding(graph, "transformer.wte", ids, rows, model.vocabulary, d)
    places = positions(graph, "transformer", model.seq)
    x = _add_positions(graph, "transformer", model, x, embedding(graph, "transformer.wpe", places, model.seq, model.positions, d))
    for i in range(model.layers):
        at = f"transformer.h.{i}"
        y = layernorm(graph, f"{at}.ln_1", x, rows, d)
        qkv = linear(graph, f"{at}.attn.c_attn", y, rows, d, 3 * d)
        k = cached(graph, f"{at}.attn", heads, qkv, "key", transposed=True)
        v = cached(graph, f"{at}.attn", heads, qkv, "value", transposed=False)
        y = linear(graph, f"{at}.attn.c_proj", attend(graph, f"{at}.attn", heads, qkv, k, v), rows, d, d)
        x = pointwise(graph, at, "add", shape, y, x)
        y = layernorm(graph, f"{at}.ln_2", x, rows, d)
        y = linear(graph, f"{at}.mlp.c_fc", y, rows, d, model.ffn)
        y = pointwise(graph, f"{at}.mlp.act", "gelu", {"P": rows, "K": model.ffn}, y)
        x = pointwise(graph, at, "add", shape, x, linear(graph, f"{at}.mlp.c_proj", y, rows, model.ffn, d))
    x = layernorm(graph, "transformer.ln_f", x, rows, d)
    linear(graph, "lm_head", x, rows, d, model.vocabulary, bias=False, weight="transformer.wte.weight")


def llama(graph: Graph, model: Transformer) -> None:
    """Llama 3, or Mixtral: language-model head, rotary positions, grouped queries, key/value cache, dense or expert layers."""
    rows, d, heads = model.rows, model.hidden, model.attention
    shape, narrow = {"P": rows, "K": d}, heads.kv * heads.d
    ids = graph.input("input_ids", (rows,), ID_BITS)
    x = embedding(graph, "model.embed_tokens", ids, rows, model.vocabulary, d)
    angles = _rotary_tables(graph, model)
    for i in range(model.layers):
        at = f"model.layers.{i}"
        y = _rmsnorm(graph, f"{at}.input_layernorm", x, rows, d)
        q = linear(graph, f"{at}.self_attn.q_proj", y, rows, d, d, bias=False, view=heads.q_view)
        k = linear(graph, f"{at}.self_attn.k_proj", y, rows, d, narrow, bias=False, view=heads.v_view)
        v = linear(graph, f"{at}.self_attn.v_proj", y, rows, d, narrow, bias=False, view=heads.v_view)
        q = _rotate(graph, f"{at}.self_attn", model, q, heads.heads, angles)
        k = _rotate(graph, f"{at}.self_attn", model, k, heads.kv, angles)
        k = cached(graph, f"{at}.self_attn", heads, k, "key", transposed=True)
        v = cached(graph, f"{at}.self_attn", heads, v, "value", transposed=False)
        mixed = attend(graph, f"{at}.self_attn", heads, q, k, v)
        x = pointwise(graph, at, "add", shape, x, linear(graph, f"{at}.self_attn.o_proj", mixed, rows, d, d, bias=False))
        y = _rmsnorm(graph, f"{at}.post_attention_layernorm", x, rows, d)
        y = (
            mixture(graph, f"{at}.mlp", y, rows, d, model.ffn, model.experts, model.active)
            if model.experts
            else _gated(graph, f"{at}.mlp", y, rows, d, model.ffn)
        )
        x = pointwise(graph, at, "add", shape, x, y)
    x = _rmsnorm(graph, "model.norm", x, rows, d)
    linear(graph, "lm_head", x, rows, d, model.vocabulary, bias=False)


def _add_positions(graph: Graph, module: str, model: Transformer, x: str, table: str) -> str:
    """Add one row per position to every sequence."""
    if model.batch == 1:
        return pointwise(graph, module, "add", {"P": model.seq, "K": model.hidden}, x, table)
    return broadcast(graph, module, "add", {"N": model.batch, "P": model.seq, "K": model.hidden}, x, table, ("P", "K"))


def _token_types(graph: Graph, model: Transformer) -> str:
    """Type ids of a sequence, picked from the buffer that has one per position; all sequences use the same ones."""
    operator = Operator(
        dims=(Dim("P", model.seq),),
        tensors=(
            Tensor(INPUTS, (rank("P", extent=model.positions),), ID_BITS),
            Tensor("Index", (rank("P"),), ID_BITS),
            Tensor(OUTPUTS, (rank("P"),), ID_BITS),
        ),
        function="copy",
    )
    buffer = graph.input("embeddings.token_type_ids", (model.positions,), ID_BITS)
    return graph.add("embeddings", operator, {INPUTS: buffer, "Index": "position_ids"})


def _gated(graph: Graph, module: str, x: str, rows: int, d: int, ffn: int) -> str:
    """``down(silu(gate(x)) * up(x))``."""
    wide = {"P": rows, "K": ffn}
    gate = pointwise(graph, f"{module}.act_fn", "silu", wide, linear(graph, f"{module}.gate_proj", x, rows, d, ffn, bias=False))
    y = pointwise(graph, module, "mul", wide, gate, linear(graph, f"{module}.up_proj", x, rows, d, ffn, bias=False))
    return linear(graph, f"{module}.down_proj", y, rows, ffn, d, bias=False)


def _rmsnorm(graph: Graph, module: str, x: str, p: int, k: int) -> str:
    """Root-mean-square normalization. As in the reference data its scale vector is a parameter, but not counted as an operand."""
    operator = elementwise("rmsnorm", {"P": p, "K": k}, reduced=("K",), bits=graph.bits)
    return graph.add(module, operator, {INPUTS: x}, also=(graph.parameter(f"{module}.weight", k),))


def _rotary_tables(graph: Graph, model: Transformer) -> tuple[str, str]:
    """Cosines and sines of every position's angles, ``[seq, d]``, computed in single precision."""
    at, half, d = "model.rotary_emb", model.attention.d // 2, model.attention.d
    table = {"P": model.seq, "K": d}
    place = convert(graph, at, {"P": model.seq}, positions(graph, "model", model.seq), ID_BITS, ANGLE_BITS)
    frequencies = graph.input(f"{at}.inv_freq", (half,), ANGLE_BITS)
    base = elementwise("mul", {"P": model.seq, "K": half}, operands=2, bits=ANGLE_BITS)
    vectors = tuple(msgspec.structs.replace(base.tensors[n], ranks=(rank(dim),)) for n, dim in ((0, "P"), (1, "K")))
    outer = msgspec.structs.replace(base, tensors=(*vectors, base.tensors[2]))
    angle = graph.add(at, outer, {INPUTS: place, f"{INPUTS}2": frequencies})
    angle = concatenate(graph, at, table, "K", [(angle, half), (angle, half)], bits=ANGLE_BITS)
    cosine, sine = (
        pointwise(graph, at, "mul", table, pointwise(graph, at, "elementwise", table, angle, bits=ANGLE_BITS), bits=ANGLE_BITS)
        for _ in ("cos", "sin")
    )
    return convert(graph, at, table, cosine, ANGLE_BITS, graph.bits), convert(graph, at, table, sine, ANGLE_BITS, graph.bits)


def _rotate(graph: Graph, module: str, model: Transformer, x: str, heads: int, angles: tuple[str, str]) -> str:
    """``x cos + rotate(x) sin`` with the two halves of each head swapped and one negated."""
    d = model.attention.d
    shape = {"G": model.batch * heads, "P": model.seq, "K": d}
    direct = broadcast(graph, module, "mul", shape, x, angles[0], ("P", "K"))
    swapped = pointwise(graph, module, "elementwise", {**shape, "K": d // 2}, x)
    swapped = concatenate(graph, module, shape, "K", [(swapped, d // 2), (x, d // 2)])
    swapped = broadcast(graph, module, "mul", shape, swapped, angles[1], ("P", "K"))
    return pointwise(graph, module, "add", shape, direct, swapped)
