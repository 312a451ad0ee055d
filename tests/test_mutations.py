"""Named mistakes, made on purpose in a copy of the sources: each must fail a test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("protocol", "plugins", "services")


@dataclass(frozen=True)
class Mutation:
    """A piece of source, what it becomes, and the tests of which one must notice."""

    file: str
    before: str
    after: str
    tests: str


LOOPNEST = "plugins/tilewright/loopnest"
RUNTIME = "services/tilewright/services/runtime"
MUTATIONS = {
    "wrong halo": Mutation(
        f"{LOOPNEST}/traffic.py",
        "xp.maximum(length - move, zero)",
        "xp.maximum(length - move - 1, zero)",
        "tests/plugins/validations/test_timeloop.py",
    ),
    "stride and dilation swapped": Mutation(
        "protocol/tilewright/protocol/workload.py",
        "(out, stride), (tap, dilation)",
        "(out, dilation), (tap, stride)",
        "tests/protocol/test_workload.py::test_convolution",
    ),
    "first reads not elided": Mutation(
        f"{LOOPNEST}/accesses.py",
        "xp.where(here, asked - share[i], zero)",
        "xp.where(here, asked, zero)",
        "tests/plugins/validations/test_timeloop.py",
    ),
    "blocks rounded down": Mutation(
        f"{LOOPNEST}/arrays.py", "-(-words // block)", "words // block", "tests/plugins/validations/test_timeloop.py"
    ),
    "capacity not checked": Mutation(
        f"{LOOPNEST}/validity.py", "kept - level.usable_words", "kept - kept", "tests/loopnest/test_validity.py"
    ),
    "skipped compare-and-swap": Mutation(
        f"{RUNTIME}/runs.py",
        "await self._runs.update(state.run, encode(state), revision)",
        "await self._runs.put(state.run, encode(state))",
        "tests/services/runtime/test_runs.py tests/services/pipeline/test_shell.py",
    ),
    "dropped ack": Mutation(
        f"{RUNTIME}/assignment.py",
        "        await self._delivery.ack()\n        kind",
        "        kind",
        "tests/services/runtime/test_worker.py::test_a_job_becomes_a_recorded_answer_and_one_outcome",
    ),
    "last writer wins": Mutation(
        f"{RUNTIME}/results.py",
        "await bucket.create(key, encode(stored))",
        "await bucket.put(key, encode(stored))",
        "tests/services/runtime/test_results.py",
    ),
    "generation left out of the message id": Mutation(
        "protocol/tilewright/protocol/keys.py",
        'f"{run}.{task}.{generation}.{kind}"',
        'f"{run}.{task}.{kind}"',
        "tests/protocol/test_bus_publish.py::test_a_raised_generation_is_a_new_job_inside_the_duplicate_window",
    ),
    "keys depend on the order of a dict": Mutation(
        "protocol/tilewright/protocol/codec.py", "for key in sorted(value)}", "for key in value}", "tests/protocol/test_wire.py"
    ),
    "depth not limited": Mutation(
        "protocol/tilewright/protocol/codec.py", "MAX_DEPTH = 32", "MAX_DEPTH = 100_000", "tests/protocol/test_wire.py::test_nesting"
    ),
    "failures not counted": Mutation(
        f"{RUNTIME}/assignment.py",
        "if known.exhausted or",
        "if",
        "tests/services/runtime/test_worker.py::test_a_task_that_keeps_failing_is_given_up_with_the_reason",
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mistake_is_noticed(name: str, tmp_path: Path) -> None:
    mutation = MUTATIONS[name]
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / mutation.file
    source = path.read_text()
    assert source.count(mutation.before) == 1, f"{mutation.before!r} stands {source.count(mutation.before)} times in {mutation.file}"
    path.write_text(source.replace(mutation.before, mutation.after))
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("COV", "PYTEST"))}
    environment["PYTHONPATH"] = os.pathsep.join(str(tmp_path / room) for room in ROOMS)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutation.tests.split()]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, f"{name} went unnoticed by {mutation.tests}\n{done.stdout[-3000:]}{done.stderr[-1000:]}"
