"""The command line on the real embedded house: server, pipeline and services as processes, toy plugins for speed."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tilewright.services.runtime.embedded import StateFolder, stop

TOY = Path(__file__).parents[1] / "data" / "toy"
MAIN = [sys.executable, "-c", "from tilewright.services.cli import main; main()"]
RUN = ("run", "toy-net", "--frontend", "toy", "--target", "toy", "--mapper", "toy", "--codesigner", "toy")
MAP = ("map", "toy-net", "--frontend", "toy", "--target", "toy", "--mapper", "toy")
#: Seconds; generous, because the machine may be busy.
PATIENCE = 120.0


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.02)
    return value


@dataclasses.dataclass(frozen=True)
class House:
    """A state folder with everything that runs for it."""

    folder: StateFolder

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TILEWRIGHT_")}
        settings = {"TILEWRIGHT_STATE": str(self.folder.path), "TILEWRIGHT_ACK_WAIT": "2", "TILEWRIGHT_RETRY_DELAY": "0.05"}
        return kept | settings | {"PYTHONPATH": str(TOY), "COLUMNS": "200"}

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        return subprocess.run([*MAIN, *words], env=self.environment, capture_output=True, text=True, timeout=PATIENCE, check=False)

    @contextlib.contextmanager
    def started(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Run the command beside us."""
        pipe = subprocess.PIPE
        with subprocess.Popen([*MAIN, *words], env=self.environment, stdout=pipe, stderr=pipe, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def processes(self) -> list[psutil.Process]:
        """The supervisor, the server, the services and what they run."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != os.getpid() and process.environ().get("TILEWRIGHT_STATE") == str(self.folder.path):
                    found.append(process)
        return found

    def named(self, part: str) -> list[psutil.Process]:
        """Those whose command line has a word that contains `part`."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if any(part in word for word in process.cmdline()):
                    found.append(process)
        return found

    def close(self) -> None:
        stop(self.folder)
        until(lambda: not self.processes(), "nothing is left running")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A house of a test's own, not started yet."""
    house = House(StateFolder(tmp_path / "state"))
    yield house
    house.close()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house that is up for all tests of this module."""
    house = House(StateFolder(tmp_path_factory.mktemp("up") / "state"))
    done = house("up")
    assert done.returncode == 0, done.stderr
    yield house
    house.close()


def last(done: subprocess.CompletedProcess[str]) -> Any:
    """The summary that ends ``--json``."""
    return json.loads(done.stdout.splitlines()[-1])


def first_event(process: subprocess.Popen[str], kind: str) -> dict[str, Any]:
    """The next event of a kind that ``--json`` prints."""
    assert process.stdout is not None
    for line in process.stdout:
        said: dict[str, Any] = json.loads(line)
        if said.get("subject", "").endswith(f".{kind}"):
            return said
    raise AssertionError(f"ended without an event {kind}: {process.stderr.read() if process.stderr else ''}")


def test_a_run_on_a_fresh_folder_answers_everything_and_leaves_nothing_behind(house: House) -> None:
    done = house(*RUN, "--seq", "16")
    assert done.returncode == 0, done.stderr
    for words in ("profile: 1 done", "map: 3 done", "layer0", "same model", "Bottleneck", "Co-design", "Kernels", "tilewright show"):
        assert words in done.stdout
    until(lambda: not house.processes(), "the supervisor leaves by itself")
    # Reading starts the server only, and what was stored is there.
    shown = house("show", "last", "--json")
    assert last(shown)["status"] == "done" and shown.returncode == 0
    assert house.named("nats-server") and not house.named("runtime.serve")


def test_json_is_one_event_per_line_and_the_summary_last(up: House) -> None:
    done = up(*MAP, "--seq", "11", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    run = lines[-1]["run"]
    assert done.returncode == 0
    assert all(line["run"] == run and line["kind"] == "event" for line in lines[:-1])
    kinds = [line["subject"].split(".")[-1] for line in lines[:-1]]
    assert kinds[0] == "accepted" and {"queued", "started", "result", "state"} <= set(kinds)
    sequences = [line["sequence"] for line in lines[:-1]]
    assert sequences == sorted(set(sequences))
    # 8 x 16 x width MACs, one unit: cycles by hand for 11 rows.
    assert [layer["cycles"] for layer in lines[-1]["layers"]] == [11 * 16 * width for width in (8, 16, 32)]
    assert lines[-1]["totals"]["cycles"] == 11 * 16 * (2 * 8 + 16 + 32)


def test_the_second_time_the_cache_answers_and_says_so(up: House) -> None:
    first, second, third = (up(*RUN, "--seq", "12", *more) for more in ((), (), ("--no-cache",)))
    assert "CACHE" not in first.stdout
    assert "map: 3 done, ALL ANSWERED FROM THE CACHE" in second.stdout
    assert "all 10 tasks ANSWERED FROM THE CACHE" in second.stdout
    assert "CACHE" not in third.stdout
    runs = [json.loads(line)["run"] for line in up("runs", "--json").stdout.splitlines()][-3:]
    assert len({up("show", run, "--digest").stdout for run in runs}) == 1


def test_verbs_run_what_their_stage_needs(up: House) -> None:
    common = ("toy-net", "--frontend", "toy", "--target", "toy", "--json")
    for verb, stages in (("profile", ["profile"]), ("map", ["profile", "map"]), ("simulate", ["profile", "map", "simulate"])):
        more = () if verb == "profile" else ("--mapper", "toy")
        assert list(last(up(verb, *common, *more))["stages"]) == stages
    assert list(last(up(*RUN, "--stages", "codesign", "--json"))["stages"]) == ["profile", "map", "codesign"]


def on_terminal(house: House, *words: str, **environment: str) -> tuple[str, int]:
    """What a command draws on a terminal of 140 columns, and its exit code."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 140, 0, 0))
    kept = {name: value for name, value in house.environment.items() if name not in ("COLUMNS", "NO_COLOR", "TERM")}
    process = subprocess.Popen([*MAIN, *words], env=kept | {"TERM": "xterm-256color"} | environment, stdout=there, stderr=there)
    os.close(there)
    drawn = b""
    with contextlib.suppress(OSError):  # the terminal's end of file
        while data := os.read(here, 65536):
            drawn += data
    os.close(here)
    return drawn.decode(), process.wait(PATIENCE)


def test_a_terminal_gets_a_live_tree_and_then_the_tables(up: House) -> None:
    drawn, code = on_terminal(up, *MAP, "--seq", "17", "--mapper-option", "seconds=0.5")
    assert code == 0
    tree, _, tables = drawn.partition("Layers (figures of one occurrence)")
    for words in ("toy-net on toy", "profile", "map-0", "layer0", "best ", "\x1b[2K"):
        assert words in tree
    assert "layer0" in tables and "Bottleneck" in tables and "\x1b[2K" not in tables
    # The cursor is back.
    assert drawn.count("\x1b[?25l") == drawn.count("\x1b[?25h")


def test_no_color_means_no_colour(up: House) -> None:
    up(*MAP, "--seq", "18")
    colour = re.compile(r"\x1b\[[0-9;]*(3[0-7]|9[0-7]|38;[0-9;]+)m")
    assert colour.search(on_terminal(up, "runs")[0])
    assert not colour.search(on_terminal(up, "runs", NO_COLOR="1")[0])
    assert "\x1b" not in up("runs").stdout


def test_detach_then_attach(up: House) -> None:
    run = up(*MAP, "--seq", "13", "--mapper-option", "seconds=1", "--detach").stdout.strip()
    assert last(up("show", run, "--json"))["run"] == run
    done = up("attach", run)
    assert done.returncode == 0
    assert "map: 3 done" in done.stdout and f"{run} done" in done.stdout


def test_cancel_ends_the_watching_command_with_4(up: House) -> None:
    with up.started(*MAP, "--seq", "14", "--mapper-option", "seconds=60", "--json") as watching:
        run = first_event(watching, "started")["run"]
        done = up("cancel", run)
        assert done.returncode == 0 and f"run {run} is cancelled" in done.stdout
        assert watching.stdout is not None
        summary = json.loads(watching.stdout.read().splitlines()[-1])
        assert watching.wait(PATIENCE) == 4
    assert summary["status"] == "cancelled"
    assert up("attach", run).returncode == 4


def test_ctrl_c_once_detaches_twice_cancels(up: House) -> None:
    with up.started(*MAP, "--seq", "15", "--mapper-option", "seconds=60", "--json") as watching:
        run = first_event(watching, "started")["run"]
        watching.send_signal(signal.SIGINT)
        assert watching.stdout is not None and watching.stderr is not None
        assert "leaving run" in watching.stderr.readline()
        assert json.loads(watching.stdout.read().splitlines()[-1]) == {"run": run, "status": "running", "detached": True}
        assert watching.wait(PATIENCE) == 0
    with up.started("attach", run, "--json") as watching:
        first_event(watching, "started")
        watching.send_signal(signal.SIGINT)
        assert watching.stderr is not None
        assert "leaving run" in watching.stderr.readline()
        watching.send_signal(signal.SIGINT)
        assert "cancelling run" in watching.stderr.readline()
        assert watching.wait(PATIENCE) == 4


def test_two_runs_at_the_same_time(up: House) -> None:
    with (
        up.started(*RUN, "--option", "layers=3", "--seq", "21", "--json") as one,
        up.started(*RUN, "--option", "layers=4", "--seq", "22", "--json") as two,
    ):
        ended = [json.loads(each.communicate(timeout=PATIENCE)[0].splitlines()[-1]) for each in (one, two)]
    assert [each["status"] for each in ended] == ["done", "done"]
    assert ended[0]["run"] != ended[1]["run"]
    assert [len(each["layers"]) for each in ended] == [2, 3]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--seq", "0"), "seq: 0, expected 1 to 64"),
        (("--seq", "-3"), "seq: -3, expected 1 to 64"),
        (("--seq", "65"), "seq: 65, expected 1 to 64"),
        (("--parameter", "buffer_kib=1"), "buffer_kib"),
        (("--parameter", "bufer_kib=8"), "did you mean 'buffer_kib'?"),
    ],
)
def test_what_only_a_service_can_judge_is_bad_input_too(up: House, words: tuple[str, ...], text: str) -> None:
    done = up(*MAP, *words)
    assert done.returncode == 2
    assert text in done.stderr and done.stderr.count("\n") == 1
    assert "Traceback" not in done.stdout + done.stderr


