"""Turn what a client or a file has into an order, or say everything that is wrong with it.

No HTTP and no database here. What passes here passes the table's constraints too.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from schema.intake import fast_path
from schema.intake.fields import order_of, problems_of, refuse
from schema.intake.json_text import (
    MAX_VALUES,
    NotJsonError,
    Number,
    decode,
    decoder,
    has_many_values,
    text_of,
)
from schema.order import NewOrder

_EXPECTED_OBJECT = "expected a JSON object with user_id, item_ids and total_amount"

_AMOUNT = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
"""What JSON calls a number, and zeros in front of it."""


def parse(text: bytes, *, what: str = "the body") -> NewOrder:
    """Return the order that a JSON text describes; raise `NotJsonError` or `InvalidOrderError`.

    `what` names the text in the errors' messages.
    """
    if plain := fast_path.recognise(text):
        return plain
    decoded = text_of(text, _EXPECTED_OBJECT, what=what)
    if has_many_values(decoded):
        raise NotJsonError(
            f"{what} has more than {MAX_VALUES:,} values or is nested too deeply: {_EXPECTED_OBJECT}"
        )
    submitted = decode(decoded, _EXPECTED_OBJECT, what=what)
    refuse(problems_of(submitted))
    return order_of(submitted)


def parse_row(row: Mapping[str, str]) -> NewOrder:
    """Return the order that a row of text cells describes: `item_ids` is a JSON array, the others are bare.

    Raises `InvalidOrderError`.
    """
    submitted: dict[str, Any] = dict(row)
    submitted["item_ids"] = _array(row["item_ids"])
    amount = row["total_amount"].strip()
    if _AMOUNT.fullmatch(amount):
        submitted["total_amount"] = Number(amount)
    refuse(problems_of(submitted))
    return order_of(submitted)


def _array(cell: str) -> Any:
    """Return the JSON array in a cell, or else the cell's text, which `problems_of` refuses."""
    try:
        array = decoder.decode(cell.strip())
    except (json.JSONDecodeError, RecursionError, NotJsonError):
        return cell
    return array if isinstance(array, list) else cell
