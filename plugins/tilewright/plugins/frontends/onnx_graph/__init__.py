"""ONNX files as workloads: shapes are inferred node by node, with what is constant worked out on the way, and nothing is run.

Symbolic dims need values. Whatever cannot be counted (an operator that is not known, or a shape that stays unknown) is listed in
full, never counted as nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from tilewright.protocol.errors import InvalidInput, suggest
from tilewright.protocol.plugin import Options
from tilewright.protocol.workload import Workload

from .counting import count
from .shapes import Values, infer, plain_names

#: Most unknown nodes that an error names.
NAMED = 20


class Onnx:
    """Frontend ``onnx``: a file."""

    uses: ClassVar[tuple[str, ...]] = ("frontends:torch",)
    options: ClassVar[dict[str, str]] = {
        "dims": "values of symbolic dims, e.g. batch:1,height:640; a dim without a name is INPUT.AXIS",
        "batch": "value of the first axis of every input, where it is symbolic",
        "seq": "value of the second axis of inputs with two axes, where it is symbolic",
        "size": "value of the last two axes of inputs with four axes, where they are symbolic",
        "partial": "leave out what cannot be counted, and say so in the workload's source (false)",
    }

    def models(self) -> Sequence[str]:
        """None: it only reads files."""
        return ()

    def load(self, source: str, options: Options) -> Workload:
        """Read the file `source`; `InvalidInput` lists everything that cannot be counted."""
        for name in options:
            if name not in self.options:
                raise InvalidInput(f"option {name!r}: frontend onnx has no such option{suggest(name, self.options)}")
        partial = options.get("partial", False)
        if not isinstance(partial, bool):
            raise InvalidInput(f"partial: {partial!r}, expected true or false")
        graph = _read(source)
        values = infer(graph, pin(graph, options, source))
        workload, unknown = count(Path(source).stem, graph, values)
        if not unknown:
            return workload
        named = "; ".join(unknown[:NAMED]) + (f"; and {len(unknown) - NAMED} more" if len(unknown) > NAMED else "")
        if partial and workload.nodes:
            import msgspec

            return msgspec.structs.replace(workload, source=f"{workload.source}; NOT COUNTED, {len(unknown)} nodes: {'; '.join(unknown)}")
        raise InvalidInput(
            f"{source}: {len(unknown)} of {len(values.nodes)} nodes cannot be counted (option partial leaves them out): {named}"
        )


def _read(source: str) -> Any:
    path = Path(source)
    if not path.is_file():
        raise InvalidInput(f"model file {source!r} does not exist")
    try:
        import onnx
    except ImportError as error:
        raise InvalidInput(f"frontend onnx needs onnx ({error}); install tilewright with the extra frontends") from error
    try:
        model = onnx.load(source, load_external_data=False)
    except Exception as error:  # protobuf raises its own kinds
        raise InvalidInput(f"{source}: not an ONNX file: {error}") from error
    if not model.graph.node:
        raise InvalidInput(f"{source}: not an ONNX file, or one without nodes")
    return model


def pin(model: Any, options: Options, source: str) -> Values:
    """Shapes of the inputs; `InvalidInput` for symbolic dims without a value, and for values of dims that are not there."""
    wanted = _dims(options)
    weights = {each.name for each in model.graph.initializer}
    values, missing = Values(), []
    used: set[str] = set()
    for each in model.graph.input:
        if each.name in weights:
            continue
        plain_names(each.name, *(dim.dim_param for dim in each.type.tensor_type.shape.dim))
        shape = []
        dims = each.type.tensor_type.shape.dim
        for axis, dim in enumerate(dims):
            labels = (dim.dim_param, f"{each.name}.{axis}")
            said = next((label for label in labels if label in wanted), None)
            used.update(label for label in labels if label in wanted)
            named = _by_position(options, axis, len(dims))
            if said is not None:
                shape.append(wanted[said])
            elif dim.HasField("dim_value") and dim.dim_value > 0:
                shape.append(dim.dim_value)
            elif named is not None:
                shape.append(named)
            else:
                missing.append(labels[0] if labels[0].isidentifier() else labels[1])
                shape.append(0)
        values.shapes[each.name] = (tuple(shape), each.type.tensor_type.elem_type)
    if missing:
        names = ", ".join(dict.fromkeys(missing))
        example = ",".join(f"{name}:N" for name in dict.fromkeys(missing))
        raise InvalidInput(f"{source}: symbolic dims without values: {names}; give them with the option dims={example}")
    for name in wanted:
        if name not in used:
            raise InvalidInput(f"dims: {name!r} is no dim of an input of {source}")
    return values


def _by_position(options: Options, axis: int, axes: int) -> int | None:
    name = "batch" if axis == 0 else "seq" if axes == 2 and axis == 1 else "size" if axes == 4 and axis >= 2 else ""
    value = options.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidInput(f"{name}: {value!r}, expected an integer >= 1")
    return value


def _dims(options: Options) -> dict[str, int]:
    found = {}
    for word in str(options.get("dims", "")).split(","):
        name, colon, value = word.rpartition(":")
        if not word.strip():
            continue
        if not colon or not value.strip().isdigit() or int(value) < 1:
            raise InvalidInput(f"dims: {word.strip()!r}, expected NAME:N, e.g. batch:1")
        found[name.strip()] = int(value)
    return found
