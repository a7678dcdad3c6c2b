"""What a body may be, and in `BAD` all that it may not be."""

import json
import re
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from schema.intake.batch import parse_batch
from schema.intake.fields import MAX_ID_LENGTH, MAX_ITEMS, InvalidOrderError
from schema.intake.json_text import NotJsonError
from schema.intake.parse import parse

GOOD: dict[str, Any] = {"user_id": "ada", "item_ids": ["tea"], "total_amount": 1}
MISSING = object()


def body(**changes: Any) -> bytes:
    order = {**GOOD, **changes}
    return json.dumps({name: value for name, value in order.items() if value is not MISSING}).encode()


def amount(literal: str) -> bytes:
    return b'{"user_id": "ada", "item_ids": ["tea"], "total_amount": %s}' % literal.encode()


# name of the case: (body, what the detail names)
BAD: dict[str, tuple[bytes, str]] = {
    "empty body": (b"", "empty"),
    "blank body": (b" \r\n\t", "empty"),
    "only a byte order mark": (b"\xef\xbb\xbf", "empty"),
    "not JSON": (b"user_id=ada", "not JSON"),
    "cut off": (body()[:-1], "not JSON"),
    "two documents": (body() + body(), "not JSON"),
    "trailing comma": (body()[:-1] + b",}", "not JSON"),
    "single quotes": (body().replace(b'"', b"'"), "not JSON"),
    "bad UTF-8": (b'{"user_id": "\xff"}', "not UTF-8"),
    "UTF-16": (body().decode().encode("utf-16"), "not UTF-8"),
    "encoded surrogate": (b'{"user_id": "\xed\xa0\x80"}', "not UTF-8"),
    "raw control character": (body(user_id="a\0b").replace(b"\\u0000", b"\0"), "not JSON"),
    "array": (b"[]", "an array"),
    "array of orders": (b"[" + body() + b"]", "an array"),
    "string": (b'"order"', "a string"),
    "number": (b"7", "a number"),
    "true": (b"true", "a boolean"),
    "null": (b"null", "null"),
    "NaN": (b"NaN", "a number"),
    "arrays nested 100,000 deep": (b"[" * 100_000 + b"]" * 100_000, "nested"),
    "objects nested 100,000 deep": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested"),
    "nesting never closed": (b"[" * 100_000, "nested"),
    "repeated key": (b'{"user_id": "ada", "user_id": "bob"}', '"user_id" appears more than once'),
    "repeated key in an object inside": (body(user_id={"a": 1}).replace(b"1}", b'1, "a": 2}', 1), '"a"'),
    "empty object": (b"{}", "user_id is missing"),
    "no user": (body(user_id=MISSING), "user_id is missing"),
    "no items": (body(item_ids=MISSING), "item_ids is missing"),
    "no amount": (body(total_amount=MISSING), "total_amount is missing"),
    "user null": (body(user_id=None), "user_id is null"),
    "user empty": (body(user_id=""), "user_id is empty"),
    "user blank": (body(user_id=" \t\u00a0\u3000"), "user_id is blank"),
    "user a number": (body(user_id=7), "user_id is a number"),
    "user a boolean": (body(user_id=True), "user_id is a boolean"),
    "user an array": (body(user_id=["ada"]), "user_id is an array"),
    "user an object": (body(user_id={"id": "ada"}), "user_id is an object"),
    "user too long": (body(user_id="a" * 256), "user_id has 256 characters"),
    "user with NUL": (body(user_id="a\0b"), "user_id contains a NUL"),
    "user with a lone surrogate": (body(user_id="a\ud800"), "user_id contains a lone surrogate"),
    "user with surrogates reversed": (body(user_id="\udc00\ud800"), "user_id contains a lone surrogate"),
    "items null": (body(item_ids=None), "item_ids is null"),
    "items empty": (body(item_ids=[]), "item_ids has 0 items"),
    "items a string": (body(item_ids="tea"), "item_ids is a string"),
    "items a number": (body(item_ids=1), "item_ids is a number"),
    "items an object": (body(item_ids={"tea": 1}), "item_ids is an object"),
    "items too many": (body(item_ids=["tea"] * 1001), "item_ids has 1,001 items"),
    "item empty": (body(item_ids=["tea", ""]), "item_ids[1] is empty"),
    "item blank": (body(item_ids=[" ", "tea"]), "item_ids[0] is blank"),
    "item null": (body(item_ids=[None]), "item_ids[0] is null"),
    "item a number": (body(item_ids=["tea", 1]), "item_ids[1] is a number"),
    "item a boolean": (body(item_ids=[False]), "item_ids[0] is a boolean"),
    "item an array": (body(item_ids=[["tea"]]), "item_ids[0] is an array"),
    "item too long": (body(item_ids=["é" * 256]), "item_ids[0] has 256 characters"),
    "item with NUL": (body(item_ids=["\0"]), "item_ids[0] contains a NUL"),
    "item with a lone surrogate": (body(item_ids=["tea", "\udfff"]), "item_ids[1] contains a lone surrogate"),
    "amount null": (body(total_amount=None), "total_amount is null"),
    "amount a string": (body(total_amount="250.75"), "total_amount is a string"),
    "amount empty": (body(total_amount=""), "total_amount is a string"),
    "amount true": (body(total_amount=True), "total_amount is a boolean"),
    "amount false": (body(total_amount=False), "total_amount is a boolean"),
    "amount an array": (body(total_amount=[1]), "total_amount is an array"),
    "amount an object": (body(total_amount={}), "total_amount is an object"),
    "amount NaN": (amount("NaN"), "total_amount is NaN"),
    "amount Infinity": (amount("Infinity"), "total_amount is Infinity"),
    "amount -Infinity": (amount("-Infinity"), "total_amount is -Infinity"),
    "amount negative": (amount("-0.01"), "total_amount is -0.01"),
    "amount of 13 digits": (amount("1000000000000"), "total_amount is 1000000000000"),
    "amount of 13 digits by exponent": (amount("1e12"), "total_amount is 1e12"),
    "amount with three decimals": (amount("1.001"), "total_amount is 1.001"),
    "amount with a third decimal of zero": (amount("1.000"), "total_amount is 1.000"),
    "amount with decimals by exponent": (amount("1e-3"), "total_amount is 1e-3"),
    "amount rounding to a valid one": (amount("0.999999999999999999999"), "total_amount is 0.99"),
    "amount astronomical": (amount("1e999999999"), "total_amount is 1e999999999"),
    "amount beyond any decimal": (amount("1e99999999999999999999"), "total_amount is 1e9"),
    "amount infinitesimal": (amount("1e-99999999999999999999"), "total_amount is 1e-9"),
    "amount of 5,000 digits": (amount("9" * 5000), "total_amount is 999"),
    "amount of a million digits": (amount("9" * 1_000_000), "total_amount is 999"),
    "amount with a plus sign": (amount("+1"), "not JSON"),
    "amount with a leading zero": (amount("01"), "not JSON"),
    "amount without a leading zero": (amount(".5"), "not JSON"),
    "amount hexadecimal": (amount("0x10"), "not JSON"),
    "unknown field": (body(coupon="X"), '"coupon" is no field'),
    "unknown field that differs in case": (body(User_ID="ada"), '"User_ID" is no field'),
    "unknown field with NUL": (body(**{"a\0": 1}), '"a\\u0000" is no field'),
    "unknown field with a lone surrogate": (body(**{"\ud800": 1}), '"\\ud800" is no field'),
    "unknown empty field": (body(**{"": 1}), '"" is no field'),
    "unknown field set to null": (body(coupon=None), '"coupon" is no field'),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_body_is_refused_by_name_with_what_is_expected(case: str) -> None:
    sent, named = BAD[case]

    with pytest.raises((NotJsonError, InvalidOrderError)) as caught:
        parse(sent)

    assert named in str(caught.value)
    assert "expected" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_all_wrong_fields_are_reported_at_once() -> None:
    with pytest.raises(InvalidOrderError) as caught:
        parse(body(user_id="", item_ids=["tea", 7, None], total_amount=-1, coupon="X"))

    assert [problem.field for problem in caught.value.problems] == [
        "user_id",
        "item_ids[1]",
        "item_ids[2]",
        "total_amount",
        '"coupon"',
    ]


def test_report_of_a_thousand_wrong_items_stays_short() -> None:
    with pytest.raises(InvalidOrderError) as caught:
        parse(body(item_ids=[""] * 1000))

    assert len(caught.value.problems) == 20
    assert str(caught.value).endswith("and 980 more")


def test_long_unknown_field_is_shown_shortened() -> None:
    with pytest.raises(InvalidOrderError) as caught:
        parse(body(**{"x" * 100_000: 1}))

    assert len(caught.value.problems[0].field) < 60


def test_hundred_thousand_keys_with_one_repeated_are_told_apart_quickly() -> None:
    keys = ",".join(f'"{number}":1' for number in range(100_000))

    with pytest.raises(NotJsonError, match="99999"):
        parse(f'{{{keys},"99999":1}}'.encode())


@pytest.mark.parametrize(
    ("literal", "expected"),
    [
        ("250.75", "250.75"),
        ("0", "0.00"),
        ("0.0", "0.00"),
        ("-0", "0.00"),
        ("-0.00", "0.00"),
        ("0e999999999", "0.00"),
        ("0.01", "0.01"),
        ("0.1", "0.10"),
        ("7", "7.00"),
        ("1e2", "100.00"),
        ("1E+2", "100.00"),
        ("1.5e1", "15.00"),
        ("12345e-2", "123.45"),
        ("999999999999.99", "999999999999.99"),
        ("9.9999999999999e11", "999999999999.99"),
    ],
)
def test_amount_is_taken_exactly_with_two_decimals(literal: str, expected: str) -> None:
    order = parse(amount(literal))

    assert order.total_amount == Decimal(expected)
    assert str(order.total_amount) == expected


def test_ids_are_taken_as_they_are() -> None:
    items = [
        "a,b",
        '"quoted"',
        "it's",
        "☕ 👩‍🚀",
        "{curly}",
        "back\\slash",
        "NULL",
        " padded ",
        "\u200b",
        "new\nline",
    ]

    order = parse(body(user_id=" ada ", item_ids=items))

    assert order.user_id == " ada "
    assert order.item_ids == tuple(items)


def test_longest_ids_and_list_are_accepted() -> None:
    order = parse(body(user_id="👩" * MAX_ID_LENGTH, item_ids=["x" * 255] * MAX_ITEMS))

    assert len(order.item_ids) == 1000


def test_astral_characters_may_be_written_as_surrogate_pairs() -> None:
    assert parse(body(user_id="👩")).user_id == "👩"
    assert b"\\ud83d" in body(user_id="👩")


def test_byte_order_mark_is_ignored() -> None:
    assert parse(b"\xef\xbb\xbf" + body()).user_id == "ada"


# Eight megabytes, of which a few may be built at once


MEBIBYTE = 1024 * 1024


def filled(piece: str, start: str = '{"orders":[', end: str = "]}", *, size: int = 8 * MEBIBYTE) -> bytes:
    count = (size - len(start + end)) // (len(piece) + 1)
    return (start + ",".join([piece] * count) + end).encode()


ONE_ORDER = '{"orders":[{"user_id":"a","total_amount":1,"item_ids":['

GREEDY = {
    "numbers": filled("1"),
    "strings": filled('""'),
    "literals": filled("null"),
    "arrays": filled("[]"),
    "arrays in arrays": filled("[[[[]]]]"),
    "objects": filled("{}"),
    "objects in objects": filled('{"a":{}}'),
    "numbers in one order": filled("1", ONE_ORDER, "]}]}"),
    "strings in one order": filled('"a"', ONE_ORDER, "]}]}"),
    "keys of one order": filled('"ab":1', '{"orders":[{', "}]}"),
    "keys": filled('"ab":1', "{", "}"),
    "beside the orders": filled("1", '{"orders":[], "more": ['),
    "escapes": filled(r"\"\\", '{"orders":[{"user_id":"', '"}]}').replace(b",", b""),
    "strings without an end": b'{"orders":[{"user_id":"' + b'", "' * 2 * MEBIBYTE,
}


def peak_of(read: Callable[[bytes], object], text: bytes) -> int:
    """Return how many bytes are in use at most while a text is read that must be refused."""
    tracemalloc.start()
    try:
        with pytest.raises((NotJsonError, InvalidOrderError), match="expected"):
            read(text)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", GREEDY.values(), ids=GREEDY)
def test_batch_that_is_none_is_refused_before_it_is_built(text: bytes) -> None:
    # The text itself, and once more where its strings are left out to count the rest.
    assert peak_of(parse_batch, text) < 40 * MEBIBYTE


@pytest.mark.parametrize("piece", ["1", '""', "[]", "[[]]", "{}"])
def test_order_that_is_none_is_refused_before_it_is_built(piece: str) -> None:
    text = filled(piece, '{"user_id":"a","total_amount":1,"item_ids":[', size=MEBIBYTE)

    assert peak_of(parse, text) < 10 * MEBIBYTE


def test_batch_is_built_order_by_order() -> None:
    text = filled(json.dumps({"total_amount": -1, "user_id": "a", "item_ids": ["a"] * 900}))

    # Built at once, its two million items take 20 MiB and more beside the text.
    assert peak_of(parse_batch, text) < 12 * MEBIBYTE


ITEMS = ["tea", "a, cup", "{}", "[", '"', "\\", '\\"', "a\n", "ü", "👩"]


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("indent", [None, 1])
def test_long_batch_has_the_orders_of_its_parts_in_their_order(
    indent: int | None, *, ascii_only: bool
) -> None:
    common = {"user_id": "ada", "item_ids": ["tea"] * 50, "total_amount": 1.5}
    odd = {"total_amount": 250.75, "item_ids": ITEMS * 10, "user_id": "ü"}
    orders = [{**(odd if number % 3 else common), "user_id": f"user {number}"} for number in range(3000)]

    batch = parse_batch(json.dumps({"orders": orders}, indent=indent, ensure_ascii=ascii_only).encode())

    assert batch == [parse(json.dumps(order).encode()) for order in orders]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda text: text[:-1], "or more in it"),
        (lambda text: text[:-1] + ', "more": 1}', "or more in it"),
        (lambda text: text + "{}", "or more in it"),
        (lambda text: text.replace("}, {", "} {", 1), "no order as orders[1]"),
        (lambda text: text.replace("1.5}, {", "1.5, {", 1), "no order as orders[0]"),
        (lambda text: text.replace("}, {", "}, 7, {", 1), "no order as orders[1]"),
        (lambda text: text.replace('"user_id"', "user_id", 1), "orders[0] is not JSON"),
        (lambda text: text.replace("}, {", "}, {}, {", 1), "orders[1].user_id is missing"),
        (lambda text: text.replace('"item_ids"', '"user_id"', 1), '"user_id" appears more than once'),
    ],
)
def test_long_batch_with_an_error_is_refused_and_the_error_named(
    edit: Callable[[str], str], said: str
) -> None:
    order = {"user_id": "ada", "item_ids": ["tea"] * 100, "total_amount": 1.5}
    text = json.dumps({"orders": [order] * 2000})
    assert len(parse_batch(text.encode())) == 2000

    with pytest.raises((NotJsonError, InvalidOrderError), match=re.escape(said)):
        parse_batch(edit(text).encode())


def test_errors_of_a_long_batch_are_counted_to_its_end() -> None:
    order = {"user_id": "ada", "item_ids": ["tea"] * 100, "total_amount": 1.5}
    orders = [order, {**order, "user_id": 1}] * 1000

    with pytest.raises(InvalidOrderError, match=r"orders\[1\].user_id is a number.*and 980 more$"):
        parse_batch(json.dumps({"orders": orders}).encode())


def test_order_whose_ids_are_full_of_commas_is_none_of_many_values() -> None:
    items = [f"{number:03}" + ",[{" * 84 for number in range(1000)]

    assert parse(body(item_ids=items)).item_ids == tuple(items)
    assert parse_batch(b'{"orders": [%s, %s]}' % (body(item_ids=items), body()))[0].item_ids == tuple(items)
