"""From what was typed to a `RunRequest`: names are looked up, files are read here, on the client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput, suggest
from tilewright.protocol.messages import RunRequest
from tilewright.protocol.plugin import Kind, Options

from ..runtime.host import check_options
from . import codesigning, parse

if TYPE_CHECKING:
    from tilewright.protocol.architecture import Architecture
    from tilewright.protocol.plugin import Budget, Document
    from tilewright.protocol.subjects import Stage
    from tilewright.protocol.workload import Workload

    from .options import RunOptions

DEFAULT_FRONTEND = "zoo"
#: Suffix of a model file -> the frontend that reads it; a folder is one of transformers.
FRONTENDS = {".yaml": "yaml", ".yml": "yaml", ".json": "huggingface", ".onnx": "onnx", ".pt2": "torch", ".py": "torch"}
#: Files of pickles or of weights alone: the frontend torch says why it does not read them.
FRONTENDS |= dict.fromkeys((".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".safetensors", ".gguf"), "torch")
#: What may stand before a model, and a colon -> the frontend that is meant.
PREFIXES = {"hf": "huggingface", "torch": "torch", "onnx": "onnx", "yaml": "yaml", "zoo": "zoo"}
#: Suffixes of architecture files.
FILES = (".yaml", ".yml")
DEFAULT_FORMAT = "native"


def build(said: RunOptions, stages: Sequence[Stage], *, local: bool) -> RunRequest:
    """The request for a run of `stages`.

    `local` says that the services are this installation's own, so that a name nobody installed here is unknown; on
    somebody else's cluster the services decide. Raises `InvalidInput` for whatever is wrong already here.
    """
    frontend, frontend_options, workload = _model(said, local)
    target, architecture = _target(said, local)
    plugin_options: dict[Stage, Options] = {
        "map": parse.options(said.mapper_option, "--mapper-option"),
        "codesign": parse.options(said.codesigner_option, "--codesigner-option"),
        "kernel": parse.options(said.emitter_option, "--emitter-option"),
        "simulate": parse.options(said.simulator_option, "--simulator-option"),
    }
    if local:
        _known(said, stages, plugin_options)
    asked = RunRequest(
        model=source(said.model),
        target=target,
        frontend=frontend,
        frontend_options=frontend_options,
        target_parameters=parse.integers(said.parameter, "--parameter"),
        stages=tuple(stages),
        objective=said.objective,
        mapper=said.mapper,
        mapper_options=plugin_options["map"],
        map_budget=_map_budget(said),
        codesigner=said.codesigner,
        codesigner_options=plugin_options["codesign"],
        codesign_budget=_budget(_default("codesign_budget"), said.design_evaluations, None, None),
        limits=codesigning.limits(parse.numbers(said.limit, "--limit"), said.target if local and architecture is None else ""),
        emitter=said.emitter,
        emitter_options=plugin_options["kernel"],
        simulator=said.simulator,
        simulator_options=plugin_options["simulate"],
        seed=said.seed,
        use_cache=not said.no_cache,
        workload=workload,
        architecture=architecture,
    )
    if said.beside:
        from .sharing import shared

        asked = shared(asked, said)
    return asked


def _default(field: str) -> Budget:
    """The default of a field of `RunRequest`."""
    budget: Budget = getattr(RunRequest(model="", target=""), field)
    return budget


def _map_budget(said: RunOptions) -> Budget:
    seconds, gap = parse.seconds("--time", said.seconds), parse.share("--until-gap", said.gap)
    return _budget(_default("map_budget"), said.evaluations, seconds, gap)


def _budget(default: Budget, evaluations: int | None, seconds: float | None, gap: float | None) -> Budget:
    said = {"evaluations": evaluations, "seconds": seconds, "gap": gap}
    return msgspec.structs.replace(default, **{name: value for name, value in said.items() if value is not None})


def _known(said: RunOptions, stages: Sequence[Stage], options: Mapping[Stage, Options]) -> None:
    """Look up the plugins that the stages use, and load those that are given options; errors suggest the nearest name."""
    used: dict[Stage, tuple[Kind, str]] = {
        "map": ("mappers", said.mapper),
        "codesign": ("codesigners", said.codesigner),
        "kernel": ("emitters", said.emitter),
        "simulate": ("simulators", said.simulator),
    }
    for stage, (kind, name) in used.items():
        if stage in stages and name:
            registry.find(kind, name)
            if options[stage]:
                check_options(kind, name, registry.load(kind, name).options, options[stage])


def _model(said: RunOptions, local: bool) -> tuple[str, Options, Workload | None]:
    """Frontend, its options, and the workload where the frontend reads files: those exist on the client only."""
    options = parse.options(said.option, "--option")
    for name, value in (("seq", said.seq), ("batch", said.batch)):
        if value is not None:
            if name in options:
                raise InvalidInput(f"--{name} {value} and --option {name}={options[name]}: expected one of them")
            options[name] = value
    model, path, name = source(said.model), file(said.model), frontend(said)
    if not local and name == DEFAULT_FRONTEND:
        return name, options, None
    plugin = registry.load("frontends", name)
    for option in options:
        if option not in plugin.options:
            raise InvalidInput(f"option {option!r} is unknown to the frontend {name}{suggest(option, plugin.options)}")
    models = plugin.models()
    if model in models:
        return name, options, None
    if models and not path.exists():
        raise InvalidInput(f"model {model!r} is unknown to the frontend {name}{suggest(model, models)}")
    if not path.exists():
        raise InvalidInput(f"model file {str(path)!r} does not exist")
    return name, options, plugin.load(model, options)


def frontend(said: RunOptions) -> str:
    """Name of the frontend: as asked for, or by the model's prefix, or by its file."""
    path = file(said.model)
    by_path = "huggingface" if path.is_dir() else FRONTENDS.get(path.suffix, DEFAULT_FRONTEND)
    return said.frontend or PREFIXES.get(_prefix(said.model), by_path)


def _prefix(model: str) -> str:
    prefix, colon, _ = model.partition(":")
    return prefix if colon and prefix in PREFIXES else ""


def source(model: str) -> str:
    """A model without the prefix that names its frontend."""
    return model.removeprefix(f"{prefix}:") if (prefix := _prefix(model)) else model


def file(model: str) -> Path:
    """The file that a model is in: ``FILE``, or ``FILE::NAME`` for something of that name in it."""
    return Path(source(model).partition("::")[0])


def _target(said: RunOptions, local: bool) -> tuple[str, Architecture | None]:
    """Name of the target, and its architecture where it was given as a file."""
    if Path(said.target).suffix in FILES or said.format:
        if said.parameter:
            raise InvalidInput(f"--parameter {said.parameter[0]!r}: {said.target} has no design space, expected a target's name")
        architecture = read([said.target], said.format or DEFAULT_FORMAT).architecture
        if architecture is None:
            raise InvalidInput(f"--target {said.target}: describes no architecture")
        return architecture.name, architecture
    if local:
        registry.find("targets", said.target)
    return said.target, None


def read(paths: Sequence[str], format: str) -> Document:
    """Read files of one format; `InvalidInput` names the file that is missing, or what is wrong in it."""
    for path in paths:
        if not Path(path).is_file():
            raise InvalidInput(f"file {path!r} does not exist")
    document: Document = registry.load("formats", format).read(list(paths))
    return document
