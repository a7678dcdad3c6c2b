"""Arrays as PostgreSQL writes them: psycopg's lists cost ten times as much.

https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO.
"""

from collections.abc import Iterable
from decimal import Decimal
from uuid import UUID


def of_texts(texts: Iterable[str]) -> str:
    """Return one or more texts as an array. Joins them by NUL first, which no text contains."""
    items = "\0".join(texts).replace("\\", r"\\").replace('"', r"\"").replace("\0", '","')
    return f'{{"{items}"}}'


def of_uuids(ids: Iterable[UUID]) -> str:
    """Return the ids as an array."""
    return f"{{{','.join([each.hex for each in ids])}}}"


def of_numbers(numbers: Iterable[int | Decimal]) -> str:
    """Return the numbers as an array."""
    return f"{{{','.join(map(str, numbers))}}}"
