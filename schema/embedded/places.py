"""Where a server's files are: the folder it was given, or one below /var/lib that its user can reach.

In that folder: `data` (PostgreSQL's own), `log`, `socket`, `lock`, `start.log`, `pg_hba.conf` and
`pg_ident.conf`. No existing folder's owner or mode is ever changed.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from schema.embedded import account as accounts
from schema.embedded import folders
from schema.embedded.account import Account
from schema.embedded.patience import say
from schema.errors import StartError


@dataclass(frozen=True, slots=True)
class Place:
    """The files of one server, the user they belong to, and the store for what that user can't reach."""

    folder: Path
    account: Account
    store: Path

    @property
    def in_store(self) -> bool:
        """Whether the files are in the store because the user can't reach their own place."""
        return self.folder.parent == self.store

    @property
    def data(self) -> Path:
        """PostgreSQL's data folder; it is there whole or not at all."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """The folder of the server's logs, one file for each day of the week."""
        return self.folder / "log"

    @property
    def start_log(self) -> Path:
        """What the last start printed before the server opened its log."""
        return self.folder / "start.log"

    def last_words(self) -> str:
        """Return the end of the log that the last start wrote to last, as one line."""
        logs = [path for path in (self.start_log, *self.log.glob("*.log")) if path.is_file()]
        newest = max(logs, key=lambda path: path.stat().st_mtime_ns, default=None)
        text = newest.read_bytes() if newest else b""
        return accounts.last_lines(text.rpartition(b"starting PostgreSQL")[2])

    def make(self) -> None:
        """Make the folder if it isn't there. Raises `StartError` when it can't be made."""
        if self.folder.exists():
            return
        try:
            if self.in_store:
                folders.make(self.store)
            folders.make(self.folder, owner=self.account)
        except OSError as error:
            raise StartError(f"can't make {self.folder}: {error.strerror}") from error
        if self.in_store:
            say(f"{self.account.name} can't use the checkout: PostgreSQL's files are in {self.folder}")


def locate(home: Path, store: Path) -> Place:
    """Find where the files of the server of `home` are, or will be. Makes nothing but a system user."""
    home = home.resolve()
    if home.exists() and not home.is_dir():
        raise StartError(f"{home} is no folder: move it away")
    account = accounts.for_folder(home)
    if not account.switch:
        if home.exists() and not os.access(home, os.R_OK | os.W_OK | os.X_OK):
            raise StartError(
                f"{home} can't be written to by you, and its database is its owner's alone:"
                " work in a checkout of your own, or set DATABASE_URL"
            )
        return Place(home, account, store)
    # In a home that is root's, the folder of the server's user is one level further down.
    candidates = home, home / "postgresql", store / hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    places = [Place(folder, account, store) for folder in candidates]
    used = next((place for place in places if place.data.exists()), None)
    if used is not None and not account.can_use(used.data, access="x"):
        raise StartError(
            f"user {account.name}, as whom PostgreSQL runs, can't reach {used.data} any more:"
            " let it (chmod o+x on the folders above), or set DATABASE_URL"
        )
    return used or next(place for place in places if _is_usable(place))


def _is_usable(place: Place) -> bool:
    """Tell whether the server's user can work in the folder, or could if root made it."""
    if place.folder.exists():
        return place.account.can_use(place.folder, access="wx")
    return place.in_store or place.account.can_use(place.folder.parent, access="x")
