"""Tilewright's own files (see `tilewright.protocol.files`)."""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.protocol import files
from tilewright.protocol.plugin import Document


class Native:
    """Format ``native``: one section per file when written; any sections in any number of files when read."""

    def read(self, paths: Sequence[str]) -> Document:
        """Everything that the files describe; `InvalidInput` names file, line and column of what is wrong."""
        return files.read_document(paths)

    def write(self, document: Document) -> dict[str, str]:
        """``operator.yaml``, ``architecture.yaml``, ``constraints.yaml`` and ``mapping.yaml``, as far as there are such parts."""
        texts = {
            "operator": files.write(operator=document.operator),
            "architecture": files.write(architecture=document.architecture),
            "constraints": files.write(constraints=document.constraints),
            "mapping": files.write(mapping=document.mapping),
        }
        return {f"{part}.yaml": text for part, text in texts.items() if getattr(document, part) is not None}
