"""What a request carries: its id, and for some routes a JSON body and an idempotency key."""

import re
import uuid

import falcon

from schema.runtime import logs

REQUEST_ID = "X-Request-ID"
IDEMPOTENCY_KEY = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
MAX_BODY_BYTES = 1024 * 1024
MAX_BATCH_BYTES = 8 * 1024 * 1024

_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
# No comma: a server joins the values of a repeated header with commas.
_KEY = re.compile(r"[!-+\--~]{1,255}")
_JSON_UTF_8 = re.compile(r'application/json\s*(;\s*charset=("?)utf-8\2\s*)?', re.IGNORECASE)


def new_id() -> str:
    """Return an id for a request that has none."""
    return uuid.uuid4().hex


class RequestId:
    """Falcon middleware: puts the client's `X-Request-ID`, or a new one, into the answer and the log."""

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Use the client's id if it is up to 128 harmless characters. Errors have the header too."""
        given = req.get_header(REQUEST_ID, default="")
        request_id = given if _SANE_ID.fullmatch(given) else new_id()
        resp.set_header(REQUEST_ID, request_id)
        logs.bind(request_id=request_id)


def json_body(req: falcon.Request, *, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Return the body as bytes; raise 413 past `max_bytes`, 415 if its headers don't say JSON in UTF-8.

    The HTTP server has read the whole body by now, so the client reads the answer.
    """
    if not _JSON_UTF_8.fullmatch(req.content_type or ""):
        raise falcon.HTTPUnsupportedMediaType(
            description="Expected Content-Type: application/json (charset utf-8 or none)."
        )
    if req.get_header("Content-Encoding", default="identity") != "identity":
        raise falcon.HTTPUnsupportedMediaType(description="Expected a body without Content-Encoding.")
    body: bytes = req.bounded_stream.read(max_bytes + 1)
    if len(body) > max_bytes:
        raise falcon.HTTPContentTooLarge(description=f"Expected a body of at most {max_bytes:,} bytes.")
    return body


def idempotency_key(req: falcon.Request) -> str | None:
    """Return the client's key for this submission, None if it sent none; raise 400 for a bad one.

    Every character counts, also the quotes that draft-ietf-httpapi-idempotency-key-header puts around it.
    """
    key: str | None = req.get_header(IDEMPOTENCY_KEY)
    if key is not None and not _KEY.fullmatch(key):
        raise falcon.HTTPInvalidHeader(
            "Expected it once, with 1 to 255 visible ASCII characters, no blank and no comma.",
            IDEMPOTENCY_KEY,
        )
    return key
