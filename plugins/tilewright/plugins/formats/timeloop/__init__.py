"""The ``timeloop`` format: architecture, problem and mapping as Timeloop v0.3/v0.4 writes them, and its map files.

So that users can check Tilewright with the tool they trust, and start from the descriptions they have.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Document

from . import export
from .architecture import Tables, architecture, check_names, energy_tables
from .mapping import is_map_file, map_file, mapping
from .marked import MarkedDict, load
from .problem import operator

_PARTS = {"architecture": "architecture", "arch": "architecture", "problem": "problem", "mapping": "mapping", "ERT": "ERT", "ART": "ART"}


class Timeloop:
    """Reads and writes Timeloop descriptions."""

    def read(self, paths: Sequence[str]) -> Document:
        """One document from YAML files (architecture, problem, mapping, ERT, ART in any distribution) and map files.

        A YAML mapping needs the architecture and the problem beside it; a map file stands for itself. `InvalidInput` names file,
        line, column and what was expected.
        """
        found: dict[str, MarkedDict] = {}
        printed = None
        for path in paths:
            if is_map_file(path):
                if printed is not None or "mapping" in found:
                    raise InvalidInput(f"{path}: a second mapping, expected one")
                printed = map_file(path)
                continue
            top = load(path)
            known = {part for key, part in _PARTS.items() if key in top}
            if not known:
                raise top.error(f"has none of {', '.join(_PARTS)}; it has {', '.join(top) or 'nothing'}")
            for part in known:
                if part in found or (part == "mapping" and printed is not None):
                    raise InvalidInput(f"{path}: a second {part}, expected one")
                found[part] = top
        hardware = None
        if "architecture" in found:
            energies: Tables = energy_tables(found["ERT"])[0] if "ERT" in found else {}
            areas: Tables = energy_tables(found["ART"])[1] if "ART" in found else {}
            hardware = architecture(found["architecture"], energies, areas)
            check_names(hardware, energies, found.get("ERT", found["architecture"]))
        problem = operator(found["problem"]) if "problem" in found else None
        nest = printed
        if "mapping" in found:
            if hardware is None or problem is None:
                missing = "architecture" if hardware is None else "problem"
                raise found["mapping"].error(f"mapping: needs the {missing} beside it, to know its levels and dims", "mapping")
            nest = mapping(found["mapping"], hardware.level_names, problem)
        return Document(operator=problem, architecture=hardware, mapping=nest)

    def write(self, document: Document) -> dict[str, str]:
        """``architecture.yaml`` and ``tables.yaml``, ``problem.yaml``, ``mapping.yaml``, and ``mapping.map.txt`` when all are there.

        `InvalidInput` names what Timeloop cannot express (pools, networks, ragged loops, non-linear operators).
        """
        files: dict[str, str] = {}
        if document.architecture is not None:
            files["architecture.yaml"] = export.dump(export.architecture(document.architecture))
            files["tables.yaml"] = export.dump(export.tables(document.architecture))
        if document.operator is not None:
            files["problem.yaml"] = export.dump(export.problem(document.operator))
        if document.mapping is not None:
            if document.operator is None:
                raise InvalidInput("mapping: needs the operator beside it, to name its dims and tensors")
            tensors = tuple(tensor.name for tensor in document.operator.tensors)
            dims = tuple(document.operator.bounds)
            files["mapping.yaml"] = export.dump(export.mapping(document.mapping, tensors, dims))
            if document.architecture is not None:
                files["mapping.map.txt"] = export.map_text(document.operator, document.mapping, document.architecture)
        return files
