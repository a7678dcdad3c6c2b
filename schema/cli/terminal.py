"""How commands answer: in lines for people, or in one JSON document for programs."""

import json
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

import click

_LEAST_COLUMNS = 20

json_option = click.option("--json", "as_json", is_flag=True, help="Answer with one JSON document.")


def example(*lines: str) -> str:
    """Return the lines as what click shows, unwrapped, below a command's help."""
    return "\b\n" + "\n".join(lines)


def answer(whole: str, lines: Iterable[str], *, as_json: bool) -> None:
    """Print a JSON document whole, or else the lines."""
    for line in [whole] if as_json else lines:
        print(plain(line))


def document(**facts: object) -> str:
    """Return the facts as a JSON object; times in UTC."""
    return json.dumps(facts, default=_simple)


def facts(named: Mapping[str, str]) -> Iterator[str]:
    """Yield names and values in two columns; on a terminal long values go on below themselves."""
    indent = max(map(len, named)) + 2
    for name, value in named.items():
        first, *rest = _wrapped(plain(value), indent=indent) or ["-"]
        yield f"{name:<{indent}}{first}"
        yield from (f"{'':<{indent}}{line}" for line in rest)


def fitted(line: str) -> str:
    """Return the line, on a terminal cut to its width."""
    line, columns = plain(line), _columns()
    return line if columns is None or len(line) <= columns else f"{line[: columns - 1]}…"


def plain(text: str) -> str:
    """Return the text with what does not print, such as what moves the cursor, as JSON would escape it."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def _wrapped(text: str, *, indent: int) -> list[str]:
    columns = _columns()
    if columns is None:
        return [text] if text else []
    return textwrap.wrap(text, max(columns - indent, _LEAST_COLUMNS), break_on_hyphens=False)


def _columns() -> int | None:
    """Return how wide the terminal is, None when there is none: then nobody wants lines cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _simple(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
    return str(value)
