"""Runs a module once on fake tensors and records what it calls.

No weights exist, no memory is touched: modules are built on the meta device, then run under ``FakeTensorMode`` with a dispatch
mode that sees every ATen call, its shapes and strides. Views are followed, not counted. Modules that are one function made of many
calls (`COMPOSITES`) are recorded as that function.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.workload import INPUTS, Workload

from .calls import Call, Info, Ref, Step, Unknown
from .graph import Graph
from .others import composite
from .rules import NOTHING, base, steps

#: Class name of a module -> the function that it is.
COMPOSITES = (
    (re.compile(r".*RMSNorm$|T5LayerNorm$"), "rmsnorm"),
    (re.compile(r"NewGELUActivation$|FastGELUActivation$|QuickGELUActivation$|PytorchGELUTanh$|GELUTanh$"), "gelu"),
)
#: Most calls of a forward pass; Llama-3-70B has nine thousand.
MAX_CALLS = 100_000


def trace(name: str, module: Any, arguments: Sequence[Any], keywords: Mapping[str, Any], *, bits: int = 0, source: str = "") -> Workload:
    """The workload of one forward pass.

    `module` and all tensors must be fake (see `fake`). `bits` is the width of a word of the module's own type, where it should not
    be the width of that type. Raises `InvalidInput` for a call that cannot be counted, or whose shape depends on data.
    """
    import torch
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException

    parameters = sum(p.numel() for p in {id(p): p for p in module.parameters()}.values())
    recorder = _Recorder(name, module, bits)
    recorder.inputs(arguments, keywords)
    try:
        with torch.no_grad(), recorder.following(module), recorder.mode:
            module(*arguments, **keywords)
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise InvalidInput(f"{name}: {recorder.where}: the result of {error.func} depends on data, expected shapes that do not") from error
    except UnsupportedOperatorException as error:
        raise InvalidInput(f"{name}: {recorder.where}: operator {error.func} has no shape rule") from error
    return recorder.graph.build(source, parameters)


@contextmanager
def fake() -> Iterator[Any]:
    """Everything that is made inside exists by shape only."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True) as mode, _quiet():
        yield mode


