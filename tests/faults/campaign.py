"""Kill -9 at random, from a seed: worker children, workers, pipeline replicas, the supervisor, the NATS server.

One round starts from an empty store, runs 40 distinct tasks of a second each, and kills while it goes on: at least
`KILLS` processes, at least `INSIDE` of them with a task running inside (or below). The run must end well, with one recorded
result per task and the digest of an undisturbed run.

    python tests/faults/campaign.py --rounds 100 --seed 1

prints a line per round and ends with 1 if any went wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

SLOW = Path(__file__).parents[1] / "data" / "slow"
MAIN = [sys.executable, "-c", "from tilewright.services.cli import main; main()"]
TASKS = 40
KILLS, INSIDE = 20, 8
#: Role -> how often it is chosen.
ROLES = {"child": 8, "worker": 2, "pipeline": 3, "server": 2, "supervisor": 2}
#: What a role's command line contains.
MARKS = {
    "child": ("tilewright.services.runtime.child",),
    "worker": ("tilewright.services.runtime.serve", "mapper"),
    "pipeline": ("tilewright.services.runtime.serve", "pipeline"),
    "server": ("nats-server",),
    "supervisor": ("tilewright.services.runtime.supervisor",),
}
#: A task whose child was killed this often is left alone: the third crash of one task is a dead letter, by design.
SPARED_AFTER = 1
#: Share of kills that wait until a task runs.
PATIENT = 0.7
#: Seconds after which a round is given up.
PATIENCE = 240.0


@dataclass
class Round:
    """One run under fire, and what was seen of it."""

    folder: Path
    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    inside: int = 0
    log: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What our processes get."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TILEWRIGHT_")}
        return kept | {
            "TILEWRIGHT_STATE": str(self.folder / "state"),
            "TILEWRIGHT_ACK_WAIT": "2",
            "TILEWRIGHT_RETRY_DELAY": "0.2",
            "TILEWRIGHT_RECONCILE_EVERY": "2",
            "TILEWRIGHT_SLOTS": "4",
            "PYTHONPATH": os.pathsep.join([str(SLOW), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }

    @property
    def notes(self) -> Path:
        """Where the mapper writes down its executions."""
        return self.folder / "executions"

    def cli(self, *words: str) -> str:
        """Run the command to its end; what it printed."""
        done = subprocess.run([*MAIN, *words], env=self.environment, capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode:
            raise AssertionError(f"tilewright {' '.join(words)} ended with {done.returncode}: {done.stdout[-2000:]} {done.stderr[-2000:]}")
        return done.stdout

    def events(self) -> list[tuple[str, int, int]]:
        """(start or end, process, task) of every execution so far."""
        if not self.notes.exists():
            return []
        lines = [line.split() for line in self.notes.read_text().splitlines()]
        return [(kind, int(pid), int(task)) for kind, pid, task in lines]

    def running(self) -> dict[int, int]:
        """Process -> the task that runs in it."""
        found: dict[int, int] = {}
        for kind, pid, task in self.events():
            if kind == "start":
                found[pid] = task
            else:
                found.pop(pid, None)
        return {pid: task for pid, task in found.items() if psutil.pid_exists(pid)}

    @property
    def executions(self) -> int:
        """Executions that were begun."""
        return sum(kind == "start" for kind, _, _ in self.events())

    def house(self) -> dict[str, list[psutil.Process]]:
        """Our processes by role."""
        found: dict[str, list[psutil.Process]] = {role: [] for role in MARKS}
        state = str(self.folder / "state")
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                role = _role(process)
                owner = process.parent() if role == "child" else process  # a child gets nothing of the environment
                if role and owner is not None and owner.environ().get("TILEWRIGHT_STATE") == state:
                    found[role].append(process)
        return found

    def fire(self, until_done: subprocess.Popen[str]) -> None:
        """Kill until there were enough kills, or the run is over."""
        chance = random.Random(self.seed)
        hit: Counter[int] = Counter()
        started = time.monotonic()
        while until_done.poll() is None and (self.kills.total() < KILLS or self.inside < INSIDE):
            # Most kills wait for a task to run, so that a slow machine gets as many of them inside as a fast one.
            patient = not self.kills or chance.random() < PATIENT
            while patient and not self.running() and until_done.poll() is None and time.monotonic() - started < PATIENCE:
                time.sleep(0.02)
            time.sleep(chance.uniform(0.1, 0.7))
            role = chance.choices(list(ROLES), list(ROLES.values()))[0]
            if self.kills.total() >= KILLS:  # enough of them, not enough inside
                role = "child"
            victims = sorted(self.house()[role], key=lambda each: each.pid)
            running = self.running()
            if role == "child":
                victims = [each for each in victims if each.pid in running and hit[running[each.pid]] < SPARED_AFTER]
            if not victims:
                continue
            victim = chance.choice(victims)
            with contextlib.suppress(psutil.Error):
                below = {victim.pid, *(each.pid for each in victim.children(recursive=True))}
                running = self.running()
                victim.kill()
                inside = sorted(task for pid, task in running.items() if pid in below)
                if role == "child":
                    hit.update(inside)
                self.kills[role] += 1
                self.inside += bool(inside)
                self.log.append(f"{time.monotonic() - started:6.2f} s  kill -9 {role} {victim.pid}, tasks inside: {inside or '-'}")

    def play(self, *, fire: bool) -> dict[str, Any]:
        """Run to the end; what `show` says then, with the digest."""
        words = ["map", "slow-net", "--frontend", "slow", "--option", f"tasks={TASKS}", "--target", "gemmini", "--mapper", "slow"]
        words += ["--mapper-option", f"log={self.notes}", "--json"]
        with (self.folder / "run.out").open("w") as out, (self.folder / "run.err").open("w") as err:
            process = subprocess.Popen([*MAIN, *words], env=self.environment, stdout=out, stderr=err, text=True)
            try:
                if fire:
                    self.fire(process)
                code = process.wait(PATIENCE)
            finally:
                process.kill()
        lines = (self.folder / "run.out").read_text().splitlines()
        if code != 0:
            raise AssertionError(f"the run ended with {code}: {lines[-1:]} {(self.folder / 'run.err').read_text()[-2000:]}")
        run = json.loads(lines[-1])["run"]
        shown: dict[str, Any] = json.loads(self.cli("show", run, "--json").splitlines()[-1])
        shown["digest"] = self.cli("show", run, "--digest").strip()
        return shown

    def close(self) -> None:
        """Stop the house; kill what is left."""
        self.cli("down")
        deadline = time.monotonic() + 20
        while any(self.house().values()):
            if time.monotonic() > deadline:
                raise AssertionError(f"still running after `down`: {self.house()}")
            time.sleep(0.05)


def _role(process: psutil.Process) -> str:
    words = process.cmdline()
    return next((role for role, marks in MARKS.items() if all(any(mark in word for word in words) for mark in marks)), "")


def undisturbed(folder: Path) -> str:
    """The digest of a run that nobody disturbs."""
    calm = Round(folder, 0)
    try:
        shown = calm.play(fire=False)
        assert calm.executions == TASKS, f"{calm.executions} executions of {TASKS} tasks without a fault"
        return str(shown["digest"])
    finally:
        calm.close()


def under_fire(folder: Path, seed: int, digest: str) -> Round:
    """One round; AssertionError says what went wrong, with the log of the kills."""
    round_ = Round(folder, seed)
    try:
        shown = round_.play(fire=True)
        log = "\n".join(round_.log)
        stage = shown["stages"]["map"]
        assert (shown["status"], stage["done"], stage["failed"]) == ("done", TASKS, 0), f"seed {seed}: {shown['status']}, {stage}\n{log}"
        recorded = [layer["task"] for layer in shown["layers"] if layer["energy_pj"]]
        assert len(recorded) == len(set(recorded)) == TASKS, f"seed {seed}: {len(recorded)} recorded results\n{log}"
        assert shown["digest"] == digest, f"seed {seed}: digest {shown['digest']}, undisturbed {digest}\n{log}"
        assert round_.kills.total() >= KILLS, f"seed {seed}: only {round_.kills.total()} kills before the run was over\n{log}"
        assert round_.inside >= INSIDE, f"seed {seed}: only {round_.inside} kills inside a running task\n{log}"
        assert round_.executions > TASKS, f"seed {seed}: nothing was executed twice\n{log}"
        return round_
    finally:
        round_.close()


def main() -> int:
    """Play a campaign."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1, help="of the first round; the others count up")
    arguments = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        (calm := Path(name) / "calm").mkdir()
        digest = undisturbed(calm)
        for seed in range(arguments.seed, arguments.seed + arguments.rounds):
            (folder := Path(name) / str(seed)).mkdir()
            started = time.monotonic()
            try:
                done = under_fire(folder, seed, digest)
                kills = ", ".join(f"{role} {count}" for role, count in sorted(done.kills.items()))
                print(
                    f"seed {seed}: ok in {time.monotonic() - started:.0f} s; {kills}; {done.inside} inside; {done.executions} executions",
                    flush=True,
                )
            except AssertionError as error:
                bad += 1
                print(f"seed {seed}: WRONG: {error}", flush=True)
    print(f"{arguments.rounds - bad} of {arguments.rounds} rounds ended well")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
