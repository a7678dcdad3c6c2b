"""Turn what a client or a file has into an order, or say everything that is wrong with it.

No HTTP and no database here. What passes here passes the table's constraints too.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import chain, islice
from typing import Any

from schema.errors import OrdersError
from schema.intake import fast_path
from schema.order import NewOrder

MAX_ORDERS = 10_000
MAX_ITEMS = 1000
MAX_ID_LENGTH = 255

MAX_VALUES = 150_000
"""How many JSON values are built at once. A text of eight megabytes may have four million: they would take
fifty times its memory, and hold the interpreter for seconds. An order has a thousand and some."""

_EXPECTED_BATCH = f'expected a JSON object {{"orders": [...]}} with 1 to {MAX_ORDERS:,} orders'
_EXPECTED_ORDER = "expected an object with user_id, item_ids and total_amount"
_EXPECTED_OBJECT = "expected a JSON object with user_id, item_ids and total_amount"
_EXPECTED_ID = f"expected a non-blank string of at most {MAX_ID_LENGTH} characters"
_EXPECTED_ITEMS = f"expected a list of 1 to {MAX_ITEMS:,} item ids"
_EXPECTED_AMOUNT = "expected a number from 0 to 999999999999.99 with at most two decimals"

_AMOUNT = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
"""What JSON calls a number, and zeros in front of it."""

_PLAIN_AMOUNT = re.compile(r"[0-9]{1,12}(\.[0-9]{1,2})?")
"""How nearly every client writes an amount."""

_BLANKS = " \t\n\r"
"""What RFC 8259 allows around a value."""

_STRING = re.compile('"[^"]*"')
"""A string of a text without escaped quotes."""

_BATCH_START = re.compile(rf'[{_BLANKS}]*\{{[{_BLANKS}]*"orders"[{_BLANKS}]*:[{_BLANKS}]*\[[{_BLANKS}]*')
_BATCH_END = re.compile(rf"[{_BLANKS}]*\][{_BLANKS}]*\}}")
_COMMA = re.compile(rf"[{_BLANKS}]*,[{_BLANKS}]*")

# Bounded repeats: the matcher keeps a place for each turn of one.
_FLAT_OBJECT = re.compile(r'\{[^"{}]*(?:"[^"\\]*(?:\\.[^"\\]*){0,1000}"[^"{}]*){0,1500}\}', re.DOTALL)
"""An object without objects in it, with the strings that an order may have and some more."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_REPORTED = 20
_SHOWN_LENGTH = 40
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


class NotJsonError(OrdersError):
    """The text is not JSON, has too many values, or two readers could understand it differently."""


class InvalidOrderError(OrdersError):
    """It is JSON but no order; `problems` and the message have the first twenty wrong fields."""

    def __init__(self, problems: Iterable[FieldProblem]) -> None:
        found = iter(problems)
        self.problems = tuple(islice(found, _REPORTED))
        shown = [f"{problem.field} {problem.detail}" for problem in self.problems]
        if more := sum(1 for _ in found):
            shown.append(f"and {more} more")
        super().__init__("; ".join(shown))


class _Number(str):
    """A JSON number as it was written: no conversion has rounded it or taken its time."""

    __slots__ = ()


def parse(text: bytes, *, what: str = "the body") -> NewOrder:
    """Return the order that a JSON text describes; raise `NotJsonError` or `InvalidOrderError`.

    `what` names the text in the errors' messages.
    """
    if plain := fast_path.recognise(text):
        return plain
    decoded = _text(text, _EXPECTED_OBJECT, what=what)
    if _has_many_values(decoded):
        raise NotJsonError(
            f"{what} has more than {MAX_VALUES:,} values or is nested too deeply: {_EXPECTED_OBJECT}"
        )
    submitted = _decode(decoded, _EXPECTED_OBJECT, what=what)
    _refuse(_problems(submitted))
    return _order(submitted)


def parse_batch(body: bytes) -> list[NewOrder]:
    """Return the orders of a batch; raise `NotJsonError`, or `InvalidOrderError` if one is wrong."""
    text = _text(body, _EXPECTED_BATCH, what="the body")
    if _marks(text) > MAX_VALUES:
        return _one_by_one(text)
    submitted = _decode(text, _EXPECTED_BATCH, what="the body")
    _refuse(_batch_problems(submitted))
    return [_order(each) for each in submitted["orders"]]


def _one_by_one(text: str) -> list[NewOrder]:
    """Return the orders of a long batch. Each is built and checked before the next is looked at."""
    orders: list[NewOrder] = []
    submitted = enumerate(_submitted(text))
    for index, order in submitted:
        if isinstance(order, NewOrder):
            orders.append(order)
            continue
        problems = _placed(f"orders[{index}]", order)
        for first in problems:
            others = (
                each
                for later, other in submitted
                if not isinstance(other, NewOrder)
                for each in _placed(f"orders[{later}]", other)
            )
            raise InvalidOrderError(chain([first], problems, others))
        orders.append(_order(order))
    return orders


def _submitted(text: str) -> Iterator[NewOrder | dict[str, Any]]:
    """Yield what the array of a long batch has: orders recognised at a glance, and other objects."""
    place = _BATCH_START.match(text)
    for index in range(MAX_ORDERS):
        if place and (found := fast_path.recognise_at(text, place.end())):
            order, at = found
            yield order
        else:
            flat = _FLAT_OBJECT.match(text, place.end()) if place else None
            if flat is None or _has_many_values(flat[0]):
                raise NotJsonError(
                    f"the body has no order as orders[{index}], or more in it: {_EXPECTED_BATCH}"
                )
            at = flat.end()
            yield _decode(flat[0], _EXPECTED_ORDER, what=f"orders[{index}]")
        if _BATCH_END.fullmatch(text, at):
            return
        place = _COMMA.match(text, at)
    raise InvalidOrderError(
        [FieldProblem("orders", f"has more than {MAX_ORDERS:,} orders, {_EXPECTED_BATCH}")]
    )


