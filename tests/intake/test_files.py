"""What a file of orders may look like, line by line."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from schema.intake.files import MAX_LINE_BYTES, Entry, Format, Offset, UnreadableFileError, format_of, read

LINE = b'{"user_id": "ada", "item_ids": ["tea"], "total_amount": 1.50}\n'
HEADER = b"user_id,item_ids,total_amount\n"
ROW = b'ada,"[""tea"", ""milk""]",1.50\n'


def entries(text: bytes, kind: Format = Format.NDJSON) -> list[Entry]:
    return list(read(io.BytesIO(text), kind, start=Offset()))


def orders(found: list[Entry]) -> list[Any]:
    return [
        (entry.line, entry.order.user_id, entry.order.item_ids, str(entry.order.total_amount))
        for entry in found
        if entry.order
    ]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.ndjson", "ndjson"), ("a.JSONL", "ndjson"), ("a.csv", "csv"), ("a.ndjson.csv", "csv")],
)
def test_format_goes_by_the_end_of_the_name(name: str, kind: str) -> None:
    assert format_of(Path(name)) == kind


@pytest.mark.parametrize("name", ["a", "a.json", "a.txt", ".csv"])
def test_name_that_does_not_tell_the_format_is_an_error(name: str) -> None:
    with pytest.raises(UnreadableFileError, match="--format"):
        format_of(Path(name))


def test_every_line_is_an_order_and_blank_ones_are_none() -> None:
    found = entries(b"\xef\xbb\xbf" + LINE + b"\n \r\n" + LINE.replace(b"\n", b"\r\n") + LINE.rstrip())

    assert orders(found) == [(line, "ada", ("tea",), "1.50") for line in (1, 4, 5)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"oops\n", "the line is not JSON"),
        (b"[]\n", "the line is an array"),
        (b"\xff\n", "the line is not UTF-8"),
        (b"{}\n", "user_id is missing"),
        (LINE.replace(b"1.50", b"-1"), "total_amount is -1"),
        (LINE.rstrip() * 2 + b"\n", "the line is not JSON (Extra data"),
        (b"x" * (MAX_LINE_BYTES + 1) + b"\n", "the line is longer than 1,048,576 bytes"),
        (b"x" * (3 * MAX_LINE_BYTES) + b"\n", "the line is longer than 1,048,576 bytes"),
    ],
)
def test_wrong_line_is_an_entry_with_a_reason_and_spoils_no_other(line: bytes, reason: str) -> None:
    first, wrong, last = entries(LINE + line + LINE)

    assert wrong.order is None
    assert reason in wrong.reason
    assert (wrong.line, wrong.source) == (2, line[: MAX_LINE_BYTES + 1])
    assert [entry.order is not None for entry in (first, last)] == [True, True]
    assert last.end == Offset(3, len(LINE + line + LINE))


def test_longest_line_is_read() -> None:
    order = json.loads(LINE)
    line = json.dumps(order).encode()

    (entry,) = entries(line + b" " * (MAX_LINE_BYTES - len(line) - 1) + b"\n")

    assert entry.order is not None


def test_csv_has_its_columns_in_any_order() -> None:
    found = entries(b'\xef\xbb\xbftotal_amount,user_id,item_ids\r\n 1.50 ,ada,"[""tea""]"\r\n', Format.CSV)

    assert orders(found) == [(2, "ada", ("tea",), "1.50")]


def test_csv_cells_hold_commas_quotes_and_line_ends() -> None:
    found = entries(
        HEADER + b'"a,""b""\nc","[""x, y"", ""z\\n""]",1\n\n' + ROW.replace(b"\n", b""), Format.CSV
    )

    assert orders(found) == [(2, 'a,"b"\nc', ("x, y", "z\n"), "1.00"), (5, "ada", ("tea", "milk"), "1.50")]


@pytest.mark.parametrize(
    "header",
    [b"", b"\n", ROW, b"user_id,item_ids\n", b"user_id,item_ids,total_amount,status\n", b"\xff,a,b\n"],
)
def test_csv_without_its_columns_is_no_file_of_orders(header: bytes) -> None:
    with pytest.raises(UnreadableFileError, match="user_id,item_ids,total_amount"):
        entries(header + ROW, Format.CSV)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"ada\n", "the record has 1 cells, expected 3"),
        (ROW.rstrip() + b",\n", "the record has 4 cells, expected 3"),
        (b"ada,tea,1\n", "item_ids is a string, expected a list"),
        (b'ada,"{""a"": 1}",1\n', "item_ids is a string, expected a list"),
        (b'ada,"[""tea"", 3]",1\n', "item_ids[1] is a number"),
        (b',"[""tea""]",1\n', "user_id is empty"),
        (ROW.replace(b"1.50", b""), "total_amount is a string, expected a number"),
        (ROW.replace(b"1.50", b"1_000"), "total_amount is a string, expected a number"),
        (ROW.replace(b"1.50", b"NaN"), "total_amount is a string, expected a number"),
        (ROW.replace(b"1.50", "٣".encode()), "total_amount is a string, expected a number"),
        (ROW.replace(b"1.50", b"1.505"), "total_amount is 1.505, expected a number"),
        (ROW.replace(b"ada", b"\xff"), "the line is not UTF-8 (byte 0)"),
        (b'"ada"x,"[""tea""]",1\n', "expected after"),
        (ROW.replace(b"ada", b"x" * MAX_LINE_BYTES), "the line is longer than"),
    ],
)
def test_wrong_record_is_an_entry_with_a_reason_and_spoils_no_other(row: bytes, reason: str) -> None:
    first, wrong, last = entries(HEADER + ROW + row + ROW, Format.CSV)

    assert wrong.order is None
    assert reason in wrong.reason
    assert wrong.line == 3
    assert [entry.order is not None for entry in (first, last)] == [True, True]


def test_fault_in_a_record_of_several_lines_spoils_all_of_it_and_no_other() -> None:
    found = entries(HEADER + b'"a\n\xff\nb","[""x""]",1\n' + ROW, Format.CSV)

    assert [(entry.line, entry.reason) for entry in found] == [(2, "the line is not UTF-8 (byte 0)"), (5, "")]


def test_csv_cell_may_be_as_long_as_a_line() -> None:
    items = json.dumps(["x" * 255] * 1000).replace('"', '""')

    (entry,) = entries(HEADER + f'ada,"{items}",1\n'.encode(), Format.CSV)

    assert entry.order is not None


def test_nothing_is_read_past_the_end() -> None:
    found = list(read(io.BytesIO(LINE * 3), Format.NDJSON, start=Offset(), end=2 * len(LINE)))

    assert len(found) == 2


def test_quote_without_its_end_takes_the_rest_of_the_file_and_says_so() -> None:
    rest = b'"ada,tea,1\nbob,tea,1\ncyd,tea,1\n'

    found = entries(HEADER + ROW + rest, Format.CSV)

    assert [entry.order is not None for entry in found] == [True, False]
    assert (found[1].line, found[1].source) == (3, rest)
    assert found[1].reason == "unexpected end of data"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (LINE + b"oops\n\n" + LINE * 2, Format.NDJSON),
        (HEADER + ROW + b'"a\nb","[""x""]",1\n' + b"oops\n\n" + ROW, Format.CSV),
    ],
)
def test_reading_goes_on_at_the_end_of_any_entry(text: bytes, kind: Format) -> None:
    found = entries(text, kind)

    for number, entry in enumerate(found):
        assert list(read(io.BytesIO(text), kind, start=entry.end)) == found[number + 1 :]


@pytest.mark.parametrize("kind", Format)
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("user_id\n".encode("utf-16"), "is UTF-16"),
        ("\ufeff{}".encode("utf-16-be"), "is UTF-16"),
        ("user_id\n".encode("utf-16-le"), "looks like UTF-16"),
        ("{}".encode("utf-16-le"), "looks like UTF-16"),
        ("{}".encode("utf-32"), "is UTF-32"),
        (b"PK\x03\x04\x14\x00", "is a ZIP archive, as an Excel workbook is"),
        (b"\x1f\x8b\x08\x00", "is compressed by gzip"),
    ],
)
def test_file_that_is_no_text_is_refused_as_what_it_is(text: bytes, found: str, kind: Format) -> None:
    with pytest.raises(UnreadableFileError, match=f"the file {found}: save it as UTF-8 text, {kind.upper()}"):
        entries(text, kind)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (b"user_id;item_ids;total_amount\n", "its cells are separated by semicolons, not by commas"),
        (b"\xef\xbb\xbfuser_id;total_amount;item_ids\r\n", "its cells are separated by semicolons"),
        (b"user_id\titem_ids\ttotal_amount\n", "its cells are separated by tabs"),
        (b'"user_id"|"item_ids"|"total_amount"\n', "its cells are separated by bars"),
        (b"sep=;\nuser_id;item_ids;total_amount\n", "it is Excel's 'sep=;'; remove it"),
        (b"SEP=,\nuser_id,item_ids,total_amount\n", "it is Excel's 'SEP=,'; remove it"),
        (b"User ID,Items,Total\n", "it is 'User ID,Items,Total'"),
        (b"ada,tea,3\n" * 9, "it is 'ada,tea,3'"),
        (b"kund\xe9,item_ids,total_amount\n", "the line is not UTF-8 (byte 4)"),
        (b"", "it is empty"),
        (b"x" * 3000 + b"\n", "it is '" + "x" * 200 + "'"),
    ],
)
def test_first_line_that_names_no_columns_is_refused_with_what_it_is(header: bytes, found: str) -> None:
    with pytest.raises(UnreadableFileError) as raised:
        entries(header, Format.CSV)

    assert "has to name the columns user_id,item_ids,total_amount: " in str(raised.value)
    assert found in str(raised.value)
