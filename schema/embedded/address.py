"""Where the server listens: a folder that is its user's alone, with a path short enough for a socket."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from schema.embedded import processes
from schema.embedded.places import Place
from schema.errors import StartError

PORT = 5432
SOCKET = f".s.PGSQL.{PORT}"
DATABASE = ROLE = "orders"

# A socket's path has 107 bytes at most on Linux and 103 on macOS.
_LONGEST = 103 - len(f"/{SOCKET}")


def folder(place: Place) -> Path:
    """Return the socket's folder: in the place if its path is short, else in /tmp.

    In /tmp it is named after the data folder's inode, so that it can't be a deleted folder's. Nothing of the
    environment counts ($TMPDIR, $XDG_RUNTIME_DIR): every process must find the same.
    """
    near = place.folder / "socket"
    # libpq takes a comma for the end of a host.
    if len(os.fsencode(near)) <= _LONGEST and b"," not in os.fsencode(near):
        return near
    return Path(f"/tmp/{processes.cluster_name(place.data)}")  # noqa: S108 - trusted only after `is_ready`


def is_ready(place: Place) -> bool:
    """Tell whether the folder is there; raise `StartError` unless it is a folder of the user's alone."""
    path = folder(place)
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    private = stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o700
    if not private or status.st_uid != place.account.uid:
        raise StartError(f"{path} must be a folder of {place.account.name}'s with mode 0700: remove it")
    return True


def make(place: Place) -> None:
    """Make the folder if it isn't there, and check it as `is_ready` does."""
    if not is_ready(place):
        place.account.run(["mkdir", "-m", "0700", folder(place)])
        is_ready(place)


def url(place: Place, *, database: str = DATABASE) -> str:
    """Return the libpq URL, which holds no password: the kernel says who connects."""
    host = quote(os.fspath(folder(place)), safe="")
    return f"postgresql://{ROLE}@/{database}?host={host}&port={PORT}"


def settings(place: Place) -> dict[str, str]:
    """Return the server's settings that make it listen there, to the users whom `allow` names."""
    # A list of folders, in which a double quote is doubled.
    quoted = '"' + os.fspath(folder(place)).replace('"', '""') + '"'
    return {
        "listen_addresses": "",
        "unix_socket_directories": quoted,
        "unix_socket_permissions": "0700",
        "port": str(PORT),
        "hba_file": os.fspath(place.folder / "pg_hba.conf"),
        "ident_file": os.fspath(place.folder / "pg_ident.conf"),
    }


def switches(settings: Mapping[str, str]) -> list[str]:
    """Return the settings as `postgres` takes them."""
    return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]


def allow(place: Place) -> None:
    """Write the rules that admit the server's user and root, as any role, and nobody else.

    PostgreSQL 15 has no word for any role there: it admits them as the role `orders`.
    https://www.postgresql.org/docs/18/auth-username-maps.html
    """
    names = dict.fromkeys((place.account.name, "root"))
    ident = "".join(f'owner "{name}" {role}\n' for name in names for role in ("all", ROLE))
    for name, content in {"pg_hba.conf": "local all all peer map=owner\n", "pg_ident.conf": ident}.items():
        script = 'printf %s "$1" > "$2"'
        place.account.run(["/bin/sh", "-c", script, "sh", content, place.folder / name])
