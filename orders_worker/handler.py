"""The one thing a user replaces: what is done with an order."""

import importlib
import inspect
import sys
from pathlib import Path
from typing import Protocol

from orders_worker.context import Context
from schema.errors import SettingError
from schema.order import Claim
from schema.runtime.signals import StoppedError


class Handler(Protocol):
    """Work on one order, in a thread of its own.

    Returning means completed. `Reject` fails the order for good, `Cancelled` agrees to a cancel that was
    asked for, and any other exception has it tried again later while attempts are left. An order may be
    attempted more than once: do what must not happen twice through `context.transaction()`, or give
    `context.idempotency_key` to whoever does it.
    """

    def __call__(self, order: Claim, context: Context, /) -> object:
        """Return when the order is done; the value is ignored."""


class Reject(Exception):  # noqa: N818 - what the handler says, not what went wrong
    """Raise it with a reason when an order can never succeed: it fails at once, with no retry."""


class Cancelled(Exception):  # noqa: N818 - as above
    """Raise it when `context.cancel_requested` and the work is undone: the order ends cancelled."""


def load(name: str) -> Handler:
    """Import `package.module:callable`, looking in the current folder too; `SettingError` if it can't be."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise SettingError("ORDERS_HANDLER", name, "expected package.module:callable")
    try:
        handler = importlib.import_module(module_name)
        for part in attribute.split("."):
            handler = getattr(handler, part)
    except StoppedError:
        raise
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())
        raise SettingError(
            "ORDERS_HANDLER", name, f"it can't be imported: {type(error).__name__}: {reason}"
        ) from error
    if not callable(handler):
        raise SettingError("ORDERS_HANDLER", name, "expected something callable")
    if not _takes_two(handler):
        raise SettingError("ORDERS_HANDLER", name, "expected a callable that takes (order, context)")
    if inspect.iscoroutinefunction(handler) or inspect.isgeneratorfunction(handler):
        raise SettingError("ORDERS_HANDLER", name, "expected a plain function: calling this one runs nothing")
    return handler


def _takes_two(handler: object) -> bool:
    try:
        inspect.signature(handler).bind(None, None)  # type: ignore[arg-type]  # callable, as was checked
    except TypeError:
        return False
    except ValueError:
        return True  # some built-ins do not tell
    return True
