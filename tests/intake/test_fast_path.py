"""What is recognised at a glance is what the closer look finds, and most of what clients write is."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from schema.errors import OrdersError
from schema.intake.batch import parse_batch
from schema.intake.fast_path import recognise
from schema.order import NewOrder

LINE = b'{"user_id": "ada", "item_ids": ["tea", "a cup"],"total_amount": 20.75}\r\n'
ORDER: dict[str, Any] = {"user_id": "ada", "item_ids": ["tea", "a cup"], "total_amount": 20.75}


def seen_closely(text: bytes) -> list[NewOrder]:
    """Take the way that is never short."""
    try:
        return parse_batch(b'{"orders": [' + text + b"]}")
    except OrdersError:
        return []


def edits(text: bytes) -> Iterator[bytes]:
    """Each byte left out, put before each place, or put in each one's stead."""
    for place in range(len(text) + 1):
        yield text[:place] + text[place + 1 :]
        for byte in range(256):
            yield text[:place] + bytes([byte]) + text[place:]
            yield text[:place] + bytes([byte]) + text[place + 1 :]


def test_no_edit_of_a_byte_makes_it_see_what_is_not_there() -> None:
    recognised = {text: order for text in edits(LINE) if (order := recognise(text))}

    assert len(recognised) > 1000
    assert {text: [order] for text, order in recognised.items()} == {
        text: seen_closely(text) for text in recognised
    }


@pytest.mark.parametrize("separators", [None, (",", ":")])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize("amount", [0, 7, 0.5, 20.75, 999999999999.99])
def test_what_common_writers_write_is_recognised(
    separators: tuple[str, str] | None, end: str, amount: float
) -> None:
    text = json.dumps(ORDER | {"total_amount": amount}, separators=separators) + end

    assert recognise(text.encode()) == seen_closely(text.encode())[0]


ID = "x" * 255
AMOUNTS = (b"1e2", b"-0", b"00", b"01", b"1.", b".5", b"1.005", b"1234567890123", b"NaN", b'"1"')


@pytest.mark.parametrize("amount", AMOUNTS)
def test_odd_amount_takes_a_closer_look(amount: bytes) -> None:
    assert recognise(LINE.replace(b"20.75", amount)) is None


@pytest.mark.parametrize(
    ("members", "good"),
    [
        ({"user_id": ID}, True),
        ({"user_id": ID + "x"}, False),
        ({"item_ids": [ID, ID]}, True),
        ({"item_ids": [ID, ID + "x"]}, False),
        ({"item_ids": ["tea"] * 1000}, True),
        ({"item_ids": ["tea"] * 1001}, False),
        ({"item_ids": []}, False),
        ({"item_ids": [" "]}, False),
        ({"user_id": ""}, False),
    ],
)
def test_limits_are_those_of_the_closer_look(members: dict[str, Any], *, good: bool) -> None:
    text = json.dumps(ORDER | members).encode()

    assert [order for order in [recognise(text)] if order] == seen_closely(text)
    assert bool(recognise(text)) is good
