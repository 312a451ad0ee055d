"""Numbers for people: three significant digits, SI prefixes, always a unit."""

from __future__ import annotations

import math

_PREFIXES = {-15: "f", -12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}


def si(value: float, unit: str) -> str:
    """`value` in base units with the SI prefix that leaves one to three digits before the point, e.g. ``1.86 mJ``."""
    if not math.isfinite(value):
        return f"{value} {unit}".rstrip()
    if value == 0:
        return f"0 {unit}".rstrip()
    exponent = 3 * math.floor(math.log10(abs(value)) / 3)
    exponent = min(max(exponent, min(_PREFIXES)), max(_PREFIXES))
    if abs(float(_digits(value / 10.0**exponent))) >= 1000 and exponent < max(_PREFIXES):
        exponent += 3
    return f"{_digits(value / 10.0**exponent)} {_PREFIXES[exponent]}{unit}".rstrip()


def _digits(scaled: float) -> str:
    """Three significant digits, never in exponent notation below 1e6."""
    whole = len(str(int(abs(float(f"{scaled:.3g}")))))
    return f"{scaled:.{max(0, 3 - whole)}f}"


def count(number: float, unit: str = "") -> str:
    """How many: whole below a thousand, with an SI prefix above."""
    return f"{int(number)} {unit}".rstrip() if abs(number) < 1000 and number == int(number) else si(number, unit)


def energy(picojoules: float) -> str:
    """An energy, given in pJ."""
    return si(picojoules * 1e-12, "J")


def cycles(number: float) -> str:
    """A number of cycles."""
    return count(number, "cycles")


def edp(picojoule_cycles: float) -> str:
    """An energy-delay product, given in pJ x cycles."""
    return si(picojoule_cycles * 1e-12, "J·cycles")


def duration(seconds: float) -> str:
    """A time span."""
    return si(seconds, "s")


def size(number: float) -> str:
    """Bytes, in decimal prefixes."""
    return count(number, "B")


def percent(share: float) -> str:
    """A share of 1 as a percentage."""
    return f"{100 * share:.1f} %"


def ratio(value: float) -> str:
    """A factor, e.g. ``1.83x``."""
    return f"{_digits(value)}x"


def objective_value(objective: str, value: float) -> str:
    """A value of an objective in its unit; plain where the objective has none."""
    return {"edp": edp, "energy": energy, "latency": cycles}.get(objective, "{:.6g}".format)(value)
