"""Turn a text into JSON values at a bounded cost, or say what is wrong with it."""

import json
import re
from collections import Counter
from typing import Any

from schema.errors import OrdersError

MAX_VALUES = 150_000
"""How many JSON values are built at once. A text of eight megabytes may have four million: they would take
fifty times its memory, and hold the interpreter for seconds. An order has a thousand and some."""

BLANKS = " \t\n\r"
"""What RFC 8259 allows around a value."""

SHOWN_LENGTH = 40
"""How much of what was sent a message repeats."""

_STRING = re.compile('"[^"]*"')
"""A string of a text without escaped quotes."""


class NotJsonError(OrdersError):
    """The text is not JSON, has too many values, or two readers could understand it differently."""


class Number(str):
    """A JSON number as it was written: no conversion has rounded it or taken its time."""

    __slots__ = ()


def text_of(source: bytes, expected: str, *, what: str) -> str:
    """Decode a text; raise `NotJsonError`, which calls it `what` and ends with what was `expected`."""
    try:
        # RFC 8259 section 8.1 lets a reader ignore a byte order mark; the original service's did.
        return source.decode().removeprefix("\ufeff").rstrip(BLANKS)
    except UnicodeDecodeError as error:
        raise NotJsonError(f"{what} is not UTF-8 (byte {error.start}): {expected}") from None


def has_many_values(text: str) -> bool:
    """Tell whether a text has more than `MAX_VALUES`, before any of them is built."""
    if marks(text) <= MAX_VALUES:
        return False
    # What is inside its strings does not count. A string that an escaped quote seems to end goes on.
    return marks(_STRING.sub("", text.replace("\\\\", "").replace('\\"', ""))) > MAX_VALUES


def marks(text: str) -> int:
    """Count what stands in front of each value but the first, in strings too."""
    return text.count(",") + text.count("[") + text.count("{")


def decode(text: str, expected: str, *, what: str) -> dict[str, Any]:
    """Return the object that a text is, its numbers as `Number`; raise `NotJsonError` as `text_of` does."""
    if not text:
        raise NotJsonError(f"{what} is empty: {expected}")
    try:
        submitted, end = decoder.raw_decode(text, len(text) - len(text.lstrip(BLANKS)))
        _refuse_more(text, end)
    except json.JSONDecodeError as error:
        where = f"{error.msg}, line {error.lineno} column {error.colno}"
        raise NotJsonError(f"{what} is not JSON ({where}): {expected}") from None
    except RecursionError:
        raise NotJsonError(f"{what} is nested too deeply: {expected}") from None
    if not isinstance(submitted, dict):
        raise NotJsonError(f"{what} is {kind(submitted)}: {expected}")
    return submitted


def _refuse_more(text: str, end: int) -> None:
    if end < len(text):
        raise json.JSONDecodeError("Extra data", text, end)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; refuse a repeated key, of which readers differ on the one that counts."""
    members = dict(pairs)
    if len(members) < len(pairs):
        repeated, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise NotJsonError(f"{quoted(repeated)} appears more than once in an object: expected each key once")
    return members


decoder = json.JSONDecoder(
    parse_float=Number, parse_int=Number, parse_constant=Number, object_pairs_hook=_unique
)
"""Raises `NotJsonError` for a repeated key, and `RecursionError` for a text that is nested too deeply."""


def kind(value: Any) -> str:
    """Name a value's JSON type, for a message."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case Number():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
    return "an object"


def quoted(text: str) -> str:
    """Quote what the client sent, shortened and in ASCII, so that an answer can always repeat it."""
    return json.dumps(text if len(text) <= SHOWN_LENGTH else text[:SHOWN_LENGTH] + "...")
