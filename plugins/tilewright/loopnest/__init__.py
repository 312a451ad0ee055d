"""The algebra that every plugin shares: mapspaces as arrays, tiles, traffic, and the one exact cost model. See README.md."""

from .batch import Batch
from .conventions import TIMELOOP, Conventions
from .costing import VERSION, cost, costs, model_name
from .estimators import ESTIMATORS, Prices
from .evaluate import Evaluation, evaluate
from .explain import Explanation, explain
from .pool import Pool
from .problem import Problem, Semantics, default_keep, pad
from .validity import Validity, check, reasons, violations

__all__ = [
    "ESTIMATORS",
    "TIMELOOP",
    "VERSION",
    "Batch",
    "Conventions",
    "Evaluation",
    "Explanation",
    "Pool",
    "Prices",
    "Problem",
    "Semantics",
    "Validity",
    "check",
    "cost",
    "costs",
    "default_keep",
    "evaluate",
    "explain",
    "model_name",
    "pad",
    "reasons",
    "violations",
]
