"""Check a database URL, and show one without its password."""

import re

import psycopg
from psycopg import conninfo

URL_EXPECTED = "a URL such as postgresql://user:password@host:5432/orders"


def parse(value: str) -> str:
    """Return `value` in libpq's form if it is a connection string, else raise `ValueError`.

    SQLAlchemy's `postgresql+psycopg://` is accepted too.
    """
    url = value.replace("postgresql+psycopg://", "postgresql://", 1)
    try:
        given = conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise ValueError from error
    ports = str(given.get("port", "5432")).split(",")
    if not given or not all(re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65_536 for port in ports):
        raise ValueError
    return url


def masked(value: str) -> str:
    """Hide what stands where a password may stand, also in a string that is no URL."""
    hidden = re.sub(_HIDDEN, r"\1***", value, flags=re.IGNORECASE | re.DOTALL)
    hidden = re.sub(r"((?://)?[^:/]*:)(?!//).*@", r"\1***@", hidden, flags=re.DOTALL)
    # What follows a colon and is no port may be a password whose host was forgotten.
    return re.sub(r"(//[^:/@]*:)(?![0-9]{1,5}(?:[/?,]|$))[^@]*?(?=[@?]|$)", r"\1***", hidden, flags=re.DOTALL)


_HIDDEN = r"(password\s*=\s*)('(?:\\.|[^'\\])*'?|(?:\\.|\S)*)"
"""A keyword's value as libpq reads it: quoted or up to a blank, either with backslashes before anything."""
