"""Names, ids, errors and imports: the small things everybody builds on."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from tilewright import protocol
from tilewright.protocol import errors, keys, subjects
from tilewright.protocol.errors import TilewrightError, suggest
from tilewright.protocol.messages import Failure, Record, RunRequest
from tilewright.protocol.run import RunState, StageState, bits, cancel, closure, members, packed, parse_task, task_id
from tilewright.protocol.subjects import SERVICES, STAGES, EventKind

MODULES = sorted(path.stem for path in Path(protocol.__file__).parent.glob("*.py") if path.stem != "__init__")
TOKEN = re.compile(r"[A-Za-z0-9_-]+")


def test_run_ids_are_sortable_short_and_unlike(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = {keys.new_run_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch(r"[0-9a-z]{20}", each) and TOKEN.fullmatch(each) for each in ids)
    stamps = []
    for now in (0.0, 1.7e9, 1.7e9 + 0.001, 1.7e9 + 1, 4e9, 3e10):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        stamps.append(keys.new_run_id())
    assert stamps == sorted(stamps)
    assert stamps[0].startswith("0000000000")
    assert len({stamp[:10] for stamp in stamps}) == len(stamps)


def test_message_ids() -> None:
    assert keys.message_id("run1", "map-3", 2, "job") == "run1.map-3.2.job"


def test_worker_ids_name_host_and_process() -> None:
    import os

    assert keys.worker_id("mapper") == f"mapper-{os.uname().nodename}-{os.getpid()}"


def test_subjects() -> None:
    assert subjects.SUBMIT == "tw.v1.run.submit"
    assert subjects.job_stream("profile") == "TW_JOB_PROFILE"
    assert subjects.job_subject("map") == "tw.v1.job.map.*.*"
    assert subjects.job_subject("map", "r", "map-0") == "tw.v1.job.map.r.map-0"
    assert subjects.done_subject("r", "map") == "tw.v1.done.r.map"
    assert subjects.outcomes_of("r") == "tw.v1.done.r.*"
    assert subjects.event_subject("r", "map", "map-0", "partial") == "tw.v1.evt.r.map.map-0.partial"
    assert subjects.events_of("r") == "tw.v1.evt.r.>"
    assert subjects.cancel_subject("r") == "tw.v1.ctl.cancel.r"
    assert subjects.dead_subject("map") == "tw.v1.dead.map"
    assert subjects.blob_subject("k", 3) == "tw.v1.blob.k.3"
    assert subjects.blob_parts("k") == "tw.v1.blob.k.*"
    assert subjects.durable("TW_RUN") == "tw_run_workers"
    assert set(SERVICES) == set(STAGES)
    assert len(set(SERVICES.values())) == len(STAGES)
    assert all(TOKEN.fullmatch(kind) for kind in get_args(EventKind))


def test_exit_codes_and_the_drawn_tree() -> None:
    codes = {name: each.exit_code for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, TilewrightError)}
    assert codes["InvalidInput"] == codes["UnknownPlugin"] == codes["InvalidMessage"] == 2
    assert codes["Cancelled"] == 4
    assert codes["NoConnection"] == codes["NotBootstrapped"] == 5
    assert codes["BrokenPlugin"] == codes["Conflict"] == codes["Backlog"] == 1
    drawn = re.findall(r"^ +([A-Z]\w+)", errors.__doc__ or "", re.MULTILINE)
    assert set(drawn) == set(codes)
    indents = {name: len(indent) for indent, name in re.findall(r"^( +)([A-Z]\w+)", errors.__doc__ or "", re.MULTILINE)}
    for position, name in enumerate(drawn[1:], 1):
        parent = next(above for above in reversed(drawn[:position]) if indents[above] < indents[name])
        assert issubclass(getattr(errors, name), getattr(errors, parent)), f"{name} is drawn below {parent}"
    assert all(issubclass(getattr(errors, name), TilewrightError) for name in drawn)


def test_suggestions() -> None:
    assert suggest("gemini", ["gemmini", "simba"]) == "; did you mean 'gemmini'?"
    assert suggest("x", ["b", "a"]) == "; expected one of a, b"
    assert suggest("x", []) == "; expected one of (none installed)"


def test_a_run_goes_through_what_its_stages_need() -> None:
    assert closure(["profile"]) == ("profile",)
    assert closure(["kernel"]) == ("profile", "map", "kernel")
    assert closure(["simulate", "codesign"]) == ("profile", "map", "codesign", "simulate")
    assert closure(STAGES) == STAGES
    assert closure([]) == ()


def test_tasks() -> None:
    assert parse_task(task_id("map", 12)) == ("map", 12)
    for wrong in ("", "map", "map-", "map--1", "map-01", "fly-1", "map-1 ", "map-9999999", "map-1\n"):
        with pytest.raises(errors.InvalidMessage, match="expected <stage>-<index>"):
            parse_task(wrong)


def test_bitmaps() -> None:
    for tasks in (0, 1, 0b1010, 1 << 9999):
        assert bits(packed(tasks)) == tasks
        assert sum(1 << index for index in members(tasks)) == tasks
    assert packed(0) == b""
    assert list(members(0b1001_0000_0001)) == [0, 8, 11]


def test_the_state_of_a_stage() -> None:
    stage = StageState("map", 4, sent=packed(0b0111), done=packed(0b0011), empty=packed(0b0001), failed=packed(0b0100))
    assert stage.settled == 0b0111
    assert stage.outstanding == 0
    assert not stage.complete
    assert stage.counts == {"done": 2, "empty": 1, "failed": 1, "skipped": 0, "outstanding": 0}
    assert msgspec.structs.replace(stage, skipped=packed(0b1000)).complete
    assert msgspec.structs.replace(stage, failed=b"").outstanding == 0b0100
    assert not StageState("map").complete
    assert StageState("map", 0).complete


def test_the_state_of_a_run() -> None:
    state = RunState("r", RunRequest("m", "t"), stages=(StageState("map"),))
    assert state.active
    assert state.exit_code is None
    assert state.stage("map") is state.stages[0]
    assert state.stage("kernel") is None
    ended = cancel(state, 5.0)
    assert (ended.cancelled, ended.active, ended.finished, ended.exit_code) == (True, False, 5.0, 4)
    assert cancel(ended, 6.0) == ended
    for status, code in (("done", 0), ("partial", 3), ("failed", 1)):
        assert msgspec.structs.replace(state, status=status).exit_code == code
    assert msgspec.structs.replace(state, status="failed", failure=Failure("bad input", "", 2)).exit_code == 2
    assert Record("w", 0.0, 1.0).attempts == 1


def test_the_bus_exports_what_it_promises() -> None:
    from tilewright.protocol import bus

    assert bus.__all__ == sorted(bus.__all__)
    assert set(bus.__all__) == {"Bucket", "Bus", "BusSettings", "Delivery", "Entry", "Queue", "ServiceInfo", "StreamEvent"}
    assert all(hasattr(bus, name) and getattr(bus, name).__doc__ for name in bus.__all__)


@pytest.mark.parametrize("module", MODULES)
def test_only_the_bus_imports_the_client_library(module: str) -> None:
    script = (
        f"import sys, tilewright.protocol.{module}; print(*(name for name in ('nats', 'numpy', 'scipy', 'torch') if name in sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    bus = {"bus", "bootstrap", "_blobs", "_bucket", "_connection", "_dial", "_discovery", "_events", "_publish", "_pull", "_queue"}
    assert found == (["nats"] if module in bus else [])


def test_asking_the_time_is_all_a_message_does(monkeypatch: pytest.MonkeyPatch) -> None:
    from tilewright.protocol.messages import Event, pack

    monkeypatch.setattr(time, "time", lambda: 5.0)
    assert pack(Event("x"), "r") == pack(Event("x"), "r")
