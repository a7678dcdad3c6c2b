"""Listen on an address of this machine: what the API's server and a worker's probes have in common."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import waitress.parser  # type: ignore[import-untyped]  # waitress has no type hints

from schema.errors import SettingError


def bind(host: str, port: int, *, port_setting: str) -> socket.socket:
    """Take the address; raise a `SettingError` that names the setting to change if it can't be had."""
    with _naming_the_setting(host, port, port_setting=port_setting):
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # A name such as localhost means two addresses; clients try both, IPv4 is always there.
        family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
        with ExitStack() as on_error:
            listener = on_error.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            on_error.pop_all()
        return listener


def listen(listener: socket.socket, *, port_setting: str) -> None:
    """Let clients connect; raise a `SettingError` if another that was bound to the port was faster."""
    host, port = listener.getsockname()[:2]
    with _naming_the_setting(host, port, port_setting=port_setting):
        listener.listen()


@contextmanager
def _naming_the_setting(host: str, port: int, *, port_setting: str) -> Iterator[None]:
    """Turn what the system says against an address into a `SettingError`."""
    try:
        yield
    except (socket.gaierror, UnicodeError):
        raise SettingError("ORDERS_HOST", host, "expected a name or address of this machine") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SettingError(port_setting, str(port), f"the port is in use on {host}") from None
        if error.errno == errno.EACCES:
            raise SettingError(port_setting, str(port), "not allowed, expected 1024 or above") from None
        raise SettingError("ORDERS_HOST", host, f"can't listen there ({error.strerror})") from None


def url(host: str, port: int) -> str:
    """Return where a client finds what listens there."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Parser(waitress.parser.HTTPRequestParser):  # type: ignore[misc]  # as above
    """A request's head; what Python can't convert in it is bad syntax as well, not an error of ours."""

    def parse_header(self, header_plus: bytes) -> None:
        """Read the head; raise the `ParsingError` that waitress answers with 400."""
        try:
            super().parse_header(header_plus)
        except ValueError as error:  # a length of 5,000 digits, http://[
            raise waitress.parser.ParsingError("a number or the address in its head is wrong") from error