def parse_row(row: Mapping[str, str]) -> NewOrder:
    """Return the order that a row of text cells describes: `item_ids` is a JSON array, the others are bare.

    Raises `InvalidOrderError`.
    """
    submitted: dict[str, Any] = dict(row)
    submitted["item_ids"] = _array(row["item_ids"])
    amount = row["total_amount"].strip()
    if _AMOUNT.fullmatch(amount):
        submitted["total_amount"] = _Number(amount)
    _refuse(_problems(submitted))
    return _order(submitted)


def _array(cell: str) -> Any:
    """Return the JSON array in a cell, or else the cell's text, which `_problems` refuses."""
    try:
        array = _decoder.decode(cell.strip())
    except (json.JSONDecodeError, RecursionError, NotJsonError):
        return cell
    return array if isinstance(array, list) else cell


def _refuse(problems: Iterator[FieldProblem]) -> None:
    """Raise for the first problem, if there is one, and all that come after it."""
    for first in problems:
        raise InvalidOrderError(chain([first], problems))


def _order(submitted: dict[str, Any]) -> NewOrder:
    return NewOrder(
        user_id=submitted["user_id"],
        item_ids=tuple(submitted["item_ids"]),
        total_amount=_amount(submitted["total_amount"]),
    )


def _text(source: bytes, expected: str, *, what: str) -> str:
    try:
        # RFC 8259 section 8.1 lets a reader ignore a byte order mark; the original service's did.
        return source.decode().removeprefix("\ufeff").rstrip(_BLANKS)
    except UnicodeDecodeError as error:
        raise NotJsonError(f"{what} is not UTF-8 (byte {error.start}): {expected}") from None


def _has_many_values(text: str) -> bool:
    """Tell whether a text has more than `MAX_VALUES`, before any of them is built."""
    if _marks(text) <= MAX_VALUES:
        return False
    # What is inside its strings does not count. A string that an escaped quote seems to end goes on.
    return _marks(_STRING.sub("", text.replace("\\\\", "").replace('\\"', ""))) > MAX_VALUES


def _marks(text: str) -> int:
    """Count what stands in front of each value but the first, in strings too."""
    return text.count(",") + text.count("[") + text.count("{")


def _decode(text: str, expected: str, *, what: str) -> dict[str, Any]:
    if not text:
        raise NotJsonError(f"{what} is empty: {expected}")
    try:
        submitted, end = _decoder.raw_decode(text, len(text) - len(text.lstrip(_BLANKS)))
        _refuse_more(text, end)
    except json.JSONDecodeError as error:
        where = f"{error.msg}, line {error.lineno} column {error.colno}"
        raise NotJsonError(f"{what} is not JSON ({where}): {expected}") from None
    except RecursionError:
        raise NotJsonError(f"{what} is nested too deeply: {expected}") from None
    if not isinstance(submitted, dict):
        raise NotJsonError(f"{what} is {_kind(submitted)}: {expected}")
    return submitted


def _refuse_more(text: str, end: int) -> None:
    if end < len(text):
        raise json.JSONDecodeError("Extra data", text, end)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; refuse a repeated key, of which readers differ on the one that counts."""
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


def _batch_problems(submitted: dict[str, Any]) -> Iterator[FieldProblem]:
    for name in submitted:
        if name != "orders":
            yield FieldProblem(_shown(name), f"is no field of a batch, {_EXPECTED_BATCH}")
    orders = submitted.get("orders")
    if "orders" not in submitted:
        yield FieldProblem("orders", f"is missing, {_EXPECTED_BATCH}")
    elif not isinstance(orders, list):
        yield FieldProblem("orders", f"is {_kind(orders)}, {_EXPECTED_BATCH}")
    elif not 1 <= len(orders) <= MAX_ORDERS:
        yield FieldProblem("orders", f"has {len(orders):,} orders, {_EXPECTED_BATCH}")
    else:
        for index, order in enumerate(orders):
            yield from _placed(f"orders[{index}]", order)


def _placed(place: str, order: Any) -> Iterator[FieldProblem]:
    """Yield what is wrong with one order of a batch."""
    if not isinstance(order, dict):
        yield FieldProblem(place, f"is {_kind(order)}, {_EXPECTED_ORDER}")
        return
    for problem in _problems(order):
        yield FieldProblem(f"{place}.{problem.field}", problem.detail)


def _id_problems(name: str, value: Any) -> Iterable[FieldProblem]:
    fault = _id_fault(value)
    return [FieldProblem(name, fault)] if fault else ()


def _id_fault(value: Any) -> str:
    """Return what is wrong with an id, nothing if it is good."""
    if type(value) is not str:
        return f"is {_kind(value)}, {_EXPECTED_ID}"
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
        return [FieldProblem(name, f"is {_kind(value)}, {_EXPECTED_ITEMS}")]
    if not 1 <= len(value) <= MAX_ITEMS:
        return [FieldProblem(name, f"has {len(value):,} items, {_EXPECTED_ITEMS}")]
    faults = map(_id_fault, value)
    return [FieldProblem(f"{name}[{index}]", fault) for index, fault in enumerate(faults) if fault]


def _amount_problems(name: str, value: Any) -> Iterable[FieldProblem]:
    if not isinstance(value, _Number):
        return [FieldProblem(name, f"is {_kind(value)}, {_EXPECTED_AMOUNT}")]
    if not _is_amount(value):
        return [FieldProblem(name, f"is {value[:_SHOWN_LENGTH]}, {_EXPECTED_AMOUNT}")]
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
