"""What is written beside a kernel's source: its benchmark, a CMake project, and a Python binding."""

from __future__ import annotations

from math import prod

from tilewright.protocol.kernel import Toolchain
from tilewright.protocol.workload import INPUTS, OUTPUTS, WEIGHTS

from .finish import channels
from .measure import program
from .numbers import C_TYPES
from .plan import Plan, fill


def files(plan: Plan) -> dict[str, str]:
    """File name -> text."""
    flags = " ".join(_native(plan).flags)
    made = {
        "CMakeLists.txt": fill("CMakeLists.txt.in", {"NAME": plan.name, "FLAGS": flags}),
        f"{plan.name}.py": fill("binding.py.in", {"NAME": plan.name, "FLAGS": flags, **_arguments(plan)}),
    }
    if plan.product.is_matrix_product and not plan.product.outer:
        made[f"{plan.name}_bench.c"] = program([plan])
    return made


def _native(plan: Plan) -> Toolchain:
    """How the target's own machines compile; an emulator's way where there is no other."""
    chains = plan.library.toolchains
    return next((each for each in chains if each.name == "native"), chains[0])


def _arguments(plan: Plan) -> dict[str, str]:
    """Shapes and C types of what the binding takes and returns."""
    operator = plan.product.operator
    operands = [(name.lower(), operator.shape(name), plan.c_type(name)) for name in (INPUTS, WEIGHTS)]
    count = (prod(operator.bounds[dim] for dim in channels(plan.product)),)
    if "bias" in plan.finish.steps:
        operands.append(("bias", count, C_TYPES[plan.numbers.result]))
    if plan.finish.narrows:
        operands += [("scale", count, "float"), ("zero_point", (), "int32_t")]
    return {
        "OPERANDS": "".join(f"\n    {operand!r}," for operand in operands),
        "OUTPUT": repr((operator.shape(OUTPUTS), plan.c_type(OUTPUTS))),
    }
