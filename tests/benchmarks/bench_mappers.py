"""The race of the mappers over models and targets as a table in Markdown; run on demand.

``python tests/benchmarks/bench_mappers.py`` races (some layers of two models on two targets, five seeds: about half an hour of CPU).
``... --read FILE ...`` makes the table from what ``tilewright map MODEL --target T --race ... --json`` wrote.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tilewright.services.cli import mapping, options, race, race_tables

MAPPERS = ("cosa", "optimal", "random", "hybrid", "genetic", "gradient")
#: Model -> layers: one of each kind that differs for mappers (7x7 with stride, 3x3 with stride, 1x1; square and wide products).
LAYERS = {"resnet50": ("conv1", "layer2.0.conv2", "layer3.1.conv1"), "bert-base": ("attention.self.query", "intermediate")}
TARGETS = ("simba", "gemmini")


def raced(model: str, target: str, seeds: int, limits: race.Limits) -> race_tables.Race:
    """One race, in this process."""
    said = options.RunOptions(model=model, target=target)
    layers, machine = mapping.load(said, LAYERS[model])
    for mapper in MAPPERS:
        race.search(mapper, layers[0], machine, said, 0, race.Limits(1, 0.0))
    searches = [race.search(mapper, layer, machine, said, seed, limits) for layer in layers for mapper in MAPPERS for seed in range(seeds)]
    return race_tables.Race(tuple(searches), limits)


def read(path: Path, limits: race.Limits) -> race_tables.Race:
    """The searches of a file of JSON lines."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return race_tables.Race(
        tuple(race.Search(**{**each, "steps": tuple(race.Step(*step) for step in each["steps"])}) for each in found if "race" not in each),
        limits,
    )


def markdown(name: str, found: race_tables.Race) -> str:
    """Median / worst of value over best found."""
    mappers = [mapper for mapper in MAPPERS if any(search.mapper == mapper for search in found.searches)]
    moments = [moment for moment, _ in found.limits.checkpoints]
    lines = [f"| {name} | {' | '.join(moments)} | evaluations | CPU s |", "|---" * (len(moments) + 3) + "|"]
    for mapper, row in found.as_json(mappers).items():
        cells = (" / ".join("none" if each is None else f"{each:.3g}" for each in row[moment].values()) for moment in moments)
        lines.append(f"| {mapper} | {' | '.join(cells)} | {row['median_evaluations']:.0f} | {row['median_cpu_s']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Race or read, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--read", type=Path, nargs="*", default=[])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--evals", type=int, default=10_000)
    parser.add_argument("--time", type=float, default=10.0)
    said = parser.parse_args()
    limits = race.Limits(said.evals, said.time)
    if said.read:
        for path in said.read:
            print(markdown(path.stem, read(path, limits)), end="\n\n")
        return
    for model in LAYERS:
        for target in TARGETS:
            print(markdown(f"{model}, {target}", raced(model, target, said.seeds, limits)), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
