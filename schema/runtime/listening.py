"""Listen on an address of this machine, and name the setting to change when that fails."""

import errno
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from schema.errors import SettingError
from schema.runtime import inherited

_ENOUGH_FILES = 10_240
"""What is asked for where there is no hard limit; macOS grants no more."""


def bind(host: str, port: int, *, port_setting: str) -> socket.socket:
    """Bind a socket to the address; raise a `SettingError` that names the setting to change when it fails."""
    with _naming_the_setting(host, port, port_setting=port_setting):
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # A name such as localhost has two addresses. Clients try both, and IPv4 is always there.
        family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
        with ExitStack() as on_error:
            listener = on_error.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            on_error.pop_all()
        inherited.withhold(listener)
        return listener


def listen(listener: socket.socket, *, port_setting: str) -> None:
    """Let clients connect; raise a `SettingError` if another process has begun to listen on the port."""
    host, port = listener.getsockname()[:2]
    with _naming_the_setting(host, port, port_setting=port_setting):
        listener.listen()


@contextmanager
def _naming_the_setting(host: str, port: int, *, port_setting: str) -> Iterator[None]:
    """Turn the system's error for an address into a `SettingError`."""
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


def raise_open_files() -> int:
    """Raise the number of files that this process may open as far as it is allowed to; return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH_FILES if hard == resource.RLIM_INFINITY else hard
    with suppress(ValueError, OSError):  # macOS has a limit of its own below the one it tells
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def url(host: str, port: int) -> str:
    """Return the URL at which clients reach a server on this address."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
