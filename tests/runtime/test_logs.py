import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from uuid import UUID

import pytest

from schema.runtime import logs

ID = UUID("01a204b7-f3e7-7b5e-8b5c-7b5a0a036d91")


@pytest.fixture(autouse=True)
def keep_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put pytest's own handlers back."""
    monkeypatch.setattr(logs, "_stderr", None)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.bind()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logs.bind()


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


@pytest.fixture
def text(stderr: io.StringIO) -> io.StringIO:
    logs.configure("text")
    return stderr


@pytest.fixture
def lines(stderr: io.StringIO) -> io.StringIO:
    logs.configure("json")
    return stderr


LOG = logs.Log("tests")


def test_text_line_has_time_level_event_and_fields(text: io.StringIO) -> None:
    LOG.info("order_submitted", order_id=ID, attempt=1)

    time, rest = text.getvalue().split(" ", 1)
    assert rest == f"INFO order_submitted order_id={ID} attempt=1\n"
    assert time.endswith("Z")
    assert len(time) == len("2031-05-01T12:00:00.123Z")


def test_json_line_has_the_same(lines: io.StringIO) -> None:
    LOG.info("order_submitted", order_id=ID, attempt=1)

    line = json.loads(lines.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {"level": "INFO", "event": "order_submitted", "order_id": str(ID), "attempt": 1}


def test_time_without_milliseconds_has_the_same_length(text: io.StringIO) -> None:
    record = logging.LogRecord("tests", logging.INFO, "", 0, "message", None, None)
    record.created = 1_000_000_000.0

    logging.getLogger().handle(record)

    assert text.getvalue().startswith("2001-09-09T01:46:40.000Z ")


@pytest.mark.parametrize(
    ("value", "shown"),
    [("a b", '"a b"'), ("", '""'), ("a\nINFO fake", '"a\\nINFO fake"'), ('a"b', '"a\\"b"'), ("a=b", '"a=b"')],
)
def test_value_can_not_look_like_another_field_or_line(text: io.StringIO, value: str, shown: str) -> None:
    LOG.info("seen", value=value)

    assert text.getvalue().endswith(f" seen value={shown}\n")


def test_bound_fields_are_on_every_event_until_bound_anew(text: io.StringIO) -> None:
    logs.bind(request_id="first")
    LOG.info("one")
    logs.bind(worker_id="w")
    LOG.info("two", attempt=1)

    one, two = text.getvalue().splitlines()
    assert one.endswith("one request_id=first")
    assert two.endswith("two worker_id=w attempt=1")


def test_bound_fields_are_the_threads_own(text: io.StringIO) -> None:
    logs.bind(request_id="mine")
    thread = threading.Thread(target=lambda: LOG.info("elsewhere"))
    thread.start()
    thread.join()

    assert text.getvalue().endswith("INFO elsewhere\n")


def store() -> None:
    raise ValueError("value out of range\nDETAIL:  Failing row contains (ada, tea).")


def fail() -> None:
    try:
        store()
    except ValueError as error:
        raise RuntimeError("could not store") from error


def failing() -> BaseException:
    with pytest.raises(RuntimeError) as caught:
        fail()
    return caught.value


def test_error_is_shown_with_its_frames_and_causes(text: io.StringIO) -> None:
    LOG.error("request_failed", error=failing())

    lines = text.getvalue().splitlines()
    assert lines[0].endswith("ERROR request_failed")
    assert [line.rpartition(" ")[2] for line in lines[1:3]] == ["failing", "fail"]
    assert lines[3] == "  RuntimeError: could not store"
    assert [line.rpartition(" ")[2] for line in lines[4:6]] == ["fail", "store"]
    assert lines[6] == "  ValueError: value out of range"


def test_error_in_json_is_one_line(lines: io.StringIO) -> None:
    LOG.error("request_failed", error=failing())

    assert json.loads(lines.getvalue())["trace"][-1] == "ValueError: value out of range"


@pytest.mark.parametrize("form", ["text", "json"])
def test_rows_contents_never_reach_the_log(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(form)
    LOG.error("request_failed", error=failing())
    LOG.warning("statement_failed", error=failing().__cause__)
    logging.getLogger("library").error("it broke", exc_info=failing())

    assert "ada" not in capsys.readouterr().err


@pytest.mark.parametrize("character", ["\x1b", "\r", "\x0b", "\x7f", "\x9b", "\u2028", "\u202e"])
def test_character_that_moves_the_cursor_is_escaped_wherever_it_comes_from(
    text: io.StringIO, character: str
) -> None:
    words = f"tea{character}2J"
    error = ValueError(f"no {words}")

    LOG.error("request_failed", error=error, item=words)
    LOG.warning("statement_failed", error=error)
    LOG.info(words)
    logging.getLogger("library").warning("it took %s", words)
    logging.getLogger("library").error("it broke", exc_info=error)

    assert character not in text.getvalue()
    assert text.getvalue().count("tea") == 6
    assert text.getvalue().count("tea\\") >= 5  # splitlines() makes a blank of some


def test_character_that_moves_the_cursor_is_escaped_in_json_too(lines: io.StringIO) -> None:
    LOG.error("request_failed", error=ValueError("tea\x1b[2J\u202e"))

    assert json.loads(lines.getvalue())["trace"] == ["ValueError: tea\x1b[2J\u202e"]
    assert r"tea\u001b[2J\u202e" in lines.getvalue()


@pytest.mark.parametrize(
    ("level", "events"),
    [("info", ["one", "two", "three"]), ("warning", ["two", "three"]), ("error", ["three"])],
)
def test_what_is_below_the_level_is_left_out_ours_and_others(
    capsys: pytest.CaptureFixture[str], level: str, events: list[str]
) -> None:
    logs.configure("json", level=level)

    LOG.info("one")
    LOG.warning("two")
    LOG.error("three")
    library = logging.getLogger("library")
    library.info("one")
    library.warning("two")
    library.error("three")

    seen = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert seen == [*events, *(f"library: {event}" for event in events)]


def test_warning_shows_the_message_of_an_error_only(text: io.StringIO) -> None:
    LOG.warning("wake_up_failed", error=failing())

    assert text.getvalue().endswith('WARNING wake_up_failed error="RuntimeError: could not store"\n')


def test_librarys_message_is_one_line_led_by_its_logger(text: io.StringIO) -> None:
    logging.getLogger("library").warning("two\nlines of %s", "text")

    assert text.getvalue().endswith("WARNING library: two lines of text\n")


def test_librarys_chatter_is_left_out(text: io.StringIO) -> None:
    logging.getLogger("library").debug("chatter")

    assert text.getvalue() == ""


def test_configuring_twice_logs_once(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text")
    logs.configure("text")

    LOG.info("once")

    assert len(capsys.readouterr().err.splitlines()) == 1


def test_error_that_is_its_own_cause_is_shown_once(text: io.StringIO) -> None:
    error = ValueError("round and round")
    error.__cause__ = error

    LOG.error("failed", error=error)

    assert text.getvalue().count("round and round") == 1
