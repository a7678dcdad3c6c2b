"""Which schema revision the database has, and whether these programs can use it."""

from schema.errors import StartError, StatementRefusedError
from schema.runtime.connection import Connection

NEEDED = "0009"
"""The oldest revision that these programs can work with: the newest at their release."""


class SchemaOutdatedError(StartError):
    """The database lacks tables or columns that these programs use, or their role finds no table at all."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"the database's schema is at revision {found}, this program needs {NEEDED}: run `orders migrate`"
            + (", or `orders grants` if its role may not use the schema" if found == "none" else "")
        )


class SchemaTooNewError(StartError):
    """The database was migrated for a newer release, which says that this one must not use it."""

    def __init__(self, required: str) -> None:
        super().__init__(
            f"the database's schema asks for programs of revision {required} or newer, this one knows"
            f" {NEEDED}: install a newer release"
        )


class SchemaRenamedError(StartError):
    """The trigger functions name the tables of a schema that is called something else now."""

    def __init__(self) -> None:
        super().__init__(
            "the database's schema was renamed, and its triggers don't know: run `orders migrate`"
        )


def check(connection: Connection) -> str:
    """Return the database's revision, which may be a newer one that these programs fit.

    Raises `SchemaOutdatedError`, `SchemaTooNewError`, `SchemaRenamedError`, or `StartError` for an encoding
    other than UTF8.
    """
    encoding = connection.execute("SHOW server_encoding").fetchone()
    if encoding != ("UTF8",):
        raise StartError(f"the database's encoding is {(encoding or ['unknown'])[0]}: it must be UTF8")
    try:
        row = connection.execute(_FIND).fetchone()
    except StatementRefusedError as error:
        if not error.is_undefined_table:
            raise
        raise SchemaOutdatedError("none") from None
    if row is None or row[0] < NEEDED:
        raise SchemaOutdatedError(row[0] if row else "none")
    if row[1] is not None and row[1] > NEEDED:
        raise SchemaTooNewError(row[1])
    if connection.one(RENAMED) == (True,):
        raise SchemaRenamedError
    found: str = row[0]
    return found


_FIND = """
SELECT version_num,
       (SELECT requires_revision FROM queue)
FROM alembic_version
"""

RENAMED = """
SELECT EXISTS (
    SELECT FROM pg_proc
    JOIN pg_namespace ON pg_namespace.oid = pronamespace
    WHERE starts_with(proname::text, 'orders_tally_')
      AND pronamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('orders')::oid)
      AND position(' ' || quote_ident(nspname::text) || '.tally' IN prosrc) = 0
)
"""
"""Whether a function has other tables in mind than those of the schema that it is in."""