def test_an_unknown_option_of_a_mapper_is_bad_input(up: House) -> None:
    done = up(*MAP, "--mapper-option", "second=3")
    assert done.returncode == 2
    assert "did you mean 'seconds'?" in done.stderr


def test_a_plugin_that_fails_fails_the_run_with_its_reason(up: House) -> None:
    done = up(*MAP, "--mapper-option", "fail=true")
    assert done.returncode == 1
    assert "told to fail" in done.stderr


def test_nothing_found_is_partial_or_failed_never_silent(up: House) -> None:
    done = up(*MAP, "--mapper-option", "nothing=true")
    assert done.returncode in (1, 3)
    assert "no mapping for layer0" in done.stdout


def test_services_list_what_answers(up: House) -> None:
    found = [json.loads(line)["name"] for line in up("services", "--json").stdout.splitlines()]
    for name in ("pipeline", "profiler", "mapper", "codesigner", "kernelgen", "simulator"):
        assert any(each.endswith(name) for each in found)


def test_down_stops_everything_and_what_ran_can_still_be_shown(house: House) -> None:
    assert house("up").returncode == 0
    assert house(*MAP, "--seq", "9").returncode == 0
    assert len(house.named("runtime.serve")) >= 6
    assert "everything has stopped" in house("down").stdout
    assert house.processes() == []
    assert "nothing was running" in house("down").stdout
    assert "layer0" in house("show", "last").stdout


