"""`orders sql`: every statement of the queue and of its reports, taken from where it is run."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from types import CodeType, FunctionType, ModuleType

import click

import schema.queue
import schema.reports
from schema.cli.terminal import answer, document, example, fitted, json_option


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement, what it is for, and what it binds: in `sql` these are psql's variables, `:'order_id'`."""

    name: str
    purpose: str
    binds: list[str]
    sql: str


@click.command(
    epilog=example(
        "Cancel an order by the statement itself:",
        "  orders sql cancel > cancel.sql",
        "  orders db psql -v order_id=$ORDER_ID -f cancel.sql",
    )
)
@click.argument("name", required=False)
@json_option
def sql(name: str | None, *, as_json: bool) -> None:
    """Print the statements that the queue runs.

    Without a NAME it lists them all. What it prints runs in psql as it is, once each of its binds has been
    given a value there.
    """
    found = [each for each in statements() if name is None or each.name.lower() == name.lower()]
    if not found:
        raise click.BadParameter(
            f"There is no {name!r}; `orders sql` lists what there is.", param_hint="NAME"
        )
    if name is None:
        width = max(len(each.name) for each in found) + 2
        lines = [fitted(f"{each.name:<{width}}{each.purpose}") for each in found]
        answer(document(data=[asdict(each) for each in found]), lines, as_json=as_json)
    else:
        answer(document(**asdict(found[0])), _listing(found[0]), as_json=as_json)


def _listing(statement: Statement) -> Iterator[str]:
    yield f"-- {statement.purpose}"
    yield f"-- binds: {', '.join(statement.binds) or 'nothing'}"
    yield from f"{statement.sql};".splitlines()


def statements() -> Iterator[Statement]:
    """Yield every constant that a function of `schema.queue` or `schema.reports` runs, module by module."""
    for package in (schema.queue, schema.reports):
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            yield from _of(importlib.import_module(found.name))


def _of(module: ModuleType) -> list[Statement]:
    constants = {name for name, value in vars(module).items() if name.isupper() and _is_statement(value)}
    purposes: dict[str, str] = {}
    for function in vars(module).values():
        if isinstance(function, FunctionType) and function.__module__ == module.__name__:
            words = inspect.getdoc(function) or inspect.getdoc(module) or ""
            for name in sorted(constants & _named(function.__code__)):
                purposes.setdefault(name, words.splitlines()[0])
    return [
        _statement(module, name, purpose=purpose, alone=len(purposes) == 1)
        for name, purpose in purposes.items()
    ]


def _is_statement(value: object) -> bool:
    return isinstance(value, str) and " " in value


def _named(code: CodeType) -> set[str]:
    """Return what a function and the functions within it name of their module."""
    within = [each for each in code.co_consts if isinstance(each, CodeType)]
    return set(code.co_names).union(*map(_named, within))


def _statement(module: ModuleType, constant: str, *, purpose: str, alone: bool) -> Statement:
    topic, title = module.__name__.rpartition(".")[2], constant.strip("_")
    text: str = vars(module)[constant].strip()
    binds = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", text)))
    text = re.sub(r"%\((\w+)\)s", r":'\1'", text)
    while "%s" in text:
        binds.append(f"p{len(binds) + 1}")
        text = text.replace("%s", f":'{binds[-1]}'", 1)
    name = topic if alone or title.lower() == topic else f"{topic}.{title}"
    return Statement(name, purpose, binds, text)
