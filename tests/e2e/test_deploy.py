"""The page deploy/README.md, followed: an own server from deploy/nats.conf, services started by hand, a run."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tilewright.services.runtime.nats_server import binary

DEPLOY = Path(__file__).parents[2] / "deploy"
MAIN = [sys.executable, "-c", "from tilewright.services.cli import main; main()"]
SERVICES = ("pipeline", "profiler", "mapper", "codesigner", "kernelgen", "simulator")


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """What the page exports, on a free port; the server runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = (DEPLOY / "nats.conf").read_text()
    assert "127.0.0.1:4222" in config
    (tmp_path / "nats.conf").write_text(config.replace("127.0.0.1:4222", f"127.0.0.1:{port}"))
    (tmp_path / "token").write_text("a-token\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TILEWRIGHT_")}
    own = {"TILEWRIGHT_NATS_URL": f"nats://127.0.0.1:{port}", "TILEWRIGHT_NATS_TOKEN_FILE": str(tmp_path / "token")}
    with subprocess.Popen(
        [binary(), "-c", "nats.conf"], cwd=tmp_path, env=kept | {"NATS_TOKEN": "a-token"}, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        assert any("Server is ready" in line for line in server.stderr)
        yield kept | own
        server.terminate()


def cli(environment: dict[str, str], *words: str) -> str:
    done = subprocess.run([*MAIN, *words], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_works(environment: dict[str, str]) -> None:
    assert "TW_JOB_MAP" in cli(environment, "admin", "init")
    with ExitStack() as house:
        for name in SERVICES:
            process = subprocess.Popen([*MAIN, "serve", name], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            house.enter_context(process)
            house.callback(process.terminate)
        summary = json.loads(cli(environment, "map", "bert-base", "--seq", "128", "--target", "gemmini", "--json").splitlines()[-1])
        assert summary["status"] == "done"
        assert all(name in cli(environment, "services") for name in SERVICES)


def test_the_page_names_settings_that_exist() -> None:
    from tilewright.services.runtime.settings import Settings

    text = (DEPLOY / "README.md").read_text()
    assert {name.lower() for name in re.findall(r"TILEWRIGHT_([A-Z_]+)", text)} <= set(Settings.__struct_fields__)
