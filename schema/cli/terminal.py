"""How commands answer: in lines for people, or in one JSON document for programs."""

import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps

import click

from schema.runtime import settings
from schema.runtime.logs import plain

_LEAST_COLUMNS = 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command found or did.

    `document` is JSON, or is made into JSON with times in UTC. `more` is for people too, on stderr.
    """

    lines: Iterable[str]
    document: str | Mapping[str, object]
    more: str | None = None
    status: int = 0


def answering(command: Callable[..., Answer]) -> Callable[..., int]:
    """Give a command the option `--json`, print its answer, and return the exit status.

    Before it runs, what `warn_of_unknown_settings` finds is printed.
    """

    @click.option("--json", "as_json", is_flag=True, help="Answer with one JSON document.")
    @wraps(command)
    def answered(*arguments: object, as_json: bool, **options: object) -> int:
        warn_of_unknown_settings()
        answer = command(*arguments, **options)
        for line in [_json(answer.document)] if as_json else answer.lines:
            print(plain(line))
        if answer.more and not as_json:
            print(answer.more, file=sys.stderr)
        return answer.status

    return answered


def warn_of_unknown_settings() -> None:
    """Print on stderr which variables are no settings though they look like some."""
    for name, near in settings.unknown():
        meant = f": is {near} meant?" if near else ""
        print(plain(f"{name} is no setting of these programs{meant}"), file=sys.stderr)


def example(*lines: str) -> str:
    """Return the lines as an epilog that click prints below a command's help without wrapping it."""
    return "\b\n" + "\n".join(lines)


def fitted(line: str) -> str:
    """Return the line, cut to the terminal's width if stdout is one."""
    line, columns = plain(line), _columns()
    return line if len(line) <= columns else f"{line[: columns - 1]}…"


def labelled(label: str, text: str) -> list[str]:
    """Return the text beside its label, on a terminal as lines of its width that begin below one another."""
    if not sys.stdout.isatty():
        return [label + plain(text)]
    return textwrap.wrap(
        plain(text) if text.strip() else "-",
        max(_columns(), len(label) + _LEAST_COLUMNS),
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_on_hyphens=False,
    )


def _columns() -> int:
    """Return the terminal's width. Without a terminal there is no limit: lines must not be cut in a file."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


def _json(document: str | Mapping[str, object]) -> str:
    return document if isinstance(document, str) else json.dumps(document, default=_simple)


def _simple(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
    return str(value)
