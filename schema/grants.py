"""What the roles of the API, of the workers and of readers may do in the database: no more than each needs.

The trigger functions run as the owner of the tables, and a ticket is drawn without a privilege of its own: no
role needs the tally for its orders' sake, a sequence or a function.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from psycopg import sql

from schema.errors import StartError, StatementRefusedError
from schema.runtime.connection import Connection

Privileges = Mapping[str, tuple[str, ...]]
"""For each table what GRANT says before ON."""

_CHECK: Privileges = {"alembic_version": ("SELECT",), "queue": ("SELECT",)}
_FOLD: Privileges = {
    "tally": ("SELECT", "UPDATE"),
    "tally_changes": ("SELECT", "DELETE"),
    "tally_marks": ("SELECT", "INSERT", "DELETE"),
}

API: Privileges = {
    **_CHECK,
    **_FOLD,
    "orders": ("SELECT", "INSERT (order_id, user_id, item_ids, total_amount)"),
    "idempotency_keys": ("SELECT", "INSERT"),
    "imports": ("SELECT", "INSERT", "UPDATE"),
    "workers": ("SELECT",),
}
"""Of the role that places orders: of the API, and of `orders import`."""

WRITTEN = (
    "attempt",
    "attempt_limit",
    "finished_at",
    "last_error",
    "queued_at",
    "rescues",
    "retry_at",
    "started_at",
    "status",
    "worker_id",
)
"""The columns of an order that a worker writes. What was ordered is not among them."""

# To lock a row takes UPDATE of any column: a key's age is the least.
WORKER: Privileges = {
    **_CHECK,
    **_FOLD,
    "orders": ("SELECT", f"UPDATE ({', '.join(WRITTEN)})"),
    "attempts": ("SELECT", "INSERT"),
    "workers": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "idempotency_keys": ("SELECT", "UPDATE (created_at)", "DELETE"),
}

READER: Privileges = {
    **_CHECK,
    "orders": ("SELECT",),
    "attempts": ("SELECT",),
    "workers": ("SELECT",),
    "tally": ("SELECT",),
    "tally_changes": ("SELECT",),
    "tally_marks": ("SELECT",),
}
"""Of a role that looks only: `orders show`, `list` and `verify-fcfs`, and questions of its own."""

_PRIVILEGE_NOT_GRANTED = "01007"
"""The SQLSTATE of the warning that says that a GRANT did nothing."""


class UnknownRoleError(StartError):
    """There is no such role."""

    def __init__(self, role: str) -> None:
        super().__init__(f"there is no role {role!r} on this server: create it, and grant then")


class NotGrantedError(StartError):
    """The role of this connection may not grant; nothing is granted."""

    def __init__(self, statement: str) -> None:
        super().__init__(f"refused: {statement}; connect as the owner of the tables and of the database")


@dataclass(frozen=True, slots=True)
class Grant:
    """A statement; `needless` when its role has the privilege already, maybe as everybody has it."""

    statement: str
    needless: bool = False


_FIND_ROLE = """
SELECT current_database(),
       nspname,
       pg_catalog.has_database_privilege(rolname, current_database(), 'CONNECT'),
       pg_catalog.has_schema_privilege(rolname, pg_namespace.oid, 'USAGE')
FROM pg_roles, pg_class
JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE rolname = %s
  AND pg_class.oid = 'orders'::regclass::oid
"""


def grants(connection: Connection, role: str, privileges: Privileges) -> Iterator[Grant]:
    """Yield what gives `role` the privileges: on the database, the schema and each table.

    Raises `UnknownRoleError`.
    """
    found = connection.execute(_FIND_ROLE, [role]).fetchone()
    if found is None:
        raise UnknownRoleError(role)
    database, schema, may_connect, may_use = found
    grant = partial(_statement, connection, role)
    yield Grant(grant("CONNECT", "DATABASE", database), needless=may_connect)
    yield Grant(grant("USAGE", "SCHEMA", schema), needless=may_use)
    for table, listed in privileges.items():
        yield Grant(grant(", ".join(listed), "TABLE", schema, table))


def _statement(connection: Connection, role: str, privileges: str, kind: str, *names: str) -> str:
    form = sql.SQL(f"GRANT {privileges} ON {kind} {{}} TO {{}}")
    return form.format(sql.Identifier(*names), sql.Identifier(role)).as_string(connection)


def apply(connection: Connection, found: list[Grant]) -> None:
    """Run them all, or none: raises `NotGrantedError`. Takes nothing away that a role has beside."""
    warnings: list[str | None] = []
    connection.add_notice_handler(lambda notice: warnings.append(notice.sqlstate))
    with connection.transaction():
        connection.execute("SET LOCAL client_min_messages = 'warning'")
        for each in found:
            if not each.needless:
                _run(connection, each.statement)
                if _PRIVILEGE_NOT_GRANTED in warnings:
                    raise NotGrantedError(each.statement)


def _run(connection: Connection, statement: str) -> None:
    try:
        connection.execute(statement)
    except StatementRefusedError as error:
        if error.is_forbidden:
            raise NotGrantedError(statement) from error
        raise
