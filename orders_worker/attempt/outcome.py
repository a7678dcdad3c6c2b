"""How an attempt ends, judged by what its handler returned or raised."""

import concurrent.futures
from collections.abc import AsyncGenerator, Generator
from typing import NamedTuple

from orders_worker.handler import Cancelled, Reject, Retry
from schema.runtime import logs
from schema.states import Outcome

STORED_ERROR_LENGTH = 2000

_UNFINISHED = (Generator, AsyncGenerator, concurrent.futures.Future)


class Failure(NamedTuple):
    """What becomes of an attempt whose handler raised. `retry_seconds` is the pause that it asked for."""

    outcome: Outcome
    error: str
    retry_seconds: float | None = None


def refuse_unfinished(result: object) -> None:
    """Raise a `TypeError` for a handler's result whose work has not been done."""
    if result is not None and isinstance(result, _UNFINISHED):
        raise TypeError(f"the handler returned a {type(result).__name__}, which is not waited for")


def failure(error: BaseException) -> Failure:
    """Return what a handler means by what it raises."""
    if isinstance(error, Reject):
        return Failure(Outcome.REJECTED, error_text(error, named=False))
    if isinstance(error, Cancelled):
        return Failure(Outcome.CANCELLED, error_text(error, named=False))
    if isinstance(error, Retry):
        return Failure(Outcome.RAISED, error_text(error, named=False), error.after)
    return Failure(Outcome.RAISED, error_text(error))


def error_text(error: BaseException, *, named: bool = True) -> str:
    """Return an error as the database can keep it: with its class if `named`, no NUL, 2,000 characters."""
    message = logs.message(error)
    words = f"{type(error).__name__}: {message}" if named and message else message or type(error).__name__
    storable = words.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
    return storable[:STORED_ERROR_LENGTH]