def test_a_killed_command_leaves_the_run_and_no_process_behind(house: House) -> None:
    with house.started(*MAP, "--mapper-option", "seconds=1", "--json") as watching:
        run = first_event(watching, "started")["run"]
        watching.kill()
    until(lambda: not house.processes(), "the supervisor leaves when the run is over")
    assert last(house("show", run, "--json"))["status"] == "done"


def test_a_killed_supervisor_leaves_no_process_and_the_next_command_goes_on(house: House) -> None:
    with house.started(*MAP, "--mapper-option", "seconds=2", "--json") as watching:
        run = first_event(watching, "started")["run"]
        record = house.folder.record
        assert record is not None
        os.kill(record.pid, signal.SIGKILL)
        watching.kill()
    until(lambda: not house.processes(), "nothing outlives the supervisor")
    done = house("attach", run, "--json")
    assert done.returncode == 0, done.stderr
    assert last(done)["status"] == "done"


def test_who_watches_starts_the_next_supervisor(house: House) -> None:
    with house.started(*MAP, "--mapper-option", "seconds=2", "--json") as watching:
        first_event(watching, "started")
        record = house.folder.record
        assert record is not None
        os.kill(record.pid, signal.SIGKILL)
        assert watching.stdout is not None
        lines = [json.loads(line) for line in watching.stdout]
        assert watching.wait(PATIENCE) == 0
    assert lines[-1]["status"] == "done"
    sequences = [line["sequence"] for line in lines[:-1]]
    assert len(sequences) == len(set(sequences))


def test_a_killed_service_comes_back(house: House) -> None:
    with house.started(*MAP, "--mapper-option", "seconds=1", "--json") as watching:
        first_event(watching, "started")
        for process in house.named("runtime.serve"):
            if "mapper" in process.cmdline():
                process.kill()
        assert "it starts again" in first_event(watching, "log")["payload"]["text"]
        assert watching.stdout is not None
        summary = json.loads(watching.stdout.read().splitlines()[-1])
        assert watching.wait(PATIENCE) == 0
    assert summary["status"] == "done"


def test_a_service_in_the_foreground(house: House) -> None:
    with house.started("serve", "simulator") as serving:
        until(lambda: "simulator" in house("services").stdout, "it answers")
        serving.terminate()
        assert serving.wait(PATIENCE) == 0
