"""Damaged inputs at every entrance: the codec of messages, YAML files, ONNX files, configurations. From a seed, in child processes.

An input may be read, or be refused with one of our errors. Anything else is a failure: another exception, a child that dies, an input
that takes longer than `PATIENCE` seconds of processor time, a child that grows by more than `MOST_MB`.

    python tests/faults/fuzz.py codec --inputs 1000000 --seed 1
    python tests/faults/fuzz.py yaml --inputs 20000
    python tests/faults/fuzz.py onnx --inputs 20000
    python tests/faults/fuzz.py config --inputs 20000

prints what was found, processor time and peak memory, and ends with 1 if anything failed. ``--first N --inputs 1`` plays input N again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import Struct

from tilewright.protocol import messages, registry, run
from tilewright.protocol.codec import decode, encode
from tilewright.protocol.errors import TilewrightError
from tilewright.protocol.files import parse, write
from tilewright.protocol.workload import Workload, conv2d, matmul
from tilewright.testing import samples

#: Processor seconds that one input may take, and megabytes by which a child may grow over all of its inputs.
PATIENCE, MOST_MB = 10.0, 500
#: Inputs of one child.
CHUNK = 20_000
GOLDEN = Path(__file__).parents[1] / "protocol" / "golden"

Read = Callable[[bytes], object]


class Entrance(NamedTuple):
    """Something that reads bytes from outside."""

    seeds: Sequence[bytes]
    read: Read
    #: Pieces that damage is made of, beside random bytes.
    words: Sequence[bytes] = ()


class Found(NamedTuple):
    """What became of some inputs."""

    outcomes: Counter[str]
    failures: list[str]
    seconds: float
    grown_mb: float


def codec(folder: Path) -> Entrance:
    """Everything that was ever released: messages in their envelopes, jobs, answers and states. The first byte says which it is."""
    kinds = [each for module in (messages, run) for each in vars(module).values() if isinstance(each, type) and issubclass(each, Struct)]
    seeds = [_labelled(bytes.fromhex(path.read_text()), kinds) for path in sorted(GOLDEN.glob("*.hex"))]

    def read(data: bytes) -> None:
        label = data[0] if data else 0
        if label < len(kinds) and kinds[label] is not messages.Envelope:
            decode(data[1:], kinds[label])
        else:
            messages.unpack(data[1:])

    words = (b"\xdd\xff\xff\xff\xff", b"\xdf\x7f\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 40, b"\xc1", b"\xd9\xff", b"\xcb\x7f\xf8")
    return Entrance(seeds, read, words)


def _labelled(data: bytes, kinds: Sequence[type[Struct]]) -> bytes:
    """The bytes behind the number of the kind that they are, word for word."""
    for at, kind in enumerate(kinds):
        try:
            if encode(decode(data, kind)) == data:
                return bytes([at]) + data
        except TilewrightError:
            continue
    raise AssertionError(f"{data[:40]!r} is of no kind")


def yaml(folder: Path) -> Entrance:
    """Workloads, operators and architectures as they are written, and by hand."""
    layer = conv2d(r=3, s=3, p=14, q=14, c=64, k=128, stride=(2, 2), padding=(1, 1), extent=(28, 28))
    seeds = [
        write(architecture=samples.architecture()).encode(),
        write(operator=layer).encode(),
        write(workload=Workload.build("own", [("a", layer), ("b", matmul(p=2, c=8, k=8))])).encode(),
        b"operator: {matmul: {p: 128, c: 768, k: 768}}\n",
        b"workload:\n  name: own\n  operators:\n    - {matmul: &m {p: 2, c: 8, k: 8}}\n    - {matmul: *m}\n",
    ]
    words = (b"&a ", b"*a ", b"!!python/object:os.system ", b"<<: ", b"[" * 50, b"{" * 50, b"- " * 30, b"? ", b"1e999", b"-1", b"\x00",
             b"\xff\xfe", b"99999999999999999999", b"null", b"{}", b"\n---\n", b"|\n")  # fmt: skip
    return Entrance(seeds, lambda data: parse(data.decode("utf-8", "surrogateescape")), words)


def onnx(folder: Path) -> Entrance:
    """Small graphs with attention, convolutions, branches and computed shapes, as files."""
    return Entrance(
        onnx_seeds(),
        _file("onnx", folder / "model.onnx", {"batch": 2}),
        (b"\x00", b"\xff" * 9, b"\x80" * 9 + b"\x01", b"If", b"Range", b"Loop"),
    )


def onnx_seeds() -> list[bytes]:
    """Serialized models."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    def model(nodes: list[Any], inputs: dict[str, Any], weights: dict[str, Any]) -> bytes:
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
        out = [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)]
        kept = [numpy_helper.from_array(value, name) for name, value in weights.items()]
        made: bytes = helper.make_model(helper.make_graph(nodes, "g", values, out, kept)).SerializeToString()
        return made

    def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
        return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)

    def floats(*shape: int) -> Any:
        return np.zeros(shape, np.float32)

    shapes = [
        node("Shape", "x", "s"), node("Gather", "s zero", "n"), node("Unsqueeze", "n axis", "n1"), node("Concat", "n1 rest", "to", axis=0),
        node("MatMul", "x w", "y"), node("Reshape", "y to", "z"), node("Transpose", "z", "t", perm=[0, 2, 1]), node("MatMul", "z t", "p"),
        node("Softmax", "p", "out", axis=-1),
    ]  # fmt: skip
    convolutions = [
        node("Conv", "x a bias", "c1", pads=[1, 1, 1, 1], strides=[2, 2]), node("Conv", "c1 d", "c2", group=4, auto_pad="SAME_UPPER"),
        node("ConvTranspose", "c2 u", "c3", strides=[2, 2]), node("MaxPool", "c3", "c4", kernel_shape=[2, 2]),
        node("GlobalAveragePool", "c4", "c5"), node("Flatten", "c5", "c6"), node("Gemm", "c6 w", "y", transB=1),
    ]  # fmt: skip
    grow = [node("Range", "zero ten one", "r"), node("Expand", "one to", "e"), node("Cast", "e", "f", to=1), node("Add", "x f", "y")]
    return [
        model(shapes, {"x": ["batch", 6, 16]}, {"w": floats(16, 8), "zero": np.array(0), "axis": np.array([0]), "rest": np.array([6, 8])}),
        model(convolutions, {"x": [2, 3, 8, 8]},
              {"a": floats(4, 3, 3, 3), "bias": floats(4), "d": floats(4, 1, 3, 3), "u": floats(4, 5, 2, 2), "w": floats(7, 5)}),
        model(grow, {"x": [2, 3]}, {"zero": np.array(0), "ten": np.array(10), "one": np.array(1), "to": np.array([2, 3])}),
    ]  # fmt: skip


