"""Runs a kernel's own test where that is possible, and says what came of it."""

from __future__ import annotations

import re

from tilewright.protocol.errors import TilewrightError
from tilewright.protocol.kernel import InstructionLibrary, Verification
from tilewright.protocol.keys import content_key

from .prove import prove
from .source import Code
from .toolchain import Missing, Ready, build_and_run, find

#: Exit code of a test program on a machine without the instructions.
UNAVAILABLE = 77


class WrongKernel(TilewrightError):
    """A generated kernel failed its own test: never returned to anybody."""


#: (content key of a library, compiler) proven by this process.
_proven: set[tuple[str, Ready]] = set()


def verify(name: str, code: Code, library: InstructionLibrary) -> Verification:
    """Prove the instructions, then compile and run the kernel's test.

    Raises InvalidInstruction (a template is wrong) or WrongKernel; a missing tool or CPU feature is ``not verified``.
    """
    ready = find(library)
    if isinstance(ready, Missing):
        return Verification("not verified", ready.reason)
    files = {f"{name}.c": code.source, f"{name}.h": code.header, f"{name}_test.c": code.test}
    outcome = build_and_run(ready, files, (f"{name}.c", f"{name}_test.c"))
    if outcome.returncode is None:
        raise WrongKernel(f"{name}: {ready.name} does not accept the generated code: {outcome.error.strip()[:500]}")
    if outcome.returncode == UNAVAILABLE:
        return Verification("not verified", f"this machine lacks {library.name}", compiler=ready.name)
    proof = (content_key(library), ready)
    if proof not in _proven:
        prove(library, ready)
        _proven.add(proof)
    found = re.search(r"cases (\d+) worst ([0-9.e+-]+)", outcome.output.decode(errors="replace"))
    if outcome.returncode or not found:
        text = (outcome.output.decode(errors="replace") + outcome.error).strip()
        raise WrongKernel(f"{name}: the test of the generated kernel failed (exit {outcome.returncode}): {text[:500]}")
    return Verification("verified", cases=int(found[1]), worst_error=float(found[2]), compiler=ready.name)
