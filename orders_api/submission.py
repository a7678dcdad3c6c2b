"""Turn the body of `POST /orders` into an order, or say everything that is wrong with it.

Pure: no HTTP and no database here. What passes here passes the table's constraints too.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from schema.errors import OrdersError
from schema.orders import NewOrder

MAX_ITEMS = 1000
MAX_ID_LENGTH = 255

_EXPECTED_OBJECT = "expected a JSON object with user_id, item_ids and total_amount"
_EXPECTED_ID = f"expected a non-blank string of at most {MAX_ID_LENGTH} characters"
_EXPECTED_ITEMS = f"expected a list of 1 to {MAX_ITEMS:,} item ids"
_EXPECTED_AMOUNT = "expected a number from 0 to 999999999999.99 with at most two decimals"

_SURROGATE = re.compile("[\ud800-\udfff]")
_REPORTED = 20
_SHOWN_LENGTH = 40
# A number in range is longer only by leading zeros of its exponent. The bound keeps the conversion of
# a megabyte of digits away.
_AMOUNT_LENGTH = 64


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One wrong field: its name (`item_ids[3]` for an item) and what is wrong and expected."""

    field: str
    detail: str


class NotJsonError(OrdersError):
    """The body is no JSON text at all, or one that two readers could understand differently."""


class InvalidOrderError(OrdersError):
    """The body is JSON but no order; `problems` has every wrong field, the message names them all."""

    def __init__(self, problems: list[FieldProblem]) -> None:
        shown = [f"{problem.field} {problem.detail}" for problem in problems[:_REPORTED]]
        if len(problems) > _REPORTED:
            shown.append(f"and {len(problems) - _REPORTED} more")
        super().__init__("; ".join(shown))
        self.problems = tuple(problems[:_REPORTED])


@dataclass(frozen=True, slots=True)
class _Number:
    """A JSON number as it was written: no conversion has rounded it or taken its time."""

    literal: str


def parse(body: bytes) -> NewOrder:
    """Return the order that `body` describes; raise `NotJsonError` or `InvalidOrderError`."""
    submitted = _decode(body)
    if not isinstance(submitted, dict):
        raise NotJsonError(f"the body is {_kind(submitted)}: {_EXPECTED_OBJECT}")
    problems = list(_problems(submitted))
    if problems:
        raise InvalidOrderError(problems)
    return NewOrder(
        user_id=submitted["user_id"],
        item_ids=tuple(submitted["item_ids"]),
        total_amount=_amount(submitted["total_amount"].literal),
    )


def _decode(body: bytes) -> Any:
    try:
        # RFC 8259 section 8.1 lets a reader ignore a byte order mark; the original service's did.
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotJsonError(f"the body is not UTF-8 (byte {error.start}): {_EXPECTED_OBJECT}") from None
    if not text.strip():
        raise NotJsonError(f"the body is empty: {_EXPECTED_OBJECT}")
    try:
        return _decoder.decode(text)
    except json.JSONDecodeError as error:
        where = f"{error.msg}, line {error.lineno} column {error.colno}"
        raise NotJsonError(f"the body is not JSON ({where}): {_EXPECTED_OBJECT}") from None
    except RecursionError:
        raise NotJsonError(f"the body is nested too deeply: {_EXPECTED_OBJECT}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object, refusing a repeated key: which of the two would count is anybody's guess."""
    members = dict(pairs)
    if len(members) < len(pairs):
        repeated, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise NotJsonError(f"{_shown(repeated)} appears more than once in an object: expected each key once")
    return members


_decoder = json.JSONDecoder(
    parse_float=_Number, parse_int=_Number, parse_constant=_Number, object_pairs_hook=_unique
)


def _problems(submitted: dict[str, Any]) -> Iterator[FieldProblem]:
    for name, (expected, check) in _CHECKS.items():
        if name in submitted:
            yield from check(name, submitted[name])
        else:
            yield FieldProblem(name, f"is missing, {expected}")
    for name in submitted:
        if name not in _CHECKS:
            yield FieldProblem(_shown(name), f"is no field of an order, expected only {', '.join(_CHECKS)}")


def _id_problems(name: str, value: Any) -> Iterator[FieldProblem]:
    if not isinstance(value, str):
        yield FieldProblem(name, f"is {_kind(value)}, {_EXPECTED_ID}")
    elif not value.strip():
        yield FieldProblem(name, f"is {'blank' if value else 'empty'}, {_EXPECTED_ID}")
    elif len(value) > MAX_ID_LENGTH:
        yield FieldProblem(name, f"has {len(value):,} characters, {_EXPECTED_ID}")
    elif "\0" in value:
        yield FieldProblem(name, f"contains a NUL character (U+0000), {_EXPECTED_ID} without one")
    elif not value.isascii() and _SURROGATE.search(value):
        yield FieldProblem(name, f"contains a lone surrogate (U+D800 to U+DFFF), {_EXPECTED_ID} without one")


def _items_problems(name: str, value: Any) -> Iterator[FieldProblem]:
    if not isinstance(value, list):
        yield FieldProblem(name, f"is {_kind(value)}, {_EXPECTED_ITEMS}")
    elif not 1 <= len(value) <= MAX_ITEMS:
        yield FieldProblem(name, f"has {len(value):,} items, {_EXPECTED_ITEMS}")
    else:
        for index, item in enumerate(value):
            yield from _id_problems(f"{name}[{index}]", item)


def _amount_problems(name: str, value: Any) -> Iterator[FieldProblem]:
    if not isinstance(value, _Number):
        yield FieldProblem(name, f"is {_kind(value)}, {_EXPECTED_AMOUNT}")
    elif not _is_amount(value.literal):
        yield FieldProblem(name, f"is {value.literal[:_SHOWN_LENGTH]}, {_EXPECTED_AMOUNT}")


_CHECKS: dict[str, tuple[str, Callable[[str, Any], Iterator[FieldProblem]]]] = {
    "user_id": (_EXPECTED_ID, _id_problems),
    "item_ids": (_EXPECTED_ITEMS, _items_problems),
    "total_amount": (_EXPECTED_AMOUNT, _amount_problems),
}


def _is_amount(literal: str) -> bool:
    if len(literal) > _AMOUNT_LENGTH:
        return False
    try:
        number = Decimal(literal)
    except InvalidOperation:  # an exponent beyond what any Decimal can have
        return False
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -2:  # not a number, infinite, or too many decimals
        return False
    return number.is_zero() or (number > 0 and number.adjusted() <= 11)


def _amount(literal: str) -> Decimal:
    """Return an amount with two decimals; -0 is zero."""
    number = Decimal(literal)
    return Decimal("0.00") if number.is_zero() else number.quantize(Decimal("0.01"))


def _kind(value: Any) -> str:
    """Name a value's JSON type, for a message."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case _Number():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
    return "an object"


def _shown(text: str) -> str:
    """Quote what the client sent, shortened and in ASCII, so that an answer can always repeat it."""
    return json.dumps(text if len(text) <= _SHOWN_LENGTH else text[:_SHOWN_LENGTH] + "...")