@contextmanager
def _quiet() -> Iterator[None]:
    """What goes wrong is raised; torch need not log it, with its own stack, as well."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = before


class _Recorder:
    """State of one recording."""

    def __init__(self, name: str, module: Any, bits: int) -> None:
        import torch
        from torch.utils._python_dispatch import TorchDispatchMode

        self.graph = Graph(name)
        self._torch = torch
        self._modules: list[str] = []
        #: Depth of the module stack at which a composite began; 0: none.
        self._composite = 0
        self._calls = 0
        self._images: set[int] = set()
        self._keep: list[Any] = []
        self._static: set[int] = set()
        self._own = next((p.dtype for p in module.parameters() if p.dtype.is_floating_point), torch.float32)
        self._bits = bits
        for where, tensors, static in (("", module.named_parameters(), True), ("", module.named_buffers(), False)):
            for label, tensor in tensors:
                self._outside(f"{where}{label}", tensor, static)

        recorder = self

        class Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
            """Sees every call."""

            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                kwargs = kwargs or {}
                results = func(*args, **kwargs)
                recorder._record(func, args, kwargs, results)
                return results

        self.mode: Any = Mode()  # type: ignore[no-untyped-call]

    @property
    def where(self) -> str:
        """The module that runs."""
        return f"module {self._modules[-1]!r}" if self._modules and self._modules[-1] else "the outermost module"

    def inputs(self, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> None:
        """Name what comes from outside."""
        for label, value in (*((f"input{at}", each) for at, each in enumerate(arguments)), *keywords.items()):
            for at, tensor in enumerate(self._tensors(value)):
                self._outside(f"{label}.{at}" if at else label, tensor, False)
                if len(tensor.shape) == 4 and tensor.dtype.is_floating_point:
                    self._images.add(self._key(tensor))

    def _outside(self, label: str, tensor: Any, static: bool) -> None:
        key = self._key(tensor)
        if not self.graph.knows(key):
            self.graph.outside(key, label, tuple(tensor.shape), self._width(tensor))
        if static:
            self._static.add(key)

    def _tensors(self, value: Any) -> list[Any]:
        if isinstance(value, self._torch.Tensor):
            return [value]
        if isinstance(value, list | tuple):
            return [each for item in value for each in self._tensors(item)]
        if isinstance(value, dict):
            return [each for item in value.values() for each in self._tensors(item)]
        return []

    def _key(self, tensor: Any) -> int:
        storage = tensor.untyped_storage()
        self._keep.append(storage)  # addresses are not used again
        key: int = storage._cdata
        return key

    def _width(self, tensor: Any) -> int:
        width: int = tensor.dtype.itemsize * 8
        return self._bits if self._bits and tensor.dtype == self._own else width

    def _info(self, tensor: Any, key: int) -> Info:
        shape = tuple(int(extent) for extent in tensor.shape)
        repeated = tuple(stride == 0 and extent > 1 for stride, extent in zip(tensor.stride(), shape, strict=True))
        return Info(shape, repeated, self._width(tensor), key in self._static, len(shape) == 4 and key in self._images)

    @contextmanager
    def following(self, module: Any) -> Iterator[None]:
        """Know at each call which module runs."""
        handles = []
        for label, each in module.named_modules():
            function = next((function for pattern, function in COMPOSITES if pattern.fullmatch(type(each).__name__)), "")
            handles.append(each.register_forward_pre_hook(self._enter(label, function)))
            handles.append(each.register_forward_hook(self._leave(function)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, label: str, function: str) -> Any:
        def hook(module: Any, arguments: Any) -> None:
            self._modules.append(label)
            if function and not self._composite:
                self._composite = len(self._modules)

        return hook

    def _leave(self, function: str) -> Any:
        def hook(module: Any, arguments: Any, result: Any) -> None:
            if function and self._composite == len(self._modules):
                self._composite = 0
                self._whole(module, function, arguments[0], result)
            self._modules.pop()

        return hook

    def _whole(self, module: Any, function: str, x: Any, result: Any) -> None:
        """A composite as one operator."""
        tensors = [x, *module.parameters()]
        keys = [self._known(tensor) for tensor in tensors]
        made = self._key(result)
        operator = composite(function, self._info(x, keys[0]), self._info(result, made))
        self.graph.add(self._modules[-1], [Step(operator, {INPUTS: 0}, tuple(range(1, len(keys))))], keys, made)

    def _known(self, tensor: Any) -> int:
        key = self._key(tensor)
        if not self.graph.knows(key):
            self.graph.outside(
                key, f"{self._modules[-1] if self._modules else ''}.constant".strip("."), tuple(tensor.shape), self._width(tensor)
            )
        return key

    def _record(self, func: Any, args: Any, kwargs: Any, results: Any) -> None:
        if base(str(func)) in NOTHING:
            return
        outputs = self._tensors(results)
        if not outputs:
            return
        tensors: list[Any] = []
        arguments = self._plain(args, tensors)
        keywords = tuple((name, self._plain(value, tensors)) for name, value in sorted(kwargs.items()))
        keys = [self._key(tensor) for tensor in tensors]
        made = [self._key(output) for output in outputs]
        mutable = func._schema.is_mutable
        if not mutable and keys and all(key in keys for key in made):
            return  # a view
        if self._composite:
            return
        self._calls += 1
        if self._calls > MAX_CALLS:
            raise InvalidInput(f"{self.graph.name}: {self.where}: more than {MAX_CALLS} calls, expected a model that loops less")
        for tensor in tensors:
            self._known(tensor)
        call = Call(
            str(func),
            arguments,
            keywords,
            tuple(self._info(tensor, key) for tensor, key in zip(tensors, keys, strict=True)),
            tuple(self._info(output, key) for output, key in zip(outputs, made, strict=True)),
            self._torch.Tag.pointwise in func.tags,
        )
        try:
            found = steps(call)
        except Unknown as error:
            raise Unknown(f"{self.graph.name}: {self.where}: {error}") from error
        if found:
            self.graph.add(self._modules[-1] if self._modules else "", found, keys, made[0])
            for other in made[1:]:
                if other not in keys:
                    self.graph.move(other, made[0])
        self._follow_images(call, made)

    def _follow_images(self, call: Call, made: Sequence[int]) -> None:
        if base(call.name) == "convolution" or any(info.image for info in call.tensors):
            self._images.update(made)

    def _plain(self, value: Any, tensors: list[Any]) -> Any:
        """Arguments without tensors, and those in order."""
        if isinstance(value, self._torch.Tensor):
            tensors.append(value)
            return Ref(len(tensors) - 1)
        if isinstance(value, list | tuple):
            return tuple(self._plain(each, tensors) for each in value)
        return value if isinstance(value, int | float | str | bool | None) else str(value)
