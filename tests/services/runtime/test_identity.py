"""What makes two jobs one question, and what does not."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tilewright.protocol.architecture import Constraints
from tilewright.protocol.design import ScheduledTask
from tilewright.protocol.messages import Job, MapJob, SimulateJob
from tilewright.protocol.plugin import Budget
from tilewright.protocol.workload import matmul
from tilewright.services import mapper
from tilewright.services.runtime.host import Host
from tilewright.services.runtime.identity import Code, question
from tilewright.testing import samples

from .unruly import install

ARCHITECTURE = samples.architecture()
MAP = MapJob(matmul(p=4, c=4, k=4), ARCHITECTURE, Constraints(), "edp", "random", Budget(evaluations=10))
SCHEDULE = samples.schedule(samples.OPERATORS["matmul"], ARCHITECTURE)
SIMULATE = SimulateJob((ScheduledTask(SCHEDULE, 2, "layer.0"),), ARCHITECTURE, "analytical")


def key(job: Job, code: Code | None = None) -> str:
    host = Host(lambda frame: None)
    return (code or Code()).key("map", job, mapper, mapper.plugins(MAP, host), host)


@pytest.mark.parametrize(
    ("job", "other"),
    [
        (MAP, msgspec.structs.replace(MAP, budget=Budget(evaluations=10, seconds=3.0))),
        (SIMULATE, msgspec.structs.replace(SIMULATE, tasks=(ScheduledTask(SCHEDULE, 7, "renamed"),))),
    ],
)
def test_the_same_question(job: Job, other: Job) -> None:
    assert question(job) == question(other)
    assert key(job) == key(other)


@pytest.mark.parametrize(
    "changes",
    [
        {"operator": matmul(p=4, c=4, k=5)},
        {"architecture": msgspec.structs.replace(ARCHITECTURE, clock_ghz=2.0)},
        {"objective": "energy"},
        {"budget": Budget(evaluations=11)},
        {"seed": 1},
        {"options": {"samples": 5}},
        {"mapper": "cosa"},
    ],
)
def test_another_question(changes: dict[str, Any]) -> None:
    assert key(MAP) != key(msgspec.structs.replace(MAP, **changes))


def test_a_key_is_a_key() -> None:
    stage, _, digest = key(MAP).partition(".")
    assert stage == "map"
    assert len(digest) == 64


def test_other_code_is_another_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = install(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    job = msgspec.structs.replace(MAP, mapper="unruly")
    host = Host(lambda frame: None)

    def asked(code: Code) -> str:
        return code.key("map", job, mapper, mapper.plugins(job, host), host)

    code = Code()
    before = asked(code)
    assert asked(Code()) == before
    assert not code.stale
    module.write_text(module.read_text().replace('"plain"', '"broad"'))
    assert code.stale
    assert asked(code) == before, "it is the code that this process has imported"
    assert asked(Code()) != before
    module.unlink()
    assert code.stale


def test_the_services_own_code_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "made_up_service"
    package.mkdir()
    source = package / "__init__.py"
    source.write_text("ANSWER = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    service = importlib.import_module("made_up_service")
    host = Host(lambda frame: None)

    def made() -> str:
        return Code().key("map", MAP, service, (("mappers", "random"),), host)

    before = made()
    assert made() == before
    source.write_text("ANSWER = 2\n")
    assert made() != before
