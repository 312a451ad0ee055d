"""Plugins that a test makes up, offered the way that installed ones are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tilewright.protocol.plugin import Kind
from tilewright.services.runtime.frames import FromChild, Note
from tilewright.services.runtime.host import Host

Offer = Callable[[Kind, str, Any], None]


@pytest.fixture
def offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Offer:
    """``offer(kind, name, factory)``: from now on there is such a plugin."""
    count = 0

    def install(kind: Kind, name: str, factory: Any) -> None:
        nonlocal count
        count += 1
        module = ModuleType(f"made_up_{name}")
        site = tmp_path / f"site{count}"
        module.__spec__ = spec_from_file_location(module.__name__, site / f"{module.__name__}.py")
        vars(module)["make"] = factory
        monkeypatch.setitem(sys.modules, module.__name__, module)
        info = site / f"made_up_{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{module.__name__}.py").touch()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: made-up-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[tilewright.{kind}.v1]\n{name} = made_up_{name}:make\n")
        monkeypatch.syspath_prepend(site)

    return install


class Heard(list[FromChild]):
    """What a job says."""

    @property
    def partial(self) -> list[dict[str, float]]:
        """Figures of the partial results."""
        return [frame.figures for frame in self if isinstance(frame, Note) and frame.kind == "partial"]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def host(heard: Heard) -> Host:
    return Host(heard.append)
