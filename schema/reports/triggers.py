"""Find what a user has put on `orders` that may undo our statements, or hide rows, without an error."""

from schema.runtime.connection import Connection

# Bits of tgtype (src/include/catalog/pg_trigger.h): 1 for each row, 2 before, 16 update. Only such a trigger
# can leave a row as it was. Ours fire after the statement.
SUSPECTS = """
SELECT tgname
FROM pg_trigger
WHERE tgrelid = 'orders'::regclass
  AND NOT tgisinternal
  AND tgenabled IN ('O', 'A')
  AND tgtype & 19 = 19
UNION ALL
SELECT rulename
FROM pg_rewrite
WHERE ev_class = 'orders'::regclass
  AND ev_type = '2'
  AND ev_enabled IN ('O', 'A')
ORDER BY 1
"""


def suspects(connection: Connection) -> list[str]:
    """Return the names of the triggers and rules that can keep an UPDATE of `orders` from taking effect."""
    return [name for (name,) in connection.execute(SUSPECTS)]


ROW_SECURITY = """
SELECT row_security_active('orders'::regclass)
"""


def row_security(connection: Connection) -> bool:
    """Tell whether policies decide which orders this role sees and writes."""
    (is_active,) = connection.one(ROW_SECURITY)
    return bool(is_active)
