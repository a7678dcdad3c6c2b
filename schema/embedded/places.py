"""Where a server's files are: the folder it was given, or one below /var/lib that its user can reach.

In that folder: `data` (PostgreSQL's own), `log`, `socket`, `lock`, `start.log`, `pg_hba.conf` and
`pg_ident.conf`. No existing folder's owner or mode is ever changed.
"""

import hashlib
import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

from schema.embedded import account as accounts
from schema.embedded import store as stores
from schema.embedded.account import Account
from schema.embedded.patience import say
from schema.embedded.store import STORE
from schema.errors import StartError


@dataclass(frozen=True, slots=True)
class Place:
    """The files of one server, the user they belong to, and the store for what he can't reach elsewhere."""

    folder: Path
    account: Account
    store: Path = STORE

    @property
    def in_store(self) -> bool:
        """Whether the files are in the store because the user can't reach their own place."""
        return self.folder.parent == self.store

    @property
    def data(self) -> Path:
        """PostgreSQL's data folder; it is there whole or not at all."""
        return self.folder / "data"

    @property
    def restored(self) -> Path:
        """A restored data folder that is complete but has yet to take its place."""
        return self.folder / "restored"

    def fresh(self) -> Path:
        """Return a new name for a data folder in the making."""
        return self.folder / f"new-{secrets.token_hex(4)}"

    @property
    def lock(self) -> Path:
        """What a process locks while it starts, stops or replaces the server."""
        return self.folder / "lock"

    @property
    def log(self) -> Path:
        """The folder of the server's logs, one file for each day of the week."""
        return self.folder / "log"

    @property
    def start_log(self) -> Path:
        """What the last start printed before the server opened its log."""
        return self.folder / "start.log"

    def last_words(self) -> str:
        """Return what the last start left at the end of whichever log was written last."""
        logs = [path for path in (self.start_log, *self.log.glob("*.log")) if path.is_file()]
        if not logs:
            return ""
        newest = max(logs, key=lambda path: path.stat().st_mtime_ns)
        return accounts.last_lines(newest.read_bytes().rpartition(b"starting PostgreSQL")[2])

    def make(self) -> None:
        """Make the folder if it isn't there. Raises `StartError` when it can't be made."""
        if not self.folder.exists():
            _make(self)
            if self.in_store:
                say(f"{self.account.name} can't use the checkout: PostgreSQL's files are in {self.folder}")


def locate(home: Path, store: Path = STORE) -> Place:
    """Find where the files of the server of `home` are, or will be. Makes nothing but a system user."""
    home = home.resolve()
    if home.exists() and not home.is_dir():
        raise StartError(f"{home} is no folder: move it away")
    account = accounts.for_folder(home)
    if not account.switch:
        _check_access(home)
        return Place(home, account, store)
    # Inside a home that is root's, what the server's user owns is one folder further down.
    folders = home, home / "postgresql", store / hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    candidates = [Place(folder, account, store) for folder in folders]
    used = next((place for place in candidates if place.data.exists()), None)
    if used is not None and not account.can_use(used.data, access="x"):
        raise StartError(
            f"user {account.name}, as whom PostgreSQL runs, can't reach {used.data} any more:"
            f" let it (chmod o+x on the folders above), or set DATABASE_URL"
        )
    return used or next(place for place in candidates if _is_usable(place))


def _check_access(home: Path) -> None:
    if home.exists() and not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        raise StartError(
            f"{home} can't be written to by you, and its database is its owner's alone:"
            " work in a checkout of your own, or set DATABASE_URL"
        )


def _is_usable(place: Place) -> bool:
    """Tell whether the server's user can work in the folder, or could if root made it for him."""
    if place.folder.exists():
        return place.account.can_use(place.folder, access="wx")
    return place.in_store or place.account.can_use(place.folder.parent, access="x")


def _make(place: Place) -> None:
    """Make the folder with mode 0700 and the right owner from its first moment."""
    folder, account = place.folder, place.account
    try:
        if place.in_store:
            stores.make(place.store)
        fresh = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
            if account.switch:
                os.chown(fresh, account.uid, account.gid, follow_symlinks=False)
            fresh.rename(folder)
        except OSError:
            fresh.rmdir()
            # Another process may have made it first, and have put its lock there.
            if not folder.is_dir():
                raise
    except OSError as error:
        raise StartError(f"can't make {folder}: {error.strerror}") from error
