"""One line an event: its name and its fields, as text or JSON on stderr. Used by every process here.

    _log = logs.Log(__name__)
    _log.info("order_submitted", order_id=order_id)

What other code does with `logging` changes nothing here: a handler of orders may configure it as it likes.

INFO means that a state changed, WARNING that something was lost and will be made good by itself, ERROR
that a person must look. An order's contents are never logged: fields are single values, and of an
error only the first line is shown, because PostgreSQL puts the row into the lines after it.
"""

import json
import logging
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from types import FrameType
from uuid import UUID

Field = str | int | float | UUID | None

_bound: ContextVar[Mapping[str, Field]] = ContextVar("bound")
_NOTHING: Mapping[str, Field] = {}


_stderr: logging.Handler | None = None


def configure(form: str, *, level: str = "info") -> None:
    """Send this process's log to stderr, each event as one line of `text` or `json`.

    `level` is the lowest that is sent, `info`, `warning` or `error`, also to what others have added to the
    root logger.
    """
    global _stderr
    # The logging HOWTO, "Optimization": what no format below shows need not be found out either.
    logging.logThreads = False
    logging.logProcesses = False
    logging.logMultiprocessing = False
    _stderr, others = logging.StreamHandler(sys.stderr), logging.StreamHandler(sys.stderr)
    for handler in (_stderr, others):
        handler.setFormatter(_JsonLines() if form == "json" else _TextLines())
    _stderr.setLevel(level.upper())
    others.addFilter(lambda record: not isinstance(record, _Event))
    root = logging.getLogger()
    root.handlers[:] = [others]
    root.setLevel(level.upper())


def bind(**fields: Field) -> None:
    """Put `fields` on every event of this thread (or context) from now on, instead of the last ones."""
    _bound.set(fields)


class _Event(logging.LogRecord):
    """A record that carries its fields."""

    fields: Mapping[str, Field]
    stack: Sequence[FrameType]


class Log:
    """Where one module sends its events: to stderr, and to what others have added to the root logger.

    Sending raises nothing, whatever an error's `__str__` or another's `logging.Handler` does.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def info(self, event: str, **fields: Field) -> None:
        """Record that a state changed."""
        self._send(logging.INFO, event, fields)

    def warning(
        self,
        event: str,
        *,
        error: BaseException | None = None,
        stack: Sequence[FrameType] = (),
        **fields: Field,
    ) -> None:
        """Record that something was lost which comes right by itself.

        Of `error` the message is shown, of `stack` each frame.
        """
        if error is not None:
            fields["error"] = first_line(error)
        self._send(logging.WARNING, event, fields, stack=stack)

    def error(self, event: str, *, error: BaseException | None = None, **fields: Field) -> None:
        """Record what a person must look at; `error` is shown with its traceback."""
        self._send(logging.ERROR, event, fields, error=error)

    def _send(
        self,
        level: int,
        event: str,
        fields: dict[str, Field],
        *,
        error: BaseException | None = None,
        stack: Sequence[FrameType] = (),
    ) -> None:
        enabled = self._logger.isEnabledFor(level)
        shown = _stderr is not None and level >= _stderr.level
        if not shown and not enabled:
            return
        # Not logger.log(): it walks the stack for a file and line that no format here shows.
        record = _Event(self._logger.name, level, "", 0, event, None, None)
        record.fields = {**_bound.get(_NOTHING), **fields}
        record.stack = stack
        if error is not None:
            record.exc_info = (type(error), error, error.__traceback__)
        try:
            if shown and _stderr is not None:
                _stderr.handle(record)
            if enabled:
                self._logger.handle(record)
        except (Exception, SystemExit) as raised:  # noqa: BLE001 - somebody else's handler
            _report(raised)


def _report(raised: BaseException) -> None:
    """Say of each class of error once that somebody else's handler of the log raises it."""
    if type(raised) not in _reported:
        _reported.add(type(raised))
        _log.error("log_handler_raised", error=raised)


_log = Log(__name__)
_reported: set[type[BaseException]] = set()


def first_line(error: BaseException) -> str:
    """Return an error's class and the first line of its message."""
    line = message(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def message(error: BaseException) -> str:
    """Return an error's message, nothing if its class can't tell it."""
    try:
        return str(error)
    except BaseException:  # noqa: BLE001 - the classes of a handler's errors may do anything
        return ""


class _TextLines(logging.Formatter):
    """`2031-05-01T12:00:00.123Z INFO order_submitted order_id=… request_id=…`."""

    def format(self, record: logging.LogRecord) -> str:
        words = [*_head(record), *(f"{name}={_word(value)}" for name, value in _fields(record).items())]
        return plain(" ".join(words)) + "".join(f"\n  {plain(line)}" for line in _trace(record))


class _JsonLines(logging.Formatter):
    """The same as one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = dict(zip(("time", "level", "event"), _head(record), strict=True))
        line.update(_fields(record))
        if trace := _trace(record):
            line["trace"] = trace
        return json.dumps(line, default=str)


def _head(record: logging.LogRecord) -> tuple[str, str, str]:
    """Return time, level and event; a library's message is led by the name of its logger."""
    time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    event = record.msg
    if not isinstance(record, _Event):
        event = f"{record.name}: {' '.join(record.getMessage().splitlines())}"
    return time.removesuffix("+00:00") + "Z", record.levelname, event


def _fields(record: logging.LogRecord) -> Mapping[str, Field]:
    return record.fields if isinstance(record, _Event) else _NOTHING


def _word(value: Field) -> str:
    """Quote what has blanks or control characters in it, so that a value can't look like a line."""
    word = str(value)
    if word and word.isprintable() and not any(mark in word for mark in ' "='):
        return word
    return json.dumps(word)


def plain(text: str) -> str:
    """Escape as JSON does what does not print, because it may move the cursor."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return json.dumps(character)[1:-1].replace("\x7f", r"\u007f")


def _trace(record: logging.LogRecord) -> list[str]:
    """Return a stack, or the frames of an error and of what caused it, each error by its first line only."""
    if isinstance(record, _Event) and record.stack:
        return [
            f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}" for frame in record.stack
        ]
    error = record.exc_info[1] if record.exc_info else None
    lines: list[str] = []
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # `raise e from e` makes an error its own cause
        seen.add(id(error))
        frames = traceback.extract_tb(error.__traceback__)
        lines += [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
        lines.append(first_line(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return lines
