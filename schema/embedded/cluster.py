"""Make the data folder, whole or not at all, and refuse one that this PostgreSQL can't read."""

import os
import secrets
import shlex
from contextlib import suppress
from pathlib import Path

from schema.embedded import address, binaries
from schema.embedded.places import Place
from schema.errors import StartError

# UTF-8 and code point order by PostgreSQL's own provider: no locale of the machine is needed or used.
_OPTIONS = (
    f"--username={address.ROLE}",
    "--auth=peer",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--no-instructions",
    "--set=timezone=UTC",
    "--set=log_timezone=UTC",
)


def make(place: Place, programs: Path) -> None:
    """Make the data folder if there is none. Call it under the lock, while no server runs.

    Raises `StartError` when it can't be made. A crash leaves a folder `new-…`, which the next call removes.
    """
    for left in place.folder.glob("new-*"):
        # An initdb that outlived its caller may still be writing there.
        with suppress(StartError):
            place.account.run(["rm", "-rf", left])
    if not place.data.exists():
        fresh = place.folder / f"new-{secrets.token_hex(4)}"
        place.account.run([programs / "initdb", f"--pgdata={fresh}", *_OPTIONS])
        put(fresh, place.data)


def put(source: Path, target: Path) -> None:
    """Rename within a folder, and return when the new name would survive a power failure."""
    source.rename(target)
    parent = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def check(place: Place) -> None:
    """Raise `StartError`, which names the way out, when the data folder is another major version's."""
    data = place.data
    try:
        found = (data / "PG_VERSION").read_text().strip()
    except OSError as error:
        raise StartError(f"{data} is no PostgreSQL data folder: its PG_VERSION: {error.strerror}") from error
    if found != str(binaries.MAJOR):
        raise StartError(
            f"{data} is PostgreSQL {found}'s, and this is {binaries.MAJOR}: dump it, move it aside, and"
            f" restore the dump into a new one: {_way_out(place, found)}"
        )


def _way_out(place: Place, found: str) -> str:
    """Return the shell commands, in one line, that carry over the rows of another version's folder."""
    old = Path(f"/path/to/postgresql-{found}/bin")
    if found == "16":
        old = binaries.reachable(binaries.find(16), place.account, store=place.store)
    become = ["runuser", "-u", place.account.name, "--"] if place.account.switch else []
    pg_ctl = [*become, os.fspath(old / "pg_ctl"), "-D", os.fspath(place.data), "-w"]
    listen = shlex.join(address.switches(address.settings(place)))
    steps = (
        [*pg_ctl, "-l", os.fspath(place.folder / "dump.log"), "-o", listen, "start"],
        [os.fspath(old / "pg_dump"), "-Fc", "-f", "orders.dump", address.url(place)],
        [*pg_ctl, "stop"],
        ["mv", os.fspath(place.data), f"{place.data}-{found}"],
        ["orders", "db", "restore", "orders.dump"],
    )
    return " && ".join(map(shlex.join, steps))
