"""RFC 9457 problem details: the one shape in which every HTTP server here tells what went wrong."""

import http
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import falcon

RETRY_AFTER_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One answer. `type` is a reference that clients may compare; about:blank adds nothing to `status`.

    `extensions` are further members of the document (section 3.2). `retry` invites the client to send the
    request again after `RETRY_AFTER_SECONDS`.
    """

    status: int
    detail: str
    title: str = ""
    type: str = "about:blank"
    extensions: Mapping[str, object] = field(default_factory=dict)
    retry: bool = False

    def headers(self) -> dict[str, str]:
        """Return the headers that belong to the body."""
        retry = {"Retry-After": str(RETRY_AFTER_SECONDS)} if self.retry else {}
        return {"Content-Type": "application/problem+json", **retry}

    def body(self) -> bytes:
        """Return the JSON document, in ASCII, so that no text in it can be invalid."""
        document = {
            "type": self.type,
            "title": self.title or http.HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            **self.extensions,
        }
        return json.dumps(document).encode()


def answer(resp: falcon.Response, problem: Problem) -> None:
    """Answer a request of Falcon's with a problem."""
    resp.status = problem.status
    resp.set_headers(problem.headers())
    resp.data = problem.body()


def serialize(_req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError) -> None:
    """Answer with an error of Falcon's own (no such route, wrong method, …). For `set_error_serializer`."""
    detail = error.description or _DETAILS.get(error.status_code, f"{error.title}.")
    answer(resp, Problem(error.status_code, detail))


_DETAILS = {
    404: "Nothing lives at this address.",
    405: "This address does not answer that method; the Allow header has those it does.",
}
