"""Every error that Tilewright raises on purpose.

::

    TilewrightError
        InvalidInput              (exit 2)  a field, its value, what was expected
            InvalidOperator       workload.py
            InvalidArchitecture   architecture.py
            InvalidMapping        mapping.py
            UnknownPlugin         no plugin of that kind and name; suggests near names
            AmbiguousPlugin       two distributions offer one name
            InvalidMessage        bytes that are not the message they claim to be
        BrokenPlugin              (exit 1)  it could not be imported or does not fit its interface
        Cancelled                 (exit 4)  the run was cancelled
        NoConnection              (exit 5)  NATS cannot be reached, or refuses us
            NotBootstrapped       the streams do not exist yet
        Conflict                  a compare-and-swap lost
        Backlog                   a queue is full; try later
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TilewrightError(Exception):
    """Base of all; `exit_code` is what the CLI ends with."""

    exit_code = 1


class InvalidInput(TilewrightError, ValueError):
    """The user (or a message) said something that cannot be; the text names field, value and expectation."""

    exit_code = 2


class InvalidOperator(InvalidInput):
    """An operator or workload contradicts itself."""


class InvalidArchitecture(InvalidInput):
    """An architecture contradicts itself."""


class InvalidMapping(InvalidInput):
    """A mapping does not fit its operator or architecture."""


class UnknownPlugin(InvalidInput):
    """No plugin of that kind and name is installed."""


class AmbiguousPlugin(InvalidInput):
    """Two distributions offer a plugin of one kind and name."""


class InvalidMessage(InvalidInput):
    """Bytes that are not the message they claim to be, or break a limit."""


class BrokenPlugin(TilewrightError):
    """A plugin that is installed but cannot be used."""


class Cancelled(TilewrightError):
    """Work stopped because its run was cancelled."""

    exit_code = 4


class NoConnection(TilewrightError):
    """NATS cannot be reached, or refuses us; the text says why."""

    exit_code = 5


class NotBootstrapped(NoConnection):
    """The server is there but its streams are not; the text says which command makes them."""


class Conflict(TilewrightError):
    """A compare-and-swap lost against another writer."""


class Backlog(TilewrightError):
    """A queue is full: try again later."""


def suggest(value: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` or the list of what there is."""
    names = sorted(known)
    near = difflib.get_close_matches(value, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; expected one of {', '.join(names) or '(none installed)'}"
