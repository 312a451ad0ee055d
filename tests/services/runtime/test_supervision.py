"""The child process of a slot: what it does to a job, and what no plugin can do to it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tilewright.protocol.codec import decode, encode
from tilewright.protocol.messages import MapJob, Mapped
from tilewright.services.runtime import supervision
from tilewright.services.runtime.frames import Done, Identified, Note, Refused
from tilewright.services.runtime.settings import Settings
from tilewright.services.runtime.supervision import JobProcess, Stopped

from .conftest import Jobs, running


class Slot:
    """A child process, with all that it says."""

    def __init__(self, settings: Settings) -> None:
        self.printed = ""
        self.notes: list[Note] = []
        self.keys: list[str] = []
        self.process = JobProcess(settings, self._print)

    def _print(self, text: str) -> None:
        self.printed += text

    async def do(self, job: MapJob, *, limit: float = 60.0, needed: bool = True) -> Done | Refused | None:
        async def wanted(identified: Identified) -> bool:
            self.keys.append(identified.key)
            return needed

        return await self.process.perform("map", encode(job), wanted, self.notes.append, limit)


@pytest.fixture
async def slot(settings: Settings) -> AsyncIterator[Callable[..., Slot]]:
    made: list[Slot] = []

    def make(**changes: Any) -> Slot:
        made.append(Slot(msgspec.structs.replace(settings, **changes)))
        return made[-1]

    yield make
    for each in made:
        await each.process.close()


async def test_jobs_share_a_warm_process(slot: Callable[..., Slot], jobs: Jobs) -> None:
    one = slot()
    first, second = await one.do(jobs.job()), await one.do(jobs.job())
    assert isinstance(first, Done)
    assert isinstance(second, Done)
    assert first.answer == second.answer
    assert decode(first.answer, Mapped).schedule is not None
    assert first.complete
    assert len(jobs.started()) == 2
    assert len(set(jobs.started())) == 1
    assert [(note.kind, note.text) for note in one.notes if note.kind == "progress"] == [("progress", "working, plain")] * 2


async def test_a_process_is_replaced_after_its_share_of_jobs(slot: Callable[..., Slot], jobs: Jobs) -> None:
    one = slot(jobs_per_child=2)
    for _ in range(3):
        await one.do(jobs.job())
    first, second, third = jobs.started()
    assert first == second != third
    assert not running(first)


async def test_an_answer_that_is_known_is_not_computed(slot: Callable[..., Slot], jobs: Jobs) -> None:
    one = slot()
    assert await one.do(jobs.job(), needed=False) is None
    assert jobs.started() == []
    assert isinstance(await one.do(jobs.job()), Done)
    assert len(set(one.keys)) == 1


@pytest.mark.parametrize(
    ("do", "said"),
    [
        ("exit", "ended with exit code 3"),
        ("die", "was killed by SIGKILL; it last said: these are my last words"),
        ("crash", "was killed by SIGSEGV; it last said: "),
        ("breed and die", "ended with exit code 5"),
        ("babble", "said something unintelligible"),
    ],
)
async def test_a_crash_says_how(
    slot: Callable[..., Slot], jobs: Jobs, eventually: Callable[..., Awaitable[Any]], do: str, said: str
) -> None:
    one = slot()
    with pytest.raises(Stopped, match=said) as caught:
        await one.do(jobs.job(do))
    assert caught.value.reason == "crash"
    assert isinstance(await one.do(jobs.job()), Done)
    assert not running(jobs.started()[0])
    await eventually(lambda: not running(jobs.bred()))


@pytest.mark.parametrize(
    ("do", "changes", "limit", "said"),
    [
        ("eat", {"memory_limit": 300 << 20}, 60.0, r"memory: \d+ MiB resident, limit 300 MiB"),
        ("hang", {"idle_limit": 1.0}, 60.0, "hung: neither CPU use nor a sign of life for 1 s"),
        ("spin", {"idle_limit": 1.0}, 3.0, "time: not done after 3 s"),
        ("breed", {"idle_limit": 1.0}, 60.0, "hung"),
    ],
)
async def test_limits_stop_a_job(
    slot: Callable[..., Slot],
    jobs: Jobs,
    eventually: Callable[..., Awaitable[Any]],
    do: str,
    changes: dict[str, Any],
    limit: float,
    said: str,
) -> None:
    one = slot(**changes)
    with pytest.raises(Stopped, match=said) as caught:
        await one.do(jobs.job(do), limit=limit)
    assert caught.value.reason == "limit"
    assert not running(jobs.started()[0])
    await eventually(lambda: not running(jobs.bred()))


async def test_a_job_that_reports_is_alive_without_cpu(slot: Callable[..., Slot], jobs: Jobs, eventually: Callable[..., Any]) -> None:
    one = slot(idle_limit=1.0)
    work = asyncio.create_task(one.do(jobs.job("wait")))
    await eventually(jobs.started)
    _, pending = await asyncio.wait([work], timeout=3.0)
    assert pending
    assert one.process.alive
    jobs.go()
    assert isinstance(await work, Done)


@pytest.mark.parametrize(
    ("job", "reason", "again", "said"),
    [
        ({"do": "fail"}, "exception", True, "ValueError: it is no use, job (tilewright_unruly.py:"),
        ({"do": "leave"}, "exception", True, "SystemExit: 7"),
        ({"mapper": "unable"}, "broken plugin", False, "has no method search"),
        ({"mapper": "missing"}, "broken plugin", False, "No module named 'tilewright_unruly_missing'"),
        ({"mapper": "unrule"}, "bad input", False, "mapper 'unrule' is not installed; did you mean 'unruly'?"),
        ({"options": {"foldr": "x"}}, "bad input", False, "options.foldr: mapper 'unruly' has no such option; did you mean 'folder'?"),
    ],
)
async def test_a_refusal_says_who_is_to_blame(
    slot: Callable[..., Slot], jobs: Jobs, job: dict[str, Any], reason: str, again: bool, said: str
) -> None:
    one = slot()
    answer = await one.do(jobs.job(**job))
    assert isinstance(answer, Refused)
    assert said in answer.message
    assert (answer.reason, answer.again) == (reason, again)
    assert answer.exit_code == (2 if reason == "bad input" else 1)
    assert isinstance(await one.do(jobs.job()), Done), "the process goes on"


async def test_a_job_that_is_none_is_bad_input(slot: Callable[..., Slot], jobs: Jobs) -> None:
    async def wanted(identified: Identified) -> bool:
        return True

    wrong = msgspec.to_builtins(jobs.job()) | {"seed": "seven"}
    answer = await slot().process.perform("map", encode(wrong), wanted, lambda note: None, 60.0)
    assert answer == Refused("bad input", "MapJob: Expected `int`, got `str` - at `$.seed`", 2)


async def test_only_allowed_plugins_are_used(slot: Callable[..., Slot], jobs: Jobs) -> None:
    answer = await slot(plugins=("tilewright",)).do(jobs.job())
    assert isinstance(answer, Refused)
    assert answer.message == "mapper 'unruly' of tilewright-unruly is not allowed on this service (TILEWRIGHT_PLUGINS)"
    assert isinstance(await slot(plugins=("mappers:unruly", "tilewright")).do(jobs.job()), Done)


async def test_what_a_plugin_prints_is_heard(slot: Callable[..., Slot], jobs: Jobs, eventually: Callable[..., Awaitable[Any]]) -> None:
    one = slot()
    assert isinstance(await one.do(jobs.job("tell")), Done)
    await eventually(lambda: "another word\n" in one.printed)
    assert one.printed == "a word\nanother word\n"


async def test_a_plugin_finds_nothing_of_ours(slot: Callable[..., Slot], jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TILEWRIGHT_NATS_URL", "TILEWRIGHT_NATS_TOKEN_FILE", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "secret")
    kept, other = os.pipe()
    os.set_inheritable(kept, True)
    try:
        await slot(threads=3).do(jobs.job("look around"))
    finally:
        os.close(kept)
        os.close(other)
    found = json.loads((jobs.folder / "found.json").read_text())
    assert "secret" not in found["environment"].values()
    assert found["environment"]["OMP_NUM_THREADS"] == found["environment"]["OPENBLAS_NUM_THREADS"] == "3"
    assert {"", str(Path.cwd())}.isdisjoint(found["path"])
    pipes = [target for target in found["handles"].values() if target.startswith("pipe:")]
    assert len(set(pipes)) == 4, "commands, answers, output, lifeline"
    assert not [target for target in found["handles"].values() if target.startswith("socket:")]


async def test_an_edited_plugin_is_another_question_answered_by_the_new_code(slot: Callable[..., Slot], jobs: Jobs) -> None:
    one = slot()
    await one.do(jobs.job())
    jobs.module.write_text(jobs.module.read_text().replace('ACCENT = "plain"', 'ACCENT = "broad"'))
    await one.do(jobs.job())
    assert len(set(one.keys)) == 2
    assert [note.text for note in one.notes if note.kind == "progress"] == ["working, plain", "working, broad"]


async def test_the_group_dies_with_the_child(slot: Callable[..., Slot], jobs: Jobs, eventually: Callable[..., Awaitable[Any]]) -> None:
    one = slot()
    work = asyncio.create_task(one.do(jobs.job("breed")))
    await eventually(jobs.bred)
    os.kill(jobs.started()[0], signal.SIGKILL)
    with pytest.raises(Stopped, match="SIGKILL"):
        await work
    await eventually(lambda: not running(jobs.bred()))


async def test_a_detached_process_does_not_hold_us_up(slot: Callable[..., Slot], jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "PATIENCE", 0.2)
    one = slot()
    with pytest.raises(Stopped, match="ended with exit code 6"):
        await one.do(jobs.job("detach"))
    assert isinstance(await one.do(jobs.job()), Done)


async def test_folder_for_temporary_files_goes_with_the_child(slot: Callable[..., Slot], jobs: Jobs) -> None:
    one = slot()
    await one.do(jobs.job("look around"))
    folder = json.loads((jobs.folder / "found.json").read_text())["environment"]["TMPDIR"]
    assert os.access(folder, os.W_OK)
    await one.process.kill()
    assert not os.access(folder, os.F_OK)
    await one.process.kill()
    assert one.process.pid == 0
