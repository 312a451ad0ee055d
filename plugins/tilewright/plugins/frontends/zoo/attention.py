"""Scaled dot-product attention as two batched products with a softmax between them."""

from __future__ import annotations

from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS, batched_matmul, elementwise

from .graph import Graph
from .layers import View, concatenate


class Heads:
    """Sizes of one attention: `kv` key/value heads of width `d`, each shared by `group` query heads.

    `queries` and `keys` are tokens per sequence. The batch is merged into the head dim G, as the products of different
    sequences are independent too.
    """

    def __init__(self, batch: int, heads: int, kv: int, d: int, queries: int, keys: int) -> None:
        self.batch, self.heads, self.kv, self.d, self.queries, self.keys = batch, heads, kv, d, queries, keys
        self.group = heads // kv

    @property
    def q_view(self) -> View:
        """``[tokens, heads x d]`` seen as ``[G, (H,) P, C]``."""
        shared = (self.group,) if self.group > 1 else ()
        return self._split((self.kv, *shared, self.queries, self.d), (*(1 for _ in (self.kv, *shared)), 0, 1))

    @property
    def k_view(self) -> View:
        """``[tokens, kv x d]`` seen as ``[G, C, K]``: transposed."""
        return self._split((self.kv, self.d, self.queries), (1, 1, 0))

    @property
    def v_view(self) -> View:
        """``[tokens, kv x d]`` seen as ``[G, C, K]``."""
        return self._split((self.kv, self.queries, self.d), (1, 0, 1))

    def _split(self, shape: tuple[int, ...], axes: tuple[int, ...]) -> View:
        return (shape, axes) if self.batch == 1 else ((self.batch, *shape), (0, *axes))


def attend(graph: Graph, module: str, heads: Heads, q: str, k: str, v: str) -> str:
    """``softmax(q k^T) v``; the result is seen as ``[tokens, heads x d]``. Counted in full, also where a mask is causal."""
    g, shared = heads.batch * heads.kv, heads.group > 1
    scores = batched_matmul(g=g, h=heads.group, p=heads.queries, c=heads.d, k=heads.keys, bits=graph.bits)
    score = graph.add(module, scores, {INPUTS: q, WEIGHTS: k})
    shape = dict(zip(("G", "H", "P", "K") if shared else ("G", "P", "K"), scores.shape(OUTPUTS), strict=True))
    weight = graph.add(module, elementwise("softmax", shape, reduced=("K",), bits=graph.bits), {INPUTS: score})
    mix = batched_matmul(g=g, h=heads.group, p=heads.queries, c=heads.keys, k=heads.d, bits=graph.bits)
    # Ranks of the result: G = batch x kv, H, P, K. Tokens first, then features: batch, P, kv, H, K.
    p = 2 if shared else 1
    view_shape = (*((heads.batch,) if heads.batch > 1 else ()), heads.queries, heads.kv, *((heads.group,) if shared else ()), heads.d)
    view_axes = (*((0,) if heads.batch > 1 else ()), p, 0, *((1,) if shared else ()), p + 1)
    return graph.add(module, mix, {INPUTS: weight, WEIGHTS: v}, shape=view_shape, axes=view_axes)


def cached(graph: Graph, module: str, heads: Heads, x: str, name: str, *, transposed: bool) -> str:
    """Append new keys or values ``[G, P, K = d]`` to their cache and return all `heads.keys` of them.

    Without tokens in the cache (prefill) it is filled: a copy.
    """
    shape = {"G": heads.batch * heads.kv, "P": heads.keys, "K": heads.d}
    order = (0, 2, 1) if transposed else (0, 1, 2)
    view: View = (tuple(tuple(shape.values())[axis] for axis in order), order if transposed else ())
    before = heads.keys - heads.queries
    if before == 0:
        return graph.add(module, elementwise("copy", shape, bits=graph.bits), {INPUTS: x}, shape=view[0], axes=view[1])
    cache = graph.input(f"{module}.{name}_cache", (shape["G"], before, heads.d))
    return concatenate(graph, module, shape, "P", [(cache, before), (x, heads.queries)], view=view)
