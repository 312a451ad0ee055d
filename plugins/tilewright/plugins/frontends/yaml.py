"""Hand-written operators: a native YAML or JSON file (see `tilewright.protocol.files`) as a workload."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tilewright.protocol import files
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Options
from tilewright.protocol.workload import Workload


class Yaml:
    """Frontend ``yaml``: the section ``workload`` (or ``operator``) of a file."""

    options: ClassVar[dict[str, str]] = {}

    def models(self) -> Sequence[str]:
        """None: it only reads files."""
        return ()

    def load(self, source: str, options: Options) -> Workload:
        """Read the file `source`; `InvalidInput` says where it is wrong."""
        if options:
            raise InvalidInput(f"option {next(iter(options))!r}: frontend yaml has no options; write the sizes into {source}")
        return files.read_workload(source)
