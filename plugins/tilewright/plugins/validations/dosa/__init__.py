"""``tilewright validate dosa``: DOSA's comparison table, re-run; each figure beside the published ratio or an anchor. See README.md."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from msgspec.structs import replace

from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput, suggest
from tilewright.protocol.plugin import Options
from tilewright.protocol.validation import ValidationReport
from tilewright.protocol.workload import Workload

from .anchors import PUBLISHED, PUBLISHED_MAPPER, SEEDS, anchor, geomean
from .methods import ROWS, Methods, Result
from .networks import DATA, networks

SUITE = "dosa"
#: Hardware that mappers are compared on beside what DOSA found: Gemmini's default as DOSA has it.
DEFAULT_HARDWARE = {"pe": 16, "scratchpad_kib": 128, "accumulator_kib": 32}
DEFAULTS: Options = {"budget": 10_500, "networks": "bert", "seeds": "0", "rows": "", "mappers": "cosa,random", "mapper_budget": 1000}
#: Rows that only run when they are asked for: they take minutes.
ON_DEMAND = ("bayesian", "evolutionary", "dosa, defects repaired")


class Dosa:
    """The suite. A group per method with one per network in it; errors are those of geometric means of EDP against the anchors."""

    options: ClassVar[dict[str, str]] = {
        "budget": "evaluations per layer and seed (default 10500, the published count)",
        "networks": "some of unet,resnet50,bert,retinanet, or all (default bert)",
        "seeds": f"seeds, or all for the published {','.join(map(str, SEEDS))} (default 0)",
        "rows": "rows separated by semicolons, or all (default: those that take seconds)",
        "mappers": "mappers compared on the hardware that dosa found (default cosa,random)",
        "mapper_budget": "evaluations per layer of those mappers (default 1000)",
    }

    def run(self, path: str | None, options: Options) -> ValidationReport:
        """Run the rows on the networks of a JSON file like the shipped one; `InvalidInput` names a wrong option."""
        file = Path(path) if path else DATA
        said = {name: options.get(name, default) for name, default in DEFAULTS.items()}
        names = () if said["networks"] == "all" else tuple(str(said["networks"]).split(","))
        chosen = networks(file, names)
        seeds = _seeds(said["seeds"])
        rows = _rows(str(said["rows"]))
        methods = Methods()
        results = {
            row: {
                network.name: [methods.run(ROWS[row], network, seed, _count("budget", said["budget"])) for seed in seeds]
                for network in chosen
            }
            for row in rows
        }
        groups = {row: _row(str(file), row, found, results.get("dosa"), seeds) for row, found in results.items()}
        if "dosa" in results:
            for mapper in filter(None, str(said["mappers"]).split(",")):
                budget = _count("mapper_budget", said["mapper_budget"])
                groups[f"mapper {mapper}"] = _mapper(str(file), methods, mapper, chosen, results["dosa"], seeds, budget)
        errors = [error for row, found in results.items() for error in _errors(row, found, seeds)]
        return ValidationReport.of(SUITE, file, errors, groups=groups)


def _count(name: str, value: bool | int | float | str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidInput(f"option {name}: {value!r}, expected a whole number above 0")
    return value


def _seeds(said: bool | int | float | str) -> tuple[int, ...]:
    if said == "all":
        return SEEDS
    try:
        return tuple(int(word) for word in str(said).split(","))
    except ValueError:
        raise InvalidInput(f"option seeds: {said!r}, expected whole numbers separated by commas, or all") from None


def _rows(said: str) -> list[str]:
    """The rows asked for whose co-designer is installed, `dosa` first."""
    installed = {ref.name for ref in registry.plugins("codesigners")}
    names = [name.strip() for name in said.split(";")] if said not in ("", "all") else [n for n in ROWS if said or n not in ON_DEMAND]
    for name in names:
        if name not in ROWS:
            raise InvalidInput(f"option rows: {name!r} is not a row{suggest(name, ROWS)}")
    return [name for name in names if ROWS[name].codesigner in installed]


def _errors(row: str, found: dict[str, list[Result]], seeds: tuple[int, ...]) -> list[float]:
    """Relative error of the geometric mean on each network that there is an anchor for."""
    pairs = [(anchor(row, name, seeds), geomean([each.edp for each in results])) for name, results in found.items()]
    return [abs(ours / theirs - 1) for theirs, ours in pairs if theirs is not None]


def _row(
    file: str, row: str, found: dict[str, list[Result]], dosa: dict[str, list[Result]] | None, seeds: tuple[int, ...]
) -> ValidationReport:
    """One method: its networks, and its ratio to dosa over all of them."""
    groups = {}
    ratios = []
    for name, results in found.items():
        value = geomean([each.edp for each in results])
        figures = {"EDP, geomean": value, "best": min(each.edp for each in results), "worst": max(each.edp for each in results)}
        theirs = anchor(row, name, seeds)
        if theirs is not None:
            figures["anchor"] = theirs
        if dosa is not None:
            ratios.append(value / geomean([each.edp for each in dosa[name]]))
            figures["over dosa"] = ratios[-1]
        if ROWS[row].objective == "energy":
            figures["energy, uJ"] = geomean([each.energy for each in results])
        figures["samples/layer"] = sum(each.samples for each in results) / len(results)
        figures["CPU s"] = sum(each.cpu_seconds for each in results) / len(results)
        errors = [] if theirs is None else [abs(value / theirs - 1)]
        groups[name] = replace(ValidationReport.of(SUITE, file, errors), figures=figures)
    whole: dict[str, float] = {}
    if ratios:
        whole["over dosa"] = geomean(ratios)
    if row in PUBLISHED:
        whole["published"] = PUBLISHED[row]
    return replace(ValidationReport.of(SUITE, file, _errors(row, found, seeds), groups=groups), figures=whole)


def _mapper(
    file: str, methods: Methods, mapper: str, chosen: list[Workload], dosa: dict[str, list[Result]], seeds: tuple[int, ...], budget: int
) -> ValidationReport:
    """A mapper on the hardware that dosa found: against dosa's own mappings there, and against Gemmini's default with the same mapper."""
    groups = {}
    gains, over = [], []
    for network in chosen:
        default = methods.mapped(mapper, network, DEFAULT_HARDWARE, seeds[0], budget)
        values = [
            methods.mapped(mapper, network, result.design.parameters, seed, budget)
            for seed, result in zip(seeds, dosa[network.name], strict=True)
        ]
        over.append(geomean([value / result.edp for value, result in zip(values, dosa[network.name], strict=True)]))
        gains.append(default / geomean(values))
        figures = {
            "EDP, geomean": geomean(values),
            "best": min(values),
            "worst": max(values),
            "over dosa": over[-1],
            "default over it": gains[-1],
        }
        groups[network.name] = replace(ValidationReport.of(SUITE, file, ()), figures=figures)
    whole = {"over dosa": geomean(over), "default over it": geomean(gains), "published": PUBLISHED_MAPPER}
    return replace(ValidationReport.of(SUITE, file, ()), groups=groups, figures=whole)
