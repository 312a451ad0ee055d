"""What a service says of itself on standard error: lines for people, or one JSON object per line with the run and task it is about."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

Format = Literal["text", "json"]

#: Run and task that the code is at work for.
_about: ContextVar[tuple[str, str]] = ContextVar("about", default=("", ""))


@contextmanager
def about(run: str, task: str = "") -> Iterator[None]:
    """What is logged inside, in tasks started inside too, is about this run and task."""
    token = _about.set((run, task))
    try:
        yield
    finally:
        _about.reset(token)


class JsonLines(logging.Formatter):
    """One object per line: time, level, logger, message; where they are known run, task and exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record."""
        run, task = _about.get()
        said = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "run": run,
            "task": task,
            "exception": self.formatException(record.exc_info) if record.exc_info else "",
        }
        return json.dumps({key: value for key, value in said.items() if value or key == "message"})


def configure(form: Format) -> None:
    """Log to standard error in a form, from level INFO on."""
    handler = logging.StreamHandler()
    lines = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter(lines))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
