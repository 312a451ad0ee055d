"""Modules of PyTorch as workloads: an exported program, or a function in a Python file of yours that makes a module.

Nothing is computed and no weights are needed: one forward pass runs on fake tensors while every call is recorded (`recorder`).
A pickled module is never loaded. Files are read on the client; services load no files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Options
from tilewright.protocol.profile import Machine, Measurement
from tilewright.protocol.workload import Workload

from . import calibrating, counting, measuring, recorder, sources


class Torch:
    """Frontend ``torch``: ``FILE.pt2``, or ``FILE.py::NAME`` for a function that returns a module and its example inputs."""

    options: ClassVar[dict[str, str]] = {"bits": "bits of a word of every weight and activation (those of the module's type)"}

    def models(self) -> Sequence[str]:
        """None: it only reads files."""
        return ()

    def load(self, source: str, options: Options) -> Workload:
        """Trace one forward pass; `InvalidInput` says what is wrong with the file, or which call cannot be counted."""
        bits = options.get("bits", 0)
        for name in options:
            if name != "bits":
                raise InvalidInput(f"option {name!r}: frontend torch has only bits; the example inputs say the shapes")
        if isinstance(bits, bool) or not isinstance(bits, int) or not 0 <= bits <= 64:
            raise InvalidInput(f"bits: {bits!r}, expected an integer from 1 to 64")
        return sources.load(source, bits)

    def trace(
        self, name: str, module: Any, arguments: Sequence[Any], keywords: Mapping[str, Any], *, bits: int = 0, source: str = ""
    ) -> Workload:
        """The workload of one call of a module; everything must have been made inside of `fake`."""
        return recorder.trace(name, module, arguments, keywords, bits=bits, source=source)

    def fake(self) -> AbstractContextManager[Any]:
        """Inside, tensors exist by shape only."""
        return recorder.fake()

    def measure(self, source: str, options: Options, repeats: int) -> Measurement:
        """Run the file's module on this CPU."""
        name, module, arguments, keywords = sources.module(source)
        return measuring.measure(name, module, lambda real: (arguments, keywords), repeats)

    def run(self, name: str, module: Any, given: measuring.Given, repeats: int, *, working: float = 0.0) -> Measurement:
        """Run a module on this CPU, on what `given` makes for it; what is on the meta device gets random weights."""
        return measuring.measure(name, module, given, repeats, working=working)

    def calibrate(self) -> Machine:
        """This CPU as a machine for rooflines."""
        return calibrating.calibrate()

    def rules(self) -> Any:
        """How calls are counted, for frontends that put their operators as such (needs no torch)."""
        return counting
