"""Every setting of the programs here: name, kind, default and meaning are said once, in this module.

    port = settings.PORT.read()

`docs/settings.md` shows them to users and says when to change each; a test compares it with this module.
"""

import difflib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from schema.errors import SettingError
from schema.runtime import url

Environment = Mapping[str, str]
Value_co = TypeVar("Value_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Kind(Generic[Value_co]):
    """What a variable may hold: `parse` raises `ValueError` for a text that is not as `expected` says.

    `show` makes of such a text what may be shown of it.
    """

    expected: str
    parse: Callable[[str], Value_co]
    show: Callable[[str], str] = str


@dataclass(frozen=True, slots=True)
class Setting(Generic[Value_co]):
    """One environment variable. `default` stands for an unset, empty or blank one."""

    name: str
    kind: Kind[Value_co]
    default: Value_co

    def read(self, environment: Environment = os.environ) -> Value_co:
        """Return the variable's value; raise a `SettingError` that names it and what is expected."""
        value = environment.get(self.name, "").strip()
        if not value:
            return self.default
        try:
            return self.kind.parse(value)
        except ValueError:
            raise SettingError(self.name, self.kind.show(value), f"expected {self.kind.expected}") from None


def choice(*choices: str) -> Kind[str]:
    """Take one of `choices`, in capitals too."""

    def parse(value: str) -> str:
        if value.lower() not in choices:
            raise ValueError
        return value.lower()

    return Kind(f"one of {', '.join(choices)}", parse)


def whole_number(low: int, high: int) -> Kind[int]:
    """Take an integer from `low` to `high`, in plain digits."""

    def parse(value: str) -> int:
        if not (value.isascii() and value.isdigit() and low <= int(value) <= high):
            raise ValueError
        return int(value)

    return Kind(f"a whole number from {low} to {high}", parse)


def seconds(low: float, high: float) -> Kind[float]:
    """Take seconds from `low` to `high`, fractions allowed."""

    def parse(value: str) -> float:
        number = float(value)
        if not low <= number <= high:  # nor is NaN
            raise ValueError
        return number

    return Kind(f"seconds from {low:g} to {high:g}", parse)


DATABASE_URL = Setting("DATABASE_URL", Kind(url.URL_EXPECTED, url.parse, show=url.masked), default=None)
"""The database, any PostgreSQL from 15 on; unset, the embedded one of this checkout."""

HOST = Setting("ORDERS_HOST", Kind("a name or address of this machine", str), default="127.0.0.1")
"""Where the API listens, and a worker's probes."""

PORT = Setting("ORDERS_PORT", whole_number(0, 65_535), default=8000)
"""The API's port; 0 is any free one, which the log names."""

API_PROCESSES = Setting("ORDERS_API_PROCESSES", whole_number(1, 64), default=1)
"""Processes that answer on the API's port; one that dies is replaced."""

CONCURRENCY = Setting("ORDERS_CONCURRENCY", whole_number(1, 1000), default=1)
"""Orders that one worker works on at once; 1 is strictly one after another."""

POLL_SECONDS = Setting("ORDERS_POLL_SECONDS", seconds(0.01, 1), default=1.0)
"""How long a free worker waits at most before it looks for orders again."""

LEASE_SECONDS = Setting("ORDERS_LEASE_SECONDS", seconds(1, 3600), default=10.0)
"""How long a silent worker counts as alive."""

SHUTDOWN_SECONDS = Setting("ORDERS_SHUTDOWN_SECONDS", seconds(0, 86_400), default=30.0)
"""How long a stopping worker waits for its handlers before it hands their orders back."""

HEALTH_PORT = Setting("ORDERS_HEALTH_PORT", whole_number(0, 65_535), default=None)
"""The port of a worker's probes, on `ORDERS_HOST`; 0 is any free one, which the log names; unset, there
are no probes."""

HANDLER = Setting("ORDERS_HANDLER", Kind("package.module:callable", str), default=None)
"""The function that works on an order, looked for in the current folder too; unset, work is simulated."""

SIMULATED_SECONDS = Setting("ORDERS_SIMULATED_SECONDS", seconds(0, 86_400), default=2.0)
"""How long the simulated handler takes for an order; the metrics' estimate uses it until an order has
completed."""

MAX_ATTEMPTS = Setting("ORDERS_MAX_ATTEMPTS", whole_number(1, 1000), default=5)
"""Attempts before an order fails, and those that a redrive grants."""

BACKOFF_SECONDS = Setting("ORDERS_BACKOFF_SECONDS", seconds(0, 600), default=10.0)
"""Pause before the second attempt; it doubles each time, to ten minutes at most."""

TIMEOUT_SECONDS = Setting("ORDERS_TIMEOUT_SECONDS", seconds(0.01, 86_400), default=None)
"""How long one attempt may take; unset, there is no limit."""

HANDLER_CONNECTIONS = Setting("ORDERS_HANDLER_CONNECTIONS", whole_number(1, 10), default=10)
"""Connections for handlers' transactions, never more than `ORDERS_CONCURRENCY`."""

LOG_FORMAT = Setting("ORDERS_LOG_FORMAT", choice("text", "json"), default="text")
"""The form of each line of the log."""

LOG_LEVEL = Setting("ORDERS_LOG_LEVEL", choice("info", "warning", "error"), default="info")
"""The lowest level that is logged."""


def unknown(environment: Environment = os.environ) -> Iterator[tuple[str, str]]:
    """Yield each variable that looks like a setting and is none, with the setting that may be meant, or "".

    These are the other names that begin with `ORDERS_`, in any case, and those that are nearly the name of a
    setting that is not set.
    """
    names = {each.name for each in globals().values() if isinstance(each, Setting)}
    for name in sorted(environment.keys() - names):
        near = next(iter(difflib.get_close_matches(name.upper(), names, n=1, cutoff=_NEARLY)), "")
        if name.upper().startswith("ORDERS_") or (near and near not in environment):
            yield name, near


_NEARLY = 0.85
"""As like as `DATABASE_ULR` and `ORDER_PORT` are to what is meant."""