def config(folder: Path) -> Entrance:
    """Configurations of transformers: read and planned, not built."""
    from tilewright.plugins.frontends.huggingface.models import plan, read

    seeds = [
        json.dumps({"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 32, "num_attention_heads": 2}).encode(),
        json.dumps({"model_type": "llama", "rope_scaling": {"type": "linear"}, "quantization_config": {"bits": 4}}).encode(),
        json.dumps({"model_type": "x", "auto_map": {"AutoModel": "a--b.C"}}).encode(),
    ]
    path = folder / "config.json"

    def load(data: bytes) -> None:
        path.write_bytes(data)
        plan(str(path), read(str(path)), {})

    return Entrance(seeds, load, (b"[" * 2000, b'{"a":' * 500, b"null", b"1e999", b"NaN", b"-1", b'"', b"\\ud800", b"\xff"))


def _file(frontend: str, path: Path, options: dict[str, Any]) -> Read:
    plugin = registry.load("frontends", frontend)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        plugin.load(str(path), options)

    return read


ENTRANCES: dict[str, Callable[[Path], Entrance]] = {"codec": codec, "yaml": yaml, "onnx": onnx, "config": config}


def damaged(entrance: Entrance, seed: int, number: int) -> bytes:
    """Input `number`: a seed with one to six pieces flipped, cut, repeated, moved, or replaced."""
    chance = random.Random(f"{seed}:{number}")
    data = bytearray(chance.choice(entrance.seeds))
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        at, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
        end = min(end, at + 64)
        what = chance.randrange(10)
        if what <= 4 and at < len(data):
            data[at] = chance.randrange(256)
        elif what == 6:
            del data[at:end]
        elif what == 7:
            data[at:at] = data[at:end] * chance.randint(1, 4)
        elif what == 8 and entrance.words:
            data[at:at] = chance.choice(entrance.words)
        elif what == 5:
            other = chance.choice(entrance.seeds)
            data[at:end] = other[at : at + chance.randrange(64)]
        else:
            data[at:end] = chance.randbytes(chance.randrange(16))
    return bytes(data)


def play(name: str, seed: int, numbers: Sequence[int], note: Callable[[int], None] = lambda number: None) -> Found:
    """Read these inputs in this process; `note` hears the number of each before it is read."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        return _play(ENTRANCES[name](Path(folder)), seed, numbers, note)


def _play(entrance: Entrance, seed: int, numbers: Sequence[int], note: Callable[[int], None]) -> Found:
    outcomes: Counter[str] = Counter()
    failures: list[str] = []

    def late(signum: int, frame: object) -> None:
        raise TimeoutError(f"more than {PATIENCE:g} s of processor time")

    before = signal.signal(signal.SIGVTALRM, late)
    began, size = time.process_time(), _peak_mb()
    try:
        for number in numbers:
            note(number)
            signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE)
            try:
                entrance.read(damaged(entrance, seed, number))
                outcomes["read"] += 1
            except TilewrightError as error:
                outcomes[type(error).__name__] += 1
            except Exception as error:  # that is what is looked for
                failures.append(f"input {number}: {type(error).__name__}: {error}"[:300])
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    finally:
        signal.signal(signal.SIGVTALRM, before)
    return Found(outcomes, failures, time.process_time() - began, _peak_mb() - size)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _child(name: str, seed: int, numbers: range, last: Any, answer: Connection) -> None:
    def note(number: int) -> None:
        last.value = number

    answer.send(tuple(play(name, seed, numbers, note)))


def campaign(name: str, seed: int, first: int, inputs: int) -> Found:
    """Read inputs in children; where one dies, the next goes on behind the input that killed it."""
    context = multiprocessing.get_context("spawn")
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    seconds, grown, at = 0.0, 0.0, first
    while at < first + inputs:
        numbers = range(at, min(at + CHUNK, first + inputs))
        last, (answer, theirs) = context.Value("q", at), context.Pipe(duplex=False)
        child = context.Process(target=_child, args=(name, seed, numbers, last, theirs))
        child.start()
        theirs.close()
        try:
            found = Found(*answer.recv())
            outcomes.update(found.outcomes)
            failures += found.failures
            seconds, grown, at = seconds + found.seconds, max(grown, found.grown_mb), numbers.stop
        except EOFError:
            child.join()
            failures.append(f"input {last.value}: the process ended with {child.exitcode}")
            at = last.value + 1
        child.join()
        print(f"{at - first} inputs, {seconds:.0f} s CPU, {len(failures)} failures", file=sys.stderr, flush=True)
    if grown > MOST_MB:
        failures.append(f"a process grew by {grown:.0f} MB, expected at most {MOST_MB}")
    return Found(outcomes, failures, seconds, grown)


def main() -> int:
    """Play a campaign and say what came out."""
    parser = argparse.ArgumentParser(description="Damaged inputs at an entrance.")
    parser.add_argument("entrance", choices=ENTRANCES)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    said = parser.parse_args()
    found = campaign(said.entrance, said.seed, said.first, said.inputs)
    print("\n".join(found.failures))
    print(json.dumps({"entrance": said.entrance, "inputs": said.inputs, "seed": said.seed, "outcomes": found.outcomes,
                      "failures": len(found.failures), "cpu_s": round(found.seconds, 1), "grown_mb": round(found.grown_mb)}))  # fmt: skip
    return 1 if found.failures else 0


if __name__ == "__main__":
    sys.exit(main())
