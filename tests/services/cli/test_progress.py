"""What is known while a run runs, and how it is told."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from tilewright.protocol.messages import Event, Failure, RunRequest, pack
from tilewright.protocol.run import RunState, StageState, packed
from tilewright.protocol.subjects import EventKind, event_subject
from tilewright.services.cli import console, views
from tilewright.services.cli.live import LiveView, tree
from tilewright.services.cli.progress import Happening, Progress, as_json, read

RUN = "01kb9a2c3d4e5f6g7h8j"


def happening(stage: str, task: str, kind: EventKind, event: Event | None = None) -> Happening:
    found = read(event_subject(RUN, stage, task, kind), pack(event or Event(), RUN, task=task), 7)
    assert found is not None
    return found


def lines(progress: Progress, objective: str = "edp") -> str:
    out = io.StringIO()
    Console(file=out, width=120, markup=False).print(tree(progress, objective, progress.began + 12.0))
    return out.getvalue()


def test_a_run_from_its_events() -> None:
    progress = Progress(RUN)
    assert "waiting for the pipeline" in lines(progress)
    progress.see(happening("map", "-", "queued", Event("3 tasks", {"tasks": 3.0, "skipped": 1.0})))
    progress.see(happening("map", "map-0", "queued", Event("encoder.dense")))
    assert "map-0" not in lines(progress)
    progress.see(happening("map", "map-0", "started", Event(worker="w1")))
    progress.see(happening("map", "map-0", "progress", Event("solving")))
    assert "map-0  encoder.dense  solving" in lines(progress)
    progress.see(happening("map", "map-0", "progress", Event("solving", {"edp": 2e15, "gap": 0.05})))
    progress.see(happening("map", "map-0", "partial", Event(figures={"edp": 1e15, "evaluations": 1500.0}, worker="w2")))
    shown = lines(progress)
    assert "map" in shown and "0/3" in shown and "1 left out" in shown and "2 workers" in shown
    assert "map-0  encoder.dense  best 1.00 kJ·cycles, gap 5.0 %, 1.50 k evaluations" in shown
    progress.see(happening("map", "map-0", "result"))
    assert "map-0" not in lines(progress)
    progress.see(happening("map", "-", "state", Event("complete", {"done": 2.0, "failed": 1.0, "skipped": 1.0, "cached": 2.0})))
    assert progress.stages["map"].complete
    assert "2 ANSWERED FROM THE CACHE" in lines(progress) and "1 failed" in lines(progress)


def test_the_stored_state_corrects_what_events_said() -> None:
    progress = Progress(RUN)
    progress.see(happening("map", "map-0", "started"))
    progress.see(happening("map", "map-1", "started"))
    stage = StageState("map", 2, sent=packed(3), done=packed(1), cached=1)
    progress.see_state(RunState(RUN, RunRequest("bert-base", "gemmini"), stages=(stage,)))
    assert progress.title == "bert-base on gemmini"
    assert list(progress.stages["map"].tasks) == ["map-1"]
    assert (progress.stages["map"].done, progress.stages["map"].cached, progress.stages["map"].complete) == (1, 1, False)


def test_many_tasks_are_not_all_listed() -> None:
    progress = Progress(RUN)
    for index in range(9):
        progress.see(happening("map", f"map-{index}", "started"))
    progress.stages["map"].total = 9
    shown = lines(progress)
    assert "12 s" in shown and "map-5" in shown and "map-6" not in shown and "and 3 more" in shown


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (happening("run", "-", "accepted", Event("bert-base on gemmini: profile, map")), "bert-base on gemmini: profile, map"),
        (happening("run", "-", "log", Event("mapper ended by signal 9")), "mapper ended by signal 9"),
        (happening("run", "-", "state", Event("done")), ""),
        (happening("map", "-", "queued", Event("9 tasks", {"tasks": 9.0})), "map: 9 tasks"),
        (happening("map", "-", "queued", Event("1 tasks", {"tasks": 1.0, "skipped": 2.0})), "map: 1 task"),
        (happening("map", "-", "queued", Event("0 tasks", {"tasks": 0.0})), ""),
        (happening("map", "-", "state", Event("complete", {"done": 9.0, "cached": 9.0})), "map: 9 done, ALL ANSWERED FROM THE CACHE"),
        (
            happening("map", "-", "state", Event("complete", {"done": 8.0, "failed": 1.0, "cached": 2.0})),
            "map: 8 done, 2 ANSWERED FROM THE CACHE, 1 failed",
        ),
        (happening("map", "map-3", "error", Event(failure=Failure("crash", "killed"))), "map-3: failed: killed"),
        (happening("map", "map-3", "retry", Event("attempt 2: killed")), "map-3: tried again: attempt 2: killed"),
        (happening("map", "map-3", "log", Event("a plugin said this")), "map-3: a plugin said this"),
        (happening("map", "map-3", "progress", Event("working")), ""),
    ],
)
def test_what_is_worth_a_line(said: Happening, told: str) -> None:
    progress = Progress(RUN)
    progress.see(happening("map", "-", "queued", Event(figures={"tasks": 9.0})))
    progress.see(said)
    assert views.told(said, progress) == told


def test_failures_and_logs_are_kept_for_the_live_view() -> None:
    progress = Progress(RUN)
    for index in range(6):
        progress.see(happening("map", f"map-{index}", "error", Event(failure=Failure("crash", "killed"))))
    progress.see(happening("run", "-", "log", Event("mapper ended")))
    assert progress.log == ["map: killed (6 times)", "mapper ended"]
    for index in range(5):
        progress.see(happening("run", "-", "log", Event(f"line {index}")))
    assert progress.log == ["line 1", "line 2", "line 3", "line 4"]


def test_json_is_the_message_of_the_bus() -> None:
    said = as_json(happening("map", "map-0", "progress", Event("x", {"edp": 1.0})), "tw.v1.evt.r.map.map-0.progress")
    assert said["subject"] == "tw.v1.evt.r.map.map-0.progress" and said["sequence"] == 7
    assert (said["kind"], said["schema"], said["run"], said["task"]) == ("event", 1, RUN, "map-0")
    assert said["payload"] == {"text": "x", "figures": {"edp": 1.0}}


def test_what_a_newer_version_says_is_passed_over() -> None:
    assert read("tw.v1.evt.r.map.map-0.progress", b"\xc1", 1) is None


def test_the_live_view_draws_notes_and_leaves_them_behind(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    monkeypatch.setattr(console, "console", lambda: Console(file=out, width=100, force_terminal=True, markup=False))
    view = LiveView(RUN, "edp")
    view.seen(None)
    view.seen(RunState(RUN, RunRequest("bert-base", "gemmini", objective="latency"), stages=(StageState("map", 2),)))
    view.heard(happening("map", "map-0", "partial", Event(figures={"cycles": 2e6})), "")
    view.note("leaving")
    view.close()
    view.close()
    drawn = out.getvalue()
    assert "bert-base on gemmini" in drawn and "map-0  best 2.00 Mcycles" in drawn and "leaving" in drawn
    assert capsys.readouterr().err == "leaving\n"


def test_plain_and_json_views_say_what_they_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    plain, as_lines = views.PlainView(RUN), views.JsonView()
    for view in (plain, as_lines):
        view.seen(RunState(RUN, RunRequest("m", "t")))
        view.heard(happening("map", "-", "queued", Event(figures={"tasks": 9.0})), "a.subject")
        view.heard(happening("map", "map-0", "progress", Event("working")), "a.subject")
        view.note("a note")
        view.close()
        view.close()
    said = capsys.readouterr()
    assert said.err == "a note\na note\n"
    lines = said.out.splitlines()
    assert lines[0].endswith(" s  map: 9 tasks")
    assert [json.loads(line)["payload"] for line in lines[1:]] == [{"figures": {"tasks": 9.0}}, {"text": "working"}]


def test_the_view_follows_where_the_output_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(views.choose(RUN, None, json=True), views.JsonView)
    assert isinstance(views.choose(RUN, None, json=False), views.PlainView)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    view = views.choose(RUN, RunRequest("m", "t"), json=False)
    assert isinstance(view, LiveView)
    view.close()


def test_one_failure_of_many_tasks_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    view = views.PlainView(RUN)
    for stage, task, message in (
        ("map", "map-0", "killed"),
        ("map", "map-1", "killed"),
        ("map", "map-2", "late"),
        ("kernel", "kernel-0", "killed"),
    ):
        view.heard(happening(stage, task, "error", Event(failure=Failure("crash", message))), "")
    said = [line.partition(" s  ")[2] for line in capsys.readouterr().out.splitlines()]
    assert said == ["map-0: failed: killed", "map-2: failed: late", "kernel-0: failed: killed"]
