"""What a job asks, as a key: the question without names and time limits, and the code that answers it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from msgspec.structs import replace

from tilewright.protocol import registry
from tilewright.protocol.keys import result_key
from tilewright.protocol.messages import CodesignJob, Job, MapJob, SimulateJob
from tilewright.protocol.plugin import Kind
from tilewright.protocol.subjects import Stage

from .host import Host

#: Kind and name of a plugin.
Named = tuple[Kind, str]


def question(job: Job) -> Job:
    """The part of a job that its answer depends on: a time limit only cuts, and what it cuts is not shared; costs have no names."""
    if isinstance(job, MapJob | CodesignJob):
        return replace(job, budget=replace(job.budget, seconds=None))
    if isinstance(job, SimulateJob):
        return replace(job, tasks=tuple(replace(task, name="", count=1) for task in job.tasks))
    return job


class Code:
    """The code that this process answers jobs with, as it was when first asked for."""

    def __init__(self) -> None:
        self._fingerprints: dict[tuple[Named, ...], str] = {}
        self._environments: dict[Named, str] = {}
        self._ids: dict[Named, str] = {}
        self._files: dict[Path, tuple[int, int]] = {}

    @property
    def stale(self) -> bool:
        """True when a file has changed since: this process has imported what is no longer there."""
        return any(_state(path) != state for path, state in self._files.items())

    def key(self, stage: Stage, job: Job, service: ModuleType, plugins: tuple[Named, ...], host: Host) -> str:
        """The result key of a job that `service` answers with `plugins`."""
        code = [self._fingerprint(service, plugins), *(self._environment(plugin, host) for plugin in plugins)]
        return result_key(stage, question(job), "\n".join(code))

    def names(self, plugins: Iterable[Named]) -> str:
        """Identities of plugins, for the record."""
        for plugin in plugins:
            if plugin not in self._ids:
                self._ids[plugin] = f"{plugin[0]}:{registry.find(*plugin).id}"
        return ", ".join(self._ids[plugin] for plugin in plugins)

    def _fingerprint(self, service: ModuleType, plugins: tuple[Named, ...]) -> str:
        if plugins not in self._fingerprints:
            own = sorted(Path(str(service.__file__)).parent.rglob("*.py"))
            files = [*own, *(path for plugin in plugins for path in registry.sources(*plugin))]
            self._files.update({path: _state(path) for path in files})
            digest = hashlib.sha256()
            for path in own:
                digest.update(path.name.encode() + b"\0" + path.read_bytes())
            self._fingerprints[plugins] = "\n".join([digest.hexdigest(), *(registry.fingerprint(*plugin) for plugin in plugins)])
        return self._fingerprints[plugins]

    def _environment(self, plugin: Named, host: Host) -> str:
        if plugin not in self._environments:
            asked: Any = getattr(host.plugin(*plugin), "environment", None)
            self._environments[plugin] = str(asked(host.context(*plugin))) if asked else ""
        return self._environments[plugin]


def _state(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)
