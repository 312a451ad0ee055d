"""``--export``: operator, architecture and mapping as the files of another tool, so that it can be asked as well."""

from __future__ import annotations

from pathlib import Path

from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Document

from . import console, parse

#: Format that is written unless another one is named.
DEFAULT_FORMAT = "timeloop"


def export(document: Document, folder: Path, format: str) -> None:
    """Write what a format makes of the document into a folder, and say which files; `InvalidInput` names what it cannot express."""
    texts: dict[str, str] = registry.load("formats", format).write(document)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / parse.file_name(name)).write_text(text, encoding="utf-8")
            console.note(str(folder / name))
    except OSError as error:
        raise InvalidInput(f"--export {folder}: {error.strerror}") from error
