"""Put jobs into the line, or work them off: procrastinate_drain.py URL COUNT fill|drain.

When the line is empty, prints the times of the handler's first call and of the end, in seconds since 1970.
"""

import json
import logging
import sys
import time
from typing import Any

import uvloop
from procrastinate import App, PsycopgConnector
from psycopg_pool import AsyncConnectionPool
from sample import order

AT_ONCE = 10


async def main(url: str, count: int, what: str) -> None:
    """Do it."""
    # It warns of an app that is made in the main module, which matters to its command line only.
    logging.getLogger("procrastinate").setLevel(logging.ERROR)
    app = App(connector=PsycopgConnector(conninfo=url))
    times: list[float] = []

    @app.task(name="order")
    async def work(**_order: Any) -> None:
        times.append(time.time())

    # For short jobs its documentation wants a connection for each and one more. A pool that is given to it
    # does without the check before each statement, which its own pool makes.
    pool = AsyncConnectionPool(url, min_size=AT_ONCE + 1, max_size=AT_ONCE + 1, open=False)
    async with pool, app.open_async(pool):
        if what == "fill":
            await app.schema_manager.apply_schema_async()
            for _ in range(count // 1000):
                await work.batch_defer_async(*(order() for _ in range(1000)))
        else:
            await app.run_worker_async(concurrency=AT_ONCE, wait=False, delete_jobs="never")
            print(json.dumps({"first": times[0], "last": time.time(), "count": len(times)}))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
