"""The one mapping of errors to answers: each error of ours becomes a problem of RFC 9457."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import falcon

from orders_api.database.placing import OrderOutcomeUnknownError
from orders_api.database.readiness import NotReadyError
from schema.errors import (
    DatabaseUnavailableError,
    KeyReusedError,
    OrderNotFoundError,
    OrderNotTakenError,
    OrdersError,
    OutcomeUnknownError,
    StartError,
)
from schema.intake.fields import InvalidOrderError
from schema.intake.json_text import NotJsonError
from schema.runtime import logs, problem
from schema.runtime.problem import Problem

_log = logs.Log(__name__)


class NoOrderIdError(OrdersError):
    """The order's id in the address is not a UUID."""

    def __init__(self) -> None:
        super().__init__("the order id in this address is not a UUID, so there is no such order")


def _no_such_order(error: OrdersError) -> Problem:
    return Problem(404, str(error), title="No such order", type="/problems/order-not-found")


def _unavailable(_: OrdersError) -> Problem:
    return Problem(
        503,
        "The database can't be reached or is too slow, or every connection to it is taken. Nothing was"
        " changed.",
        title="Temporarily unavailable",
        type="/problems/unavailable",
        retry=True,
    )


def _not_ready(error: OrdersError) -> Problem:
    return Problem(503, str(error), title="Not ready", type="/problems/not-ready", retry=True)


_ANSWERS: dict[type[OrdersError], Callable[[Any], Problem]] = {
    NotJsonError: lambda error: Problem(400, str(error), title="Not JSON", type="/problems/not-json"),
    InvalidOrderError: lambda error: Problem(
        400,
        str(error),
        title="Invalid order",
        type="/problems/invalid-order",
        extensions={"errors": [asdict(each) for each in error.problems]},
    ),
    NoOrderIdError: _no_such_order,
    OrderNotFoundError: _no_such_order,
    DatabaseUnavailableError: _unavailable,
    OutcomeUnknownError: _unavailable,
    OrderOutcomeUnknownError: lambda error: Problem(
        503, str(error), title="Outcome unknown", type="/problems/outcome-unknown", retry=error.repeatable
    ),
    OrderNotTakenError: lambda _: Problem(
        500,
        "The database did not take the order, and that is not your fault: a trigger or rule there dropped it."
        " No order and no idempotency key was stored.",
        title="Order not taken",
        type="/problems/order-not-taken",
    ),
    KeyReusedError: lambda error: Problem(
        422, str(error), title="Idempotency key reused", type="/problems/idempotency-key-reused"
    ),
    NotReadyError: _not_ready,
    StartError: _not_ready,
}


def install(app: falcon.App[falcon.Request, falcon.Response]) -> None:
    """Make `app` answer every error with a problem: ours, Falcon's own, and unexpected ones."""
    for error_type in _ANSWERS:
        app.add_error_handler(error_type, _answer_known)
    app.add_error_handler(Exception, _answer_unexpected)
    app.set_error_serializer(problem.serialize)


def _answer_known(
    _req: falcon.Request, resp: falcon.Response, error: OrdersError, _params: dict[str, Any]
) -> None:
    kind = next(kind for kind in type(error).__mro__ if kind in _ANSWERS)
    problem.answer(resp, _ANSWERS[kind](error))


def _answer_unexpected(
    req: falcon.Request, resp: falcon.Response, error: Exception, _params: dict[str, Any]
) -> None:
    _log.error("request_failed", error=error, method=req.method, path=req.path)
    detail = (
        "Something went wrong that is not your fault. The log has it under the X-Request-ID of this answer."
    )
    problem.answer(resp, Problem(500, detail))
