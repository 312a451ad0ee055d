"""Workloads that a profile needs beside its first, where the client loads them: settings of a sweep, passes of a generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.passes import Loader, generation
from tilewright.protocol.profile import Analysis, Counted, Given

from .request import source

if TYPE_CHECKING:
    from tilewright.protocol.messages import RunRequest
    from tilewright.protocol.plugin import Convention, Options
    from tilewright.protocol.workload import Workload

    from .options import RunOptions


def with_analysis(request: RunRequest, said: RunOptions, analysis: Analysis) -> RunRequest:
    """The request with what is to be analysed, and all workloads for it unless the service loads the model itself."""
    if request.workload is None or not (analysis.sweep or analysis.generate):
        return msgspec.structs.replace(request, analysis=analysis)
    frontend = registry.load("frontends", request.frontend)
    convention: Convention = registry.load("conventions", analysis.convention)
    loader = Loader(frontend, source(said.model))
    loader.loaded.append((request.frontend_options, request.workload))
    any_length = convention.any_length and "positions" in frontend.options
    asked = [(setting, analysis.asked(request.frontend_options, setting, any_length=any_length)) for setting in analysis.settings()]
    if analysis.generate:
        given = _passes(frontend, request.frontend, loader, convention, analysis, [options for _, options in asked])
    else:
        loader.ahead([options for _, options in asked])
        given = [Given(setting, loader(options)) for setting, options in asked]
        analysis = msgspec.structs.replace(analysis, sweep={})
    return msgspec.structs.replace(request, analysis=msgspec.structs.replace(analysis, given=tuple(given)), workload=given[0].workload)


def _passes(frontend: Any, name: str, loader: Loader, convention: Convention, analysis: Analysis, asked: Sequence[Options]) -> list[Given]:
    """Every pass that the sums over generations need, found by working them out."""
    if "decode" not in frontend.options:
        raise InvalidInput(f"--generate {analysis.generate}: the frontend {name} has no decoding, expected zoo or huggingface")

    def count(workload: Workload) -> Sequence[Counted]:
        return convention.count(workload, analysis.convention_options)

    loader.loaded.clear()
    for options in asked:
        generation(loader, count, options, analysis.generate)
    kept = ("seq", "ctx", *analysis.sweep)
    return [
        Given({name: value for name, value in options.items() if name in kept and isinstance(value, int)}, workload)
        for options, workload in loader.loaded
    ]
