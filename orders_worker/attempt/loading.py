"""The handler: what `ORDERS_HANDLER` names, if it can be one, or the simulated one."""

import functools
import importlib
import inspect
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from orders_worker.handler import Handler
from schema.errors import SettingError
from schema.runtime import logs
from schema.runtime.signals import StoppedError


def load(name: str) -> Handler:
    """Import `package.module:callable`, looking in the current folder first.

    Raises `SettingError` if it can't be.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise SettingError("ORDERS_HANDLER", name, "expected package.module:callable")
    try:
        with _current_folder_first():
            handler = importlib.import_module(module_name)
        for part in attribute.split("."):
            handler = getattr(handler, part)
    except StoppedError:
        raise
    except (Exception, SystemExit) as error:
        reason = " ".join(logs.message(error).split())
        raise SettingError(
            "ORDERS_HANDLER", name, f"it can't be imported: {type(error).__name__}: {reason}"
        ) from error
    if not callable(handler):
        raise SettingError("ORDERS_HANDLER", name, "expected something callable")
    bare = _bare(handler)
    if isinstance(bare, type):
        raise SettingError(
            "ORDERS_HANDLER", name, "expected a function: calling a class only makes an object"
        )
    if not _takes_two(handler):
        raise SettingError("ORDERS_HANDLER", name, "expected a callable that takes (order, context)")
    if _generates(bare):
        raise SettingError("ORDERS_HANDLER", name, "expected no generator: calling this one runs nothing")
    return handler


@contextmanager
def _current_folder_first() -> Iterator[None]:
    """Look for modules in the current folder first, and last from then on.

    The handler may import from it while it runs. What we and the libraries import meanwhile is elsewhere.
    """
    if (here := str(Path.cwd())) in sys.path:
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
        sys.path.append(here)


def simulated(seconds: float) -> Handler:
    """Return the handler that runs when none is named: it takes so long for each order, and does nothing."""
    return lambda *_: time.sleep(seconds)


def _bare(handler: Callable[..., object]) -> Callable[..., object]:
    """Return what a `functools.partial` calls."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    return handler


def _generates(handler: Callable[..., object]) -> bool:
    functions = (handler, type(handler).__call__)
    return any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in functions)


def _takes_two(handler: object) -> bool:
    try:
        inspect.signature(handler).bind(None, None)  # type: ignore[arg-type]  # callable, as was checked
    except TypeError:
        return False
    except ValueError:
        return True  # some built-ins do not tell
    return True
