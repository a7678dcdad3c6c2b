"""Turn a batch into its orders, a long one order by order."""

import re
from collections.abc import Iterator
from typing import Any

from schema.intake import fast_path
from schema.intake.fields import FieldProblem, InvalidOrderError, order_of, problems_of, refuse
from schema.intake.json_text import (
    BLANKS,
    MAX_VALUES,
    NotJsonError,
    decode,
    has_many_values,
    kind,
    marks,
    quoted,
    text_of,
)
from schema.order import NewOrder

MAX_ORDERS = 10_000

_EXPECTED_BATCH = f'expected a JSON object {{"orders": [...]}} with 1 to {MAX_ORDERS:,} orders'
_EXPECTED_ORDER = "expected an object with user_id, item_ids and total_amount"

_BATCH_START = re.compile(rf'[{BLANKS}]*\{{[{BLANKS}]*"orders"[{BLANKS}]*:[{BLANKS}]*\[[{BLANKS}]*')
_BATCH_END = re.compile(rf"[{BLANKS}]*\][{BLANKS}]*\}}")
_COMMA = re.compile(rf"[{BLANKS}]*,[{BLANKS}]*")

# Bounded repeats: the matcher keeps a place for each turn of one.
_FLAT_OBJECT = re.compile(r'\{[^"{}]*(?:"[^"\\]*(?:\\.[^"\\]*){0,1000}"[^"{}]*){0,1500}\}', re.DOTALL)
"""An object without objects in it, with the strings that an order may have and some more."""


def parse_batch(body: bytes) -> list[NewOrder]:
    """Return the orders of a batch; raise `NotJsonError`, or `InvalidOrderError` if one is wrong."""
    text = text_of(body, _EXPECTED_BATCH, what="the body")
    if marks(text) > MAX_VALUES:
        return _one_by_one(text)
    submitted = decode(text, _EXPECTED_BATCH, what="the body")
    refuse(_batch_problems(submitted))
    return [order_of(each) for each in submitted["orders"]]


def _one_by_one(text: str) -> list[NewOrder]:
    """Return the orders of a long batch. Each is built and checked before the next is looked at."""
    orders: list[NewOrder] = []
    refuse(_take(text, orders))
    return orders


def _take(text: str, orders: list[NewOrder]) -> Iterator[FieldProblem]:
    """Append the good orders of a long batch to `orders`; yield what is wrong with the others."""
    for index, order in enumerate(_submitted(text)):
        if isinstance(order, NewOrder):
            orders.append(order)
            continue
        wrong = False
        for problem in _placed(f"orders[{index}]", order):
            wrong = True
            yield problem
        if not wrong:
            orders.append(order_of(order))


def _submitted(text: str) -> Iterator[NewOrder | dict[str, Any]]:
    """Yield what the array of a long batch has: orders recognised at a glance, and other objects."""
    place = _BATCH_START.match(text)
    for index in range(MAX_ORDERS):
        if place and (found := fast_path.recognise_at(text, place.end())):
            order, at = found
            yield order
        else:
            flat = _FLAT_OBJECT.match(text, place.end()) if place else None
            if flat is None or has_many_values(flat[0]):
                raise NotJsonError(
                    f"the body has no order as orders[{index}], or more in it: {_EXPECTED_BATCH}"
                )
            at = flat.end()
            yield decode(flat[0], _EXPECTED_ORDER, what=f"orders[{index}]")
        if _BATCH_END.fullmatch(text, at):
            return
        place = _COMMA.match(text, at)
    raise InvalidOrderError(
        [FieldProblem("orders", f"has more than {MAX_ORDERS:,} orders, {_EXPECTED_BATCH}")]
    )


def _batch_problems(submitted: dict[str, Any]) -> Iterator[FieldProblem]:
    for name in submitted:
        if name != "orders":
            yield FieldProblem(quoted(name), f"is no field of a batch, {_EXPECTED_BATCH}")
    orders = submitted.get("orders")
    if "orders" not in submitted:
        yield FieldProblem("orders", f"is missing, {_EXPECTED_BATCH}")
    elif not isinstance(orders, list):
        yield FieldProblem("orders", f"is {kind(orders)}, {_EXPECTED_BATCH}")
    elif not 1 <= len(orders) <= MAX_ORDERS:
        yield FieldProblem("orders", f"has {len(orders):,} orders, {_EXPECTED_BATCH}")
    else:
        for index, order in enumerate(orders):
            yield from _placed(f"orders[{index}]", order)


def _placed(place: str, order: Any) -> Iterator[FieldProblem]:
    """Yield what is wrong with one order of a batch."""
    if not isinstance(order, dict):
        yield FieldProblem(place, f"is {kind(order)}, {_EXPECTED_ORDER}")
        return
    for problem in problems_of(order):
        yield FieldProblem(f"{place}.{problem.field}", problem.detail)
