"""The file: models, and their operators as a traced forward pass recorded them (``format: codesign-workloads/0``)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tilewright.protocol import validation
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Options
from tilewright.protocol.workload import FUNCTIONS

DATA = Path(__file__).with_name("model_workloads.json.gz")
BITS = {"int64": 64, "float32": 32, "int32": 32, "bfloat16": 16, "float16": 16, "int8": 8, "uint8": 8, "bool": 8}
#: Names in the file -> names in the zoo, where they differ.
ALIASES = {"llama3-8b": "llama-3-8b", "llama3-70b": "llama-3-70b", "retinanet-r50fpn": "retinanet"}
#: What the number at the end of a model's name is.
WORDS: Mapping[str, str] = {"seq": "seq", "prefill": "seq", "decode-ctx": "ctx", "": "size"}
CONTRACTIONS = ("matmul", "grouped_matmul", "conv", "depthwise", "conv_transpose")


class Row(msgspec.Struct, frozen=True):
    """One group of equal operators; its figures are those of the group's first operator."""

    kind: str
    dims: dict[str, Any]
    macs_each: int
    read_bytes_each: int
    write_bytes_each: int
    count: int
    dtype: str
    weight_operand: bool = False
    flops_each: int | None = None
    modules: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """What the operator computes, in words that an operator of ours can be put in as well."""
        if self.dtype not in BITS:
            raise InvalidInput(f"dtype: {self.dtype!r}, expected one of {', '.join(BITS)}")
        kind, dims, bits = self.kind, self.dims, BITS[self.dtype]
        if kind in ("matmul", "grouped_matmul"):
            return Key(kind, (dims["M"], dims["N"], dims["K"], dims["batch"]), bits, self.weight_operand)
        if kind in CONTRACTIONS:
            names = ("R", "S", "P", "Q", "C", "K", "N", "Wstride", "Hstride", "Wdilation", "Hdilation", "groups")
            return Key(kind, tuple(dims[name] for name in names), bits, self.weight_operand)
        if kind in ("softmax", "layernorm", "rmsnorm", "gather"):
            return Key(kind, (dims["rows"], dims["cols"]), bits)
        if kind == "batchnorm":
            return Key(kind, (dims["numel"], dims["channels"]), bits)
        if kind == "pool":
            return Key(kind, (dims["numel_in"], dims["numel_out"]), bits)
        if kind == "reduce":
            return Key(kind, (dims["numel_in"],), bits)
        function = "copy" if kind == "data" else dims.get("fn", kind)
        return Key(function if function in FUNCTIONS else "elementwise", (dims["numel"],), bits)


class Key(NamedTuple):
    """Operators of equal key are one group."""

    kind: str
    dims: tuple[int, ...]
    bits: int
    weight_operand: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {'x'.join(map(str, self.dims))}, {self.bits} bit"


class Model(msgspec.Struct, frozen=True):
    """One model of the file."""

    params: int
    total_macs: int
    workloads: tuple[Row, ...]

    @property
    def bits(self) -> int:
        """Word width of its weights."""
        return next(BITS.get(row.dtype, 32) for row in self.workloads if row.weight_operand)


def read(path: Path) -> dict[str, Model]:
    """Models by name; `InvalidInput` says what is wrong with the file."""
    raw = validation.read(path)
    try:
        plain = json.loads(raw)
        return msgspec.convert(plain["models"], dict[str, Model])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = "has no 'models'" if isinstance(error, KeyError) else str(error)
        raise InvalidInput(
            f"{path}: {what}; expected JSON of the form {{'models': {{name: {{'params', 'total_macs', 'workloads'}}}}}}"
        ) from error


def request(name: str) -> tuple[str, Options]:
    """Zoo model and options that a name such as ``bert-base-seq128`` or ``gpt2-decode-ctx1024`` asks for."""
    match = re.fullmatch(r"(.+?)-(seq|prefill|decode-ctx|)(\d+)", name)
    if not match:
        return ALIASES.get(name, name), {}
    model, word, number = match.groups()
    options: Options = {WORDS[word]: int(number)}
    if word == "decode-ctx":
        options["decode"] = True
    return ALIASES.get(model, model), options
