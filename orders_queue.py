"""The door of every program: it tells another `schema` from ours before anything of it is used.

PyPI has a library of that name, and many a project a module. Installed over ours, found before it or
uninstalled from under it, such a one breaks programs at some later import.
"""

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path

_RUN_BY_M = sys.argv[:1] == ["-m"]
"""Whether Python looks for the module that it is to run: https://docs.python.org/3/library/sys.html#sys.argv."""


class ForeignSchemaError(ImportError):
    """Python finds another `schema` than ours; the message names it and the remedy."""


def check() -> None:
    """Raise `ForeignSchemaError` unless `schema` is ours; under `python -m` exit with its message.

    Takes the current folder away, which `python -m` puts first where Python looks for modules: a `falcon.py`
    there is none of ours.
    """
    if _RUN_BY_M and sys.path[:1] == [str(Path.cwd())] and Path.cwd() != Path(__file__).parent:
        del sys.path[0]
    try:
        ours = importlib.import_module("schema").DISTRIBUTION == "orders-queue"
    except Exception:  # noqa: BLE001 - it may be anything
        ours = False
    if ours:
        return
    if _RUN_BY_M:
        sys.exit(_remedy())
    raise ForeignSchemaError(_remedy())


def orders() -> int:
    """Run the console script `orders`; return its exit status."""
    return _run("schema.cli.main")


def orders_api() -> int:
    """Run the console script `orders-api`; return its exit status."""
    return _run("orders_api.__main__")


def orders_worker() -> int:
    """Run the console script `orders-worker`; return its exit status."""
    return _run("orders_worker.__main__")


def _run(module: str) -> int:
    try:
        check()
    except ForeignSchemaError as error:
        sys.exit(str(error))
    status: int = importlib.import_module(module).main()
    return status


def _remedy() -> str:
    spec = find_spec("schema")
    places = [spec.origin, *(spec.submodule_search_locations or [])] if spec else []
    return (
        f"the Python package `schema` ({next(filter(None, places), 'missing')}) is not that of orders-queue: "
        "uninstall or rename it, then run `pip install --force-reinstall --no-deps` for orders-queue; "
        "if you need both, give each a virtual environment"
    )
