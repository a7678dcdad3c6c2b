"""Every error as the API answers it: RFC 9457 problem details. The one mapping of errors to answers."""

import http
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import falcon

from orders_api.database.placing import OutcomeUnknownError
from orders_api.database.pool import ConnectionLostError
from schema.errors import (
    DatabaseUnavailableError,
    KeyReusedError,
    OrderNotFoundError,
    OrderNotTakenError,
    OrdersError,
    StartError,
)
from schema.intake.parse import FieldProblem, InvalidOrderError, NotJsonError
from schema.runtime import logs

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 1

_log = logs.Log(__name__)


class NoOrderIdError(OrdersError):
    """What stands for an order's id in the address can't be one."""

    def __init__(self) -> None:
        super().__init__("the order id in this address is not a UUID, so there is no such order")


@dataclass(frozen=True, slots=True)
class Problem:
    """One answer. `type` is a reference that clients may compare; about:blank adds nothing to `status`."""

    status: int
    detail: str
    title: str = ""
    type: str = "about:blank"
    errors: Sequence[FieldProblem] = ()
    retry: bool = False

    def body(self) -> bytes:
        """Return the JSON document, in ASCII, so that no text in it can be invalid."""
        document: dict[str, Any] = {
            "type": self.type,
            "title": self.title or http.HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            document["errors"] = [asdict(error) for error in self.errors]
        return json.dumps(document).encode()


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


def _no_such_order(error: OrdersError) -> Problem:
    return Problem(404, str(error), title="No such order", type="/problems/order-not-found")


def _outcome_unknown(error: OutcomeUnknownError) -> Problem:
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
    InvalidOrderError: lambda error: Problem(
        400, str(error), title="Invalid order", type="/problems/invalid-order", errors=error.problems
    ),
    NoOrderIdError: _no_such_order,
    OrderNotFoundError: _no_such_order,
    DatabaseUnavailableError: lambda _: _UNAVAILABLE,
    ConnectionLostError: lambda _: _UNAVAILABLE,
    OutcomeUnknownError: _outcome_unknown,
    OrderNotTakenError: lambda _: _NOT_TAKEN,
    KeyReusedError: lambda error: Problem(
        422, str(error), title="Idempotency key reused", type="/problems/idempotency-key-reused"
    ),
    StartError: lambda error: Problem(
        503, str(error), title="Not ready", type="/problems/not-ready", retry=True
    ),
}


def install(app: falcon.App[falcon.Request, falcon.Response]) -> None:
    """Have `app` answer every error as a problem: ours, Falcon's own, and those nobody thought of."""
    for error_type in _ANSWERS:
        app.add_error_handler(error_type, _answer_known)
    app.add_error_handler(Exception, _answer_unexpected)
    app.set_error_serializer(_serialize)


def _answer_known(
    _req: falcon.Request, resp: falcon.Response, error: OrdersError, _params: dict[str, Any]
) -> None:
    kind = next(kind for kind in type(error).__mro__ if kind in _ANSWERS)
    _answer(resp, _ANSWERS[kind](error))


def _answer_unexpected(
    req: falcon.Request, resp: falcon.Response, error: Exception, _params: dict[str, Any]
) -> None:
    _log.error("request_failed", error=error, method=req.method, path=req.path)
    _answer(resp, _UNEXPECTED)


def _serialize(_req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError) -> None:
    """Give Falcon's own errors (no such route, wrong method, …) the same shape."""
    detail = error.description or _DETAILS.get(error.status_code, f"{error.title}.")
    _answer(resp, Problem(error.status_code, detail))


_DETAILS = {
    404: "Nothing lives at this address.",
    405: "This address does not answer that method; the Allow header has those it does.",
}


def _answer(resp: falcon.Response, problem: Problem) -> None:
    resp.status = problem.status
    resp.content_type = MEDIA_TYPE
    resp.data = problem.body()
    if problem.retry:
        resp.set_header("Retry-After", str(RETRY_AFTER_SECONDS))
