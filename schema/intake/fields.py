"""What makes an order an order: the rules of its fields, and the words for what breaks them."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import chain, islice
from typing import Any

from schema.errors import OrdersError
from schema.intake.json_text import SHOWN_LENGTH, Number, kind, quoted
from schema.order import NewOrder

MAX_ITEMS = 1000
MAX_ID_LENGTH = 255

_EXPECTED_ID = f"expected a non-blank string of at most {MAX_ID_LENGTH} characters"
_EXPECTED_ITEMS = f"expected a list of 1 to {MAX_ITEMS:,} item ids"
_EXPECTED_AMOUNT = "expected a number from 0 to 999999999999.99 with at most two decimals"

_PLAIN_AMOUNT = re.compile(r"[0-9]{1,12}(\.[0-9]{1,2})?")
"""How nearly every client writes an amount."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_REPORTED = 20
# A number in range is longer only by leading zeros of its exponent. The bound keeps the conversion of
# a megabyte of digits away.
_AMOUNT_LENGTH = 64


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One wrong field: its name and what is wrong and expected.

    An item's name is `item_ids[3]`, that of an order in a batch `orders[7].user_id`.
    """

    field: str
    detail: str


class InvalidOrderError(OrdersError):
    """It is JSON but no order; `problems` and the message have the first twenty wrong fields."""

    def __init__(self, problems: Iterable[FieldProblem]) -> None:
        found = iter(problems)
        self.problems = tuple(islice(found, _REPORTED))
        words = [f"{problem.field} {problem.detail}" for problem in self.problems]
        if more := sum(1 for _ in found):
            words.append(f"and {more} more")
        super().__init__("; ".join(words))


def refuse(problems: Iterator[FieldProblem]) -> None:
    """Raise for the first problem, if there is one, and all that come after it."""
    for first in problems:
        raise InvalidOrderError(chain([first], problems))


def order_of(submitted: dict[str, Any]) -> NewOrder:
    """Return the order that an object without problems describes."""
    return NewOrder(
        user_id=submitted["user_id"],
        item_ids=tuple(submitted["item_ids"]),
        total_amount=_amount(submitted["total_amount"]),
    )


def problems_of(submitted: dict[str, Any]) -> Iterator[FieldProblem]:
    """Yield what is wrong with an object that is to be an order."""
    for name, (expected, check) in _CHECKS.items():
        if name in submitted:
            yield from check(name, submitted[name])
        else:
            yield FieldProblem(name, f"is missing, {expected}")
    for name in submitted:
        if name not in _CHECKS:
            yield FieldProblem(quoted(name), f"is no field of an order, expected only {', '.join(_CHECKS)}")


def _id_problems(name: str, value: Any) -> Iterable[FieldProblem]:
    fault = _id_fault(value)
    return [FieldProblem(name, fault)] if fault else ()


def _id_fault(value: Any) -> str:
    """Return what is wrong with an id, nothing if it is good."""
    if type(value) is not str:
        return f"is {kind(value)}, {_EXPECTED_ID}"
    if not value.strip():
        return f"is {'blank' if value else 'empty'}, {_EXPECTED_ID}"
    if len(value) > MAX_ID_LENGTH:
        return f"has {len(value):,} characters, {_EXPECTED_ID}"
    if "\0" in value:
        return f"contains a NUL character (U+0000), {_EXPECTED_ID} without one"
    if not value.isascii() and _SURROGATE.search(value):
        return f"contains a lone surrogate (U+D800 to U+DFFF), {_EXPECTED_ID} without one"
    return ""


def _items_problems(name: str, value: Any) -> Iterable[FieldProblem]:
    if not isinstance(value, list):
        return [FieldProblem(name, f"is {kind(value)}, {_EXPECTED_ITEMS}")]
    if not 1 <= len(value) <= MAX_ITEMS:
        return [FieldProblem(name, f"has {len(value):,} items, {_EXPECTED_ITEMS}")]
    faults = map(_id_fault, value)
    return [FieldProblem(f"{name}[{index}]", fault) for index, fault in enumerate(faults) if fault]


def _amount_problems(name: str, value: Any) -> Iterable[FieldProblem]:
    if not isinstance(value, Number):
        return [FieldProblem(name, f"is {kind(value)}, {_EXPECTED_AMOUNT}")]
    if not _is_amount(value):
        return [FieldProblem(name, f"is {value[:SHOWN_LENGTH]}, {_EXPECTED_AMOUNT}")]
    return ()


_CHECKS: dict[str, tuple[str, Callable[[str, Any], Iterable[FieldProblem]]]] = {
    "user_id": (_EXPECTED_ID, _id_problems),
    "item_ids": (_EXPECTED_ITEMS, _items_problems),
    "total_amount": (_EXPECTED_AMOUNT, _amount_problems),
}


def _is_amount(literal: str) -> bool:
    if _PLAIN_AMOUNT.fullmatch(literal):
        return True
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
