"""The one mapping of errors to answers: each error of ours becomes a problem of RFC 9457."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import falcon

from orders_api.database.placing import OrderOutcomeUnknownError
from orders_api.requests import REQUEST_ID, new_id
from schema.errors import (
    DatabaseUnavailableError,
    KeyReusedError,
    OrderNotFoundError,
    OrderNotTakenError,
    OrdersError,
    OutcomeUnknownError,
    StartError,
)
from schema.intake.parse import InvalidOrderError, NotJsonError
from schema.runtime import logs, problem
from schema.runtime.problem import Problem

_log = logs.Log(__name__)


class NoOrderIdError(OrdersError):
    """The order's id in the address is not a UUID."""

    def __init__(self) -> None:
        super().__init__("the order id in this address is not a UUID, so there is no such order")


_UNAVAILABLE = Problem(
    503,
    "The database can't be reached or is too slow, or every connection to it is taken. Nothing was changed.",
    title="Temporarily unavailable",
    type="/problems/unavailable",
    retry=True,
)
_UNEXPECTED = Problem(
    500,
    "Something went wrong that is not your fault. The log has it under the X-Request-ID of this answer.",
)
_NOT_TAKEN = Problem(
    500,
    "The database did not take the order, and that is not your fault: a trigger or rule there dropped it. "
    "No order and no idempotency key was stored.",
    title="Order not taken",
    type="/problems/order-not-taken",
)


def _invalid_order(error: InvalidOrderError) -> Problem:
    return Problem(
        400,
        str(error),
        title="Invalid order",
        type="/problems/invalid-order",
        extensions={"errors": [asdict(each) for each in error.problems]},
    )


def _no_such_order(error: OrdersError) -> Problem:
    return Problem(404, str(error), title="No such order", type="/problems/order-not-found")


def _outcome_unknown(error: OrderOutcomeUnknownError) -> Problem:
    advice = (
        "sending it again with the same Idempotency-Key is safe."
        if error.repeatable
        else "sending it again may place it twice. With an Idempotency-Key it could not."
    )
    return Problem(
        503,
        "The connection to the database was lost while the order was being stored. It may have been placed "
        f"or not; {advice}",
        title="Outcome unknown",
        type="/problems/outcome-unknown",
        # Without a key it would invite a second order.
        retry=error.repeatable,
    )


_ANSWERS: dict[type[OrdersError], Callable[[Any], Problem]] = {
    NotJsonError: lambda error: Problem(400, str(error), title="Not JSON", type="/problems/not-json"),
    InvalidOrderError: _invalid_order,
    NoOrderIdError: _no_such_order,
    OrderNotFoundError: _no_such_order,
    DatabaseUnavailableError: lambda _: _UNAVAILABLE,
    OutcomeUnknownError: lambda _: _UNAVAILABLE,
    OrderOutcomeUnknownError: _outcome_unknown,
    OrderNotTakenError: lambda _: _NOT_TAKEN,
    KeyReusedError: lambda error: Problem(
        422, str(error), title="Idempotency key reused", type="/problems/idempotency-key-reused"
    ),
    StartError: lambda error: Problem(
        503, str(error), title="Not ready", type="/problems/not-ready", retry=True
    ),
}


def install(app: falcon.App[falcon.Request, falcon.Response]) -> None:
    """Make `app` answer every error with a problem: ours, Falcon's own, and unexpected ones."""
    for error_type in _ANSWERS:
        app.add_error_handler(error_type, _answer_known)
    app.add_error_handler(Exception, _answer_unexpected)
    app.set_error_serializer(problem.serialize)


def render_error(status: int, reason: str) -> tuple[dict[str, str], bytes]:
    """Return headers and body for a request that the server can't read: a request id, as every answer has."""
    headers, body = problem.render_error(status, reason)
    return {**headers, REQUEST_ID: new_id()}, body


def _answer_known(
    _req: falcon.Request, resp: falcon.Response, error: OrdersError, _params: dict[str, Any]
) -> None:
    kind = next(kind for kind in type(error).__mro__ if kind in _ANSWERS)
    problem.answer(resp, _ANSWERS[kind](error))


def _answer_unexpected(
    req: falcon.Request, resp: falcon.Response, error: Exception, _params: dict[str, Any]
) -> None:
    _log.error("request_failed", error=error, method=req.method, path=req.path)
    problem.answer(resp, _UNEXPECTED)
