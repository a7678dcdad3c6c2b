"""Read one environment variable each, strictly: a bad value names the variable and what it takes."""

import math
from collections.abc import Mapping

from schema.errors import SettingError

Environment = Mapping[str, str]


def text(environment: Environment, name: str, default: str) -> str:
    """Return the variable without surrounding blanks, or `default` when it is unset or blank."""
    return environment.get(name, "").strip() or default


def choice(environment: Environment, name: str, default: str, *, choices: tuple[str, ...]) -> str:
    """Return the variable, which must be one of `choices`."""
    value = text(environment, name, default)
    if value not in choices:
        raise SettingError(name, value, f"expected one of {', '.join(choices)}")
    return value


def whole_number(environment: Environment, name: str, default: int, *, low: int, high: int) -> int:
    """Return the variable as an integer from `low` to `high`."""
    value = text(environment, name, str(default))
    expected = f"expected a whole number from {low} to {high}"
    if not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise SettingError(name, value, expected)
    if not low <= int(value) <= high:
        raise SettingError(name, value, expected)
    return int(value)


def seconds(environment: Environment, name: str, default: float, *, low: float, high: float) -> float:
    """Return the variable as seconds from `low` to `high`, fractions allowed."""
    value = text(environment, name, str(default))
    expected = f"expected seconds from {low:g} to {high:g}"
    try:
        number = float(value)
    except ValueError:
        raise SettingError(name, value, expected) from None
    if not math.isfinite(number) or not low <= number <= high:
        raise SettingError(name, value, expected)
    return number
