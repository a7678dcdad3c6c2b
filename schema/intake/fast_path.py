"""Recognise an order as nearly every client writes it, for less than half of what reading any JSON costs.

Returns None when unsure; `schema.intake.fields` then decides.
"""

import re
from decimal import Decimal

from schema.order import NewOrder

_ID = r'"[!#-\[\]-~][ !#-\[\]-~]{0,254}"'
"""Visible ASCII, blanks after the first character, nothing that JSON escapes."""

_AMOUNT = r"(?:0|[1-9][0-9]{0,11})(?:\.[0-9]{1,2})?"

# No possessive repeats: the first releases of Python 3.11 match a comma too many with them.
_ITEMS = rf"{_ID}(?:, ?{_ID}){{0,999}}"

_ORDER = re.compile(
    rf'\{{"user_id": ?({_ID}), ?"item_ids": ?\[({_ITEMS})\], ?"total_amount": ?({_AMOUNT})\}}[ \t\r\n]*'
)

_CENT = Decimal("0.01")


def recognise(text: bytes) -> NewOrder | None:
    """Return the order that a JSON text has, None when unsure: `parse` then decides."""
    found = _ORDER.fullmatch(text.decode("latin-1"))
    return None if found is None else _order(found)


def recognise_at(text: str, start: int) -> tuple[NewOrder, int] | None:
    """Return the order that begins at `start` and where it ends, None when unsure."""
    found = _ORDER.match(text, start)
    return None if found is None else (_order(found), found.end())


def _order(found: re.Match[str]) -> NewOrder:
    user_id, item_ids, total_amount = found.groups()
    # No id contains a quote, so each second piece is one.
    return NewOrder(
        user_id=user_id[1:-1],
        item_ids=tuple(item_ids.split('"')[1::2]),
        total_amount=Decimal(total_amount).quantize(_CENT),
    )
