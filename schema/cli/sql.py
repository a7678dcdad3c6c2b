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
from schema.cli.terminal import Answer, answering, example, fitted


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
@answering
def sql(name: str | None) -> Answer:
    """Print the statements that the queue runs.

    Without a NAME it lists them all. What it prints runs in psql as it is, once each of its binds has been
    given a value there.
    """
    found = [each for each in statements() if name is None or each.name.lower() == name.lower()]
    if not found:
        message = f"There is no {name!r}; `orders sql` lists what there is."
        raise click.BadParameter(message, param_hint="NAME")
    if name is not None:
        binds = ", ".join(found[0].binds) or "nothing"
        comments = [f"-- {found[0].purpose}", f"-- binds: {binds}"]
        return Answer([*comments, *f"{found[0].sql};".splitlines()], asdict(found[0]))
    width = max(len(each.name) for each in found) + 2
    lines = [fitted(f"{each.name:<{width}}{each.purpose}") for each in found]
    return Answer(lines, {"data": [asdict(each) for each in found]})


def statements() -> Iterator[Statement]:
    """Yield every constant that a function of `schema.queue` or `schema.reports` runs, module by module."""
    for package in (schema.queue, schema.reports):
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            yield from _of(importlib.import_module(found.name))


def _of(module: ModuleType) -> Iterator[Statement]:
    texts = {
        name: value
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str) and " " in value
    }
    purposes: dict[str, str] = {}
    for function in vars(module).values():
        if isinstance(function, FunctionType) and function.__module__ == module.__name__:
            purpose = (inspect.getdoc(function) or inspect.getdoc(module) or "").partition("\n")[0]
            for constant in sorted(texts.keys() & _named(function.__code__)):
                purposes.setdefault(constant, purpose)
    topic = module.__name__.rpartition(".")[2]
    for constant, purpose in purposes.items():
        title = constant.strip("_")
        name = topic if len(purposes) == 1 or title.lower() == topic else f"{topic}.{title}"
        yield _statement(name, purpose, texts[constant].strip())


def _named(code: CodeType) -> set[str]:
    """Return what a function, and the functions within it, name of their module."""
    nested = [each for each in code.co_consts if isinstance(each, CodeType)]
    return set(code.co_names).union(*map(_named, nested))


def _statement(name: str, purpose: str, text: str) -> Statement:
    """Return the statement with psycopg's binds, `%(name)s` or `%s`, as psql's variables."""
    binds: list[str] = []

    def variable(bind: re.Match[str]) -> str:
        found = bind[1] or f"p{len(binds) + 1}"
        if found not in binds:
            binds.append(found)
        return f":'{found}'"

    return Statement(name, purpose, binds, re.sub(r"%(?:\((\w+)\))?s", variable, text))
