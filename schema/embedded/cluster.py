"""Make the data folder, whole or not at all, and find the programs that can read it."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from schema.embedded import address, binaries
from schema.embedded.places import Place
from schema.errors import StartError

# UTF-8 and code point order: no locale of the machine is needed or used.
_OPTIONS = (
    f"--username={address.ROLE}",
    "--auth=peer",
    "--encoding=UTF8",
    "--locale=C",
    "--data-checksums",
    "--no-instructions",
)
_OPTIONS_FROM_17 = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8")


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
        newer = _OPTIONS_FROM_17 if binaries.version(programs / "postgres") >= 17 else ()
        place.account.run([programs / "initdb", f"--pgdata={fresh}", *_OPTIONS, *newer])
        put(fresh, place.data)


def put(source: Path, target: Path) -> None:
    """Rename within a folder, and return when the new name would survive a power failure."""
    source.rename(target)
    parent = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def programs(place: Place) -> Path:
    """Return the folder of the programs of the data folder's major version; without a folder, of the best.

    Raises `SettingError` when there are no programs at all, and `StartError`, which names the way out, when
    there are none of that version.
    """
    wanted = _version(place.data) if place.data.exists() else None
    others = []
    for major, folder in binaries.candidates():
        if wanted in {None, major}:
            return folder
        others.append(str(major))
    if not others:
        raise binaries.none_found()
    raise StartError(
        f"{place.data} is PostgreSQL {wanted}'s, and there are only the programs of {', '.join(others)}:"
        f" install PostgreSQL {wanted}, or move the folder away to begin with a new one"
    )


def _version(data: Path) -> int:
    try:
        return int((data / "PG_VERSION").read_text())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no version"
        raise StartError(f"{data} is no PostgreSQL data folder: its PG_VERSION: {reason}") from error
