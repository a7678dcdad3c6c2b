"""The REST API: HTTP in, rows in.

`app` has every route on one page. `resources` is HTTP alone, `database` is how requests reach PostgreSQL:
`placing` and `showing` are the doors. `problems` turns each error into an answer, `server` has the limits.
"""

from orders_queue import check

check()
