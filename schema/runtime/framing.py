"""Where a request begins and ends: what two readers could understand differently is refused.

A proxy and this server must not differ about it, or one client's request becomes part of another's (RFC 9112,
section 11.2). Each byte costs the same, however the client cuts or repeats it.
"""

import re
from typing import Any

import waitress.parser  # type: ignore[import-untyped]  # waitress has no type hints
import waitress.utilities  # type: ignore[import-untyped]

MAX_CHUNK_LINE = 4096
"""How many bytes the line with a chunk's size may have: the rest of it are extensions, which are ignored."""

MAX_TRAILER = 8192
"""How many bytes the fields after the last chunk may have, which are ignored too."""

_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t -~\x80-\xff]*)")
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[!$%&'()*+\-.0-9;=A-Z_a-z~]*)(:[0-9]*)?")
_FIRST_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t -~\x80-\xff]*)?\r\n")
_NEXT_CHUNK = re.compile(rb"\r\n" + _FIRST_CHUNK.pattern)
_CRLF = b"\r\n"


class Parser(waitress.parser.HTTPRequestParser):  # type: ignore[misc]  # waitress has no type hints
    """One request, as far as it has arrived. With an `error` it is answered, and its connection is closed."""

    body_rcv: Any

    def received(self, data: bytes) -> int:
        """Take the next bytes of a connection; return how many of them are this request's."""
        if self.header_plus or self.headers_finished:
            return int(super().received(data))
        # Otherwise each empty line in front of a request is one of its own.
        begun = data.lstrip(_CRLF)
        return len(data) - len(begun) + (int(super().received(begun)) if begun else 0)

    def parse_header(self, header_plus: bytes) -> None:
        """Read the head; raise `ParsingError` for one that isn't exactly HTTP/1.0 or HTTP/1.1."""
        first_line, *lines = header_plus.rstrip(_CRLF).split(_CRLF)
        fields = [_field(line) for line in lines]
        _check(first_line, fields)
        # Stripped: waitress takes time by the square of the blanks in front of a value.
        head = [first_line, *(name + b":" + value for name, value in fields)]
        try:
            super().parse_header(_CRLF.join([*head, b"", b""]))
        except ValueError as error:  # a length of 5,000 digits, http://[
            raise waitress.parser.ParsingError("a number or the address in its head is wrong") from error
        takes_body = self.body_rcv is None or self.adj.takes_body(self.command, "/" + self.path.lstrip("/"))
        if not takes_body:
            self.body_rcv, self.content_length = None, 0
            self.headers["CONNECTION"] = "close"  # what follows is the body
            if takes_body is False:
                self.error = waitress.utilities.RequestEntityTooLarge("there this method takes no body")
        elif self.chunked:
            self.body_rcv = Chunks(self.body_rcv.getbuf())


def _field(line: bytes) -> tuple[bytes, bytes]:
    found = _FIELD.fullmatch(line)
    if found is None:  # a continuation of the line before is none either
        raise waitress.parser.ParsingError("a line of its head is no header field")
    name, value = found.groups()
    return name, value.strip(b" \t")


def _check(first_line: bytes, fields: list[tuple[bytes, bytes]]) -> None:
    """Raise `ParsingError` for a version, `Host` or `Transfer-Encoding` that RFC 9112 forbids (3.2, 6.1)."""
    hosts = [value for name, value in fields if name.lower() == b"host"]
    codings = [value for name, value in fields if name.lower() == b"transfer-encoding"]
    if not first_line.endswith((b" HTTP/1.1", b" HTTP/1.0")):
        raise waitress.parser.ParsingError("its first line is not that of an HTTP/1.1 or HTTP/1.0 request")
    is_1_0 = first_line.endswith(b"1.0")
    if len(hosts) > 1 or not (hosts or is_1_0) or not all(map(_HOST.fullmatch, hosts)):
        raise waitress.parser.ParsingError("it needs one Host, with a name or an address")
    if not codings:
        return
    each = [coding.strip(b" \t") for coding in codings[0].lower().split(b",")]
    if is_1_0 or len(codings) > 1 or b"" in each or each.count(b"chunked") > 1:
        raise waitress.parser.ParsingError("it may have one Transfer-Encoding, in HTTP/1.1")
    if any(name.lower() == b"content-length" for name, _ in fields):
        raise waitress.parser.ParsingError("it has both a Transfer-Encoding and a Content-Length")


class Chunks:
    """Receives a chunked body (RFC 9112, section 7.1) into a buffer of waitress's."""

    def __init__(self, buffer: Any) -> None:
        self.completed = False
        self.error: Any = None
        self._buffer = buffer
        self._held = b""
        self._left = 0
        self._line = _FIRST_CHUNK
        self._last = False

    def __len__(self) -> int:
        return len(self._buffer)

    def getbuf(self) -> Any:
        """Return the buffer."""
        return self._buffer

    def getfile(self) -> Any:
        """Return the body as a file."""
        return self._buffer.getfile()

    def received(self, data: bytes) -> int:
        """Take the next bytes of a connection; return how many of them are the body's."""
        text = self._held + data
        at = 0 if self._last else self._read_chunks(text)
        if self._last:
            at = self._read_trailer(text, at)
        consumed = (at if self.completed else len(text)) - len(self._held)
        self._held = text[at:]
        return consumed

    def _read_chunks(self, text: bytes) -> int:
        """Read what is whole, up to the end of the last chunk's line; return where the rest begins."""
        at = 0
        pieces: list[bytes] = []
        while not self._last:
            pieces.append(text[at : at + self._left])
            at += len(pieces[-1])
            self._left -= len(pieces[-1])
            line = None if self._left else self._line.match(text, at)
            if line is None or line.end() - at > MAX_CHUNK_LINE:
                self._judge(text[at : at + MAX_CHUNK_LINE + 1])
                break
            self._line = _NEXT_CHUNK
            self._left = int(line[1], 16)
            self._last = not self._left
            at = line.end()
        self._buffer.append(b"".join(pieces))
        return at - len(_CRLF) if self._last else at

    def _judge(self, rest: bytes) -> None:
        """Refuse what can't become a chunk's line; else it has not arrived yet."""
        after_chunk = self._line is _NEXT_CHUNK
        if after_chunk and not _CRLF.startswith(rest[: len(_CRLF)]):
            self._refuse("a chunk does not end where its size says")
        elif b"\n" in rest[len(_CRLF) * after_chunk :] or len(rest) > MAX_CHUNK_LINE:
            self._refuse("the line with a chunk's size is wrong or too long")

    def _read_trailer(self, text: bytes, at: int) -> int:
        """Read the fields after the last chunk, from the end of its line on; return where the rest begins."""
        end = text.find(_CRLF * 2, at)
        if (end if end >= 0 else len(text)) - at > MAX_TRAILER:
            self._refuse("the fields after its last chunk are too long")
        elif end >= 0:
            fields = text[at:end].split(_CRLF)[1:]
            if not all(map(_FIELD.fullmatch, fields)):
                self._refuse("a line after its last chunk is no header field")
            self.completed = True
            at = end + len(_CRLF * 2)
        return at

    def _refuse(self, why: str) -> None:
        self.error = waitress.utilities.BadRequest(why)
