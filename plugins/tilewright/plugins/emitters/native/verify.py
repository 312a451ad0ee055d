"""Runs a kernel's own test where that is possible, and says what came of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from tilewright.protocol.errors import TilewrightError
from tilewright.protocol.kernel import InstructionLibrary, Verification
from tilewright.protocol.keys import content_key

from .plan import Plan
from .prove import prove
from .source import Code
from .toolchain import Missing, Ready, build_and_run, find

#: Exit code of a test program on a machine without the instructions.
UNAVAILABLE = 77


class WrongKernel(TilewrightError):
    """A generated kernel failed its own test: never returned to anybody."""


#: (content key of a library, compiler, number format) proven by this process.
_proven: set[tuple[str, Ready, str]] = set()


def verify(plan: Plan, code: Code) -> Verification:
    """Prove the instructions, then compile and run the kernel's test, with the first toolchain that is usable here.

    Raises InvalidInstruction (a template is wrong) or WrongKernel; a missing tool or CPU feature is ``not verified``.
    """
    return first_verification(plan.library, lambda ready: verify_with(ready, plan, code))


def first_verification(library: InstructionLibrary, attempt: Callable[[Ready], Verification]) -> Verification:
    """What the first toolchain at hand says that can run the test; else why none could."""
    reasons = []
    for ready in find(library):
        if isinstance(ready, Missing):
            reasons.append(ready.reason)
            continue
        verification = attempt(ready)
        if verification.status == "verified":
            return verification
        reasons.append(verification.reason)
    return Verification("not verified", "; ".join(dict.fromkeys(reasons)) or "no toolchain")


def verify_with(ready: Ready, plan: Plan, code: Code) -> Verification:
    """The same with one toolchain."""
    name, library = plan.name, plan.library
    if plan.numbers.result in ready.toolchain.lacks:
        return Verification("not verified", f"{ready.toolchain.name} has no {plan.numbers.result}", compiler=ready.name)
    files = {f"{name}.c": code.source, f"{name}.h": code.header, f"{name}_test.c": code.test}

    def proven() -> None:
        proof = (content_key(library), ready, plan.numbers.name)
        if proof not in _proven:
            prove(library, ready, plan.numbers)
            _proven.add(proof)

    return run_test(ready, library.name, files, (f"{name}.c", f"{name}_test.c"), proven)


def run_test(
    ready: Ready, library: str, files: Mapping[str, str], sources: Sequence[str], ran: Callable[[], None] = lambda: None
) -> Verification:
    """Build and run a test program; `ran` is called where the machine has the instructions, before the verdict."""
    name = next(iter(files)).removesuffix(".c")
    outcome = build_and_run(ready, files, tuple(each for each in sources if each.endswith(".c")))
    if outcome.returncode is None:
        raise WrongKernel(f"{name}: {ready.name} does not accept the generated code: {outcome.error.strip()[:500]}")
    if outcome.returncode == UNAVAILABLE:
        return Verification("not verified", f"this machine lacks {library}", compiler=ready.name)
    ran()
    found = re.search(r"cases (\d+) worst ([0-9.e+-]+)", outcome.output.decode(errors="replace"))
    if outcome.returncode or not found:
        text = (outcome.output.decode(errors="replace") + outcome.error).strip()
        raise WrongKernel(f"{name}: the test of the generated kernel failed (exit {outcome.returncode}): {text[:500]}")
    return Verification("verified", cases=int(found[1]), worst_error=float(found[2]), compiler=ready.name)
