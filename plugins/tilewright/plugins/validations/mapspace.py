"""``tilewright validate mapspace``: how 100,000 random mappings of an operator spread, beside what a survey prints of the same experiment.

Source: Kim et al., "Full Stack Optimization of Transformer Inference: a Survey" (arXiv 2302.14017), section 5.5.1: random valid mappings of
Timeloop on Gemmini, 8-bit operands, 512 tokens. It publishes neither architecture nor Timeloop's version, so the figures cannot be
equal: they stand side by side, and no errors are worked out. ``tilewright map MODEL --target T --mapspace N`` does it for anything.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import msgspec
import numpy as np

from tilewright import loopnest as ln
from tilewright.loopnest.mapspace import Mapspace
from tilewright.protocol import registry
from tilewright.protocol.errors import InvalidInput
from tilewright.protocol.plugin import Options
from tilewright.protocol.validation import ValidationReport
from tilewright.protocol.workload import Operator, conv2d, matmul

SUITE, TARGET = "mapspace", "gemmini"
SAMPLES = 100_000
#: Mappings drawn and scored at a time.
BATCH = 2000


class Case(NamedTuple):
    """An operator and what the survey prints of it, where it does: the tenth percentile of the energy-delay product over the
    lowest, and the share of mappings (in percent) below three times the lowest."""

    operator: Operator
    tenth: float | None = None
    near: float | None = None


TOKENS = 512
CASES = {
    "BERT-Base, projection": Case(matmul(p=TOKENS, c=768, k=768), 9.42, 1.70),
    "BERT-Base, W1": Case(matmul(p=TOKENS, c=768, k=3072), 9.84, 1.48),
    "BERT-Large, projection": Case(matmul(p=TOKENS, c=1024, k=1024)),
    "BERT-Large, W1": Case(matmul(p=TOKENS, c=1024, k=4096)),
    "ResNet-50, conv1 7x7/2": Case(conv2d(r=7, s=7, p=112, q=112, c=3, k=64, stride=(2, 2))),
    "ResNet-50, conv5 3x3 512": Case(conv2d(r=3, s=3, p=7, q=7, c=512, k=512), 7.44, 1.58),
    "ResNet-50, conv5 1x1 512": Case(conv2d(r=1, s=1, p=7, q=7, c=2048, k=512)),
    "ResNet-50, conv5 1x1 2048": Case(conv2d(r=1, s=1, p=7, q=7, c=512, k=2048), 12.06, 2.62),
}


class MapspaceSpread:
    """The suite; a group per operator."""

    options: ClassVar[dict[str, str]] = {
        "samples": f"mappings drawn per operator (default {SAMPLES})",
        "seed": "of the draws (default 0)",
    }

    def run(self, path: str | None, options: Options) -> ValidationReport:
        """Draw and sum up; `InvalidInput` for a file: there is nothing that one could say."""
        if path is not None:
            raise InvalidInput(f"{path}: the suite {SUITE} has its operators and figures built in, expected no file")
        samples = int(options.get("samples", SAMPLES))
        if samples < 10:
            raise InvalidInput(f"options.samples: {samples}, expected at least 10")
        rng = np.random.default_rng(int(options.get("seed", 0)))
        none = ValidationReport.of(SUITE, "arXiv 2302.14017, 5.5.1", (), exact=0)
        groups = {name: msgspec.structs.replace(none, figures=spread(case, samples, rng)) for name, case in CASES.items()}
        return msgspec.structs.replace(none, groups=groups)


def spread(case: Case, samples: int, rng: np.random.Generator) -> dict[str, float]:
    """The figures of one operator, and the survey's where it prints them."""
    target = registry.load("targets", TARGET)
    space = Mapspace(ln.Problem(case.operator, target.architecture(), target.constraints()))
    parts = []
    drawn = 0
    while drawn < samples:
        points = space.sample(rng, min(BATCH, samples - drawn))
        drawn += len(points)
        parts.append(ln.evaluate(space.batch(points)).edp)
    over = np.sort(np.concatenate(parts))
    over = over / over[0]
    found = {
        "10 % within [x best]": float(np.quantile(over, 0.1)),
        "half within [x best]": float(np.quantile(over, 0.5)),
        "worst [x best]": float(over[-1]),
        "within 3x [%]": 100 * float(np.mean(over < 3)),
    }
    stated = {"survey: 10 % within [x best]": case.tenth, "survey: within 3x [%]": case.near}
    return found | {name: value for name, value in stated.items() if value is not None}
