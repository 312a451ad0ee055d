"""Files that hold a module: exported programs, and Python files with a function that makes one."""

from __future__ import annotations

import importlib.util
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tilewright.protocol.errors import InvalidInput, TilewrightError
from tilewright.protocol.workload import Workload

from .recorder import fake, trace

EXPORTED = ".pt2"
Made = tuple[str, Any, tuple[Any, ...], dict[str, Any]]
#: Files that may hold a pickle, which could run anything.
PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")
#: Files of weights, which say nothing about what is done with them.
WEIGHTS = (".safetensors", ".gguf")


def load(source: str, bits: int) -> Workload:
    """Read the file and trace its module."""
    name, made, arguments, keywords = module(source)
    return _trace(
        name, made, arguments, keywords, bits, f"torch: {Path(source.partition('::')[0]).name}{'::' + name if '::' in source else ''}"
    )


def module(source: str) -> Made:
    """Name, module, arguments and keyword arguments that a file holds; `InvalidInput` says what is wrong with it."""
    file, _, name = source.partition("::")
    path = Path(file)
    if path.suffix in PICKLES:
        raise InvalidInput(
            f"{path}: a pickle can run any code when it is loaded, so it never is; export the module with torch.export.save to a "
            f"{EXPORTED} file, or give a Python file that makes it (FILE.py::NAME)"
        )
    if path.suffix in WEIGHTS:
        raise InvalidInput(f"{path}: weights alone, expected the config.json beside them, or a {EXPORTED} file of torch.export.save")
    if path.suffix not in (EXPORTED, ".py"):
        raise InvalidInput(f"{path}: expected a {EXPORTED} file of torch.export.save, or FILE.py::NAME")
    if not path.is_file():
        raise InvalidInput(f"model file {file!r} does not exist")
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise InvalidInput(f"frontend torch needs torch ({error}); install tilewright with the extra torch") from error
    return _exported(path) if path.suffix == EXPORTED else _made(path, name)


def _exported(path: Path) -> Made:
    import torch

    if not zipfile.is_zipfile(path):
        raise InvalidInput(f"{path}: not a file of torch.export.save")
    try:
        with _no_pickles(path), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch about itself
            program = torch.export.load(path)
            arguments, keywords = program.example_inputs or ((), {})
            made = torch.export.unflatten(program)
    except InvalidInput:
        raise
    except Exception as error:  # the library's reader raises many kinds
        raise InvalidInput(f"{path}: torch cannot read it as an exported program: {type(error).__name__}: {error}") from error
    if any(isinstance(extent, torch.SymInt) for node in program.graph.nodes for extent in getattr(node.meta.get("val"), "shape", ())):
        said = {str(name): str(limits) for name, limits in program.range_constraints.items()}
        raise InvalidInput(f"{path}: dynamic shapes {said}, expected a program exported with the shapes that are to be profiled")
    return path.stem, made, tuple(arguments), dict(keywords)


@contextmanager
def _no_pickles(path: Path) -> Iterator[None]:
    """Inside, torch reads plain tensors only: its own reader of exported programs falls back on unpickling what is none."""
    import torch

    real = torch.load

    def plain(*arguments: Any, **keywords: Any) -> Any:
        if keywords.get("weights_only") is not True:
            raise InvalidInput(f"{path}: holds a pickle, which could run any code and is never loaded")
        return real(*arguments, **keywords)

    torch.load = plain
    try:
        yield
    finally:
        torch.load = real


def _made(path: Path, name: str) -> Made:
    import torch

    if not name:
        raise InvalidInput(f"{path}: expected FILE.py::NAME, with the name of a function that returns a module and its example inputs")
    spec = importlib.util.spec_from_file_location(f"tilewright_model_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    own = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(own)
    except Exception as error:  # it is the user's own code
        raise InvalidInput(f"{path}: cannot be run: {type(error).__name__}: {error}") from error
    factory = getattr(own, name, None)
    if not callable(factory):
        raise InvalidInput(f"{path}: has no function {name!r}")
    try:
        with torch.device("meta"):
            made = factory()
    except Exception as error:  # it is the user's own code
        raise InvalidInput(f"{path}::{name}: {type(error).__name__}: {error}") from error
    if not isinstance(made, tuple) or len(made) not in (2, 3) or not isinstance(made[0], torch.nn.Module):
        raise InvalidInput(f"{path}::{name}: returned {type(made).__name__}, expected (module, arguments) or (module, arguments, keywords)")
    network, arguments, keywords = (*made, {})[:3]
    return name, network.eval(), tuple(arguments), dict(keywords)


def _trace(name: str, module: Any, arguments: Any, keywords: Any, bits: int, source: str) -> Workload:
    """Trace a module as it is, or as it was on the meta device."""
    import torch
    from torch.utils._pytree import tree_map_only

    with fake() as mode:
        try:
            if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
                module = module.to_empty(device="cpu")
            else:
                for each in module.modules():
                    for table in (each._parameters, each._buffers):
                        table.update({key: mode.from_tensor(tensor) for key, tensor in table.items() if tensor is not None})
            given = tree_map_only(torch.Tensor, lambda tensor: torch.empty_like(tensor, device="cpu"), (tuple(arguments), dict(keywords)))
            return trace(name, module, given[0], given[1], bits=bits, source=source)
        except TilewrightError:
            raise
        except Exception as error:  # whatever a module does not like
            raise InvalidInput(f"{name}: cannot be run on its example inputs: {type(error).__name__}: {error}") from error
