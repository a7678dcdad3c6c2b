"""The REST API: HTTP in, rows in.

`app` has every route on one page. `resources` answers them, `database` is how they reach PostgreSQL,
`problems` turns each error into an answer, `server` is waitress with our limits.
"""
