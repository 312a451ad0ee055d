"""Broken input at every entrance: mutated messages, YAML files and ONNX files. Each is read or refused as bad input, nothing else.

    python tests/benchmarks/fuzz.py codec --inputs 1000000 --seed 1
    python tests/benchmarks/fuzz.py yaml --inputs 20000
    python tests/benchmarks/fuzz.py onnx --inputs 2000

ends with 1 at the first input that raises anything else than `InvalidInput`, takes longer than 5 s, or lets memory grow by more
than 256 MiB; the input is then shown.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from tilewright.protocol import files, registry
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.messages import MESSAGES, unpack
from tilewright.testing import samples

GOLDEN = Path(__file__).parents[1] / "protocol" / "golden"
#: Most seconds of one input, and most bytes by which the process may grow.
SLOW, GROWTH = 5.0, 256 << 20
#: First bytes that announce something large.
ANNOUNCE = (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\x7f\xff\xff\xff", b"\x91" * 64, b"\xc7\x05")


def mutated(chance: random.Random, corpus: Sequence[bytes]) -> bytes:
    """One of the corpus with one to four changes."""
    data = bytearray(chance.choice(corpus))
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        what = chance.randrange(6)
        if what == 0 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif what == 1:
            del data[at:]
        elif what == 2:
            data[at:at] = chance.randbytes(chance.randint(1, 8))
        elif what == 3:
            data[at:at] = chance.choice(ANNOUNCE)
        elif what == 4:
            other = chance.choice(corpus)
            data[at:] = other[chance.randrange(len(other)) :]
        else:
            del data[at : at + chance.randint(1, 16)]
    return bytes(data)


def codec() -> tuple[Sequence[bytes], Callable[[bytes], object]]:
    """Messages as released."""
    return [bytes.fromhex((GOLDEN / f"{kind}.{version}.hex").read_text()) for kind, (_, version) in MESSAGES.items()], unpack


def yaml() -> tuple[Sequence[bytes], Callable[[bytes], object]]:
    """A file with an operator and an architecture."""
    text = files.write(operator=samples.OPERATORS["matmul"], architecture=samples.architecture())
    corpus = [text.encode(), b"a: &a [*a]\n", b"!!python/object/apply:os.system [id]\n"]
    return corpus, lambda data: files.parse(data.decode(errors="replace"))


def onnx() -> tuple[Sequence[bytes], Callable[[bytes], object]]:
    """A small network of the onnx package."""
    import onnx as package

    light = Path(package.__file__).parent / "backend" / "test" / "data" / "light" / "light_squeezenet.onnx"
    frontend = registry.load("frontends", "onnx")
    path = Path(tempfile.mkdtemp()) / "fuzzed.onnx"

    def load(data: bytes) -> object:
        path.write_bytes(data)
        return frontend.load(str(path), {})

    return [light.read_bytes()], load


def main() -> int:
    """Feed one entrance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entrance", choices=("codec", "yaml", "onnx"))
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    corpus, take = {"codec": codec, "yaml": yaml, "onnx": onnx}[arguments.entrance]()
    chance = random.Random(arguments.seed)
    process, taken, longest = psutil.Process(), 0, 0.0
    began, before = time.process_time(), process.memory_info().rss
    for number in range(arguments.inputs):
        data = mutated(chance, corpus)
        started = time.perf_counter()
        try:
            take(data)
            taken += 1
        except InvalidInput:
            pass
        except BaseException as error:
            print(f"input {number}: {type(error).__name__}: {error}\n{data[:2000]!r}")
            return 1
        longest = max(longest, time.perf_counter() - started)
        if longest > SLOW or (number % 1000 == 0 and process.memory_info().rss - before > GROWTH):
            print(f"input {number}: {longest:.1f} s, {(process.memory_info().rss - before) >> 20} MiB more\n{data[:2000]!r}")
            return 1
    grown = (process.memory_info().rss - before) / (1 << 20)
    spent = time.process_time() - began
    print(f"{arguments.inputs} inputs, {taken} read, the rest refused; {spent:.0f} s of CPU, longest {longest:.2f} s, {grown:.0f} MiB more")
    return 0


if __name__ == "__main__":
    sys.exit(main())
