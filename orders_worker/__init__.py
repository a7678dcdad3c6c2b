"""The worker: rows out, handler in.

A handler's author needs `orders_worker.handler` alone. The main loop is `dispatch`, what runs in a slot is
`attempt`, what runs beside them is `upkeep` and `health`; `worker` puts them together.
"""

from orders_queue import check

check()
