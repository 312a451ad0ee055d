"""What services log."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest

from tilewright.services.runtime import logs


@pytest.fixture(autouse=True)
def handlers_are_put_back() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


async def test_json_lines_say_what_they_are_about(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json")
    log = logging.getLogger("tilewright.test")

    async def work(run: str, task: str) -> None:
        with logs.about(run, task):
            await asyncio.sleep(0)
            await asyncio.gather(asyncio.to_thread(log.info, "%s at %d %%", run, 50), asyncio.sleep(0))

    await asyncio.gather(work("run1", "map-0"), work("run2", ""))
    log.debug("not said")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("it failed")
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert len(said) == 3
    found = {(each["run"], each.get("task"), each["message"]) for each in said[:2]}
    assert found == {("run1", "map-0", "run1 at 50 %"), ("run2", None, "run2 at 50 %")}
    assert (said[2]["level"], said[2]["logger"]) == ("ERROR", "tilewright.test")
    assert said[2]["exception"].endswith("ValueError: two\nlines")
    assert "run" not in said[2]
    assert said[2]["time"].endswith("Z")


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text")
    logging.getLogger("tilewright.test").warning("a %s", "word")
    assert capsys.readouterr().err.endswith(" WARNING tilewright.test: a word\n")
