"""Enqueue COUNT jobs, then drain them with a handler that does nothing: pgqueuer_drain.py URL COUNT BATCH.

Prints the time of the first and of the last call of the handler, in seconds since 1970.
"""

import json
import sys
import time
from uuid import uuid4

import asyncpg
import uvloop
from pgqueuer.adapters.drivers.asyncpg import AsyncpgPoolDriver
from pgqueuer.core.qm import QueueManager
from pgqueuer.models import Job
from pgqueuer.queries import Queries
from pgqueuer.types import QueueExecutionMode


def payload() -> bytes:
    """Return an order of the size that all are measured with."""
    item_ids = [str(uuid4()) for _ in range(3)]
    return json.dumps({"user_id": str(uuid4()), "item_ids": item_ids, "total_amount": 150.75}).encode()


async def main(url: str, count: int, batch: int) -> None:
    """Do it."""
    async with asyncpg.create_pool(url, min_size=2, max_size=10) as pool:
        driver = AsyncpgPoolDriver(pool)
        queries = Queries(driver)
        await queries.install()
        for _ in range(count // 1000):
            await queries.enqueue(["order"] * 1000, [payload() for _ in range(1000)], [0] * 1000)
        manager = QueueManager(queries)
        times: list[float] = []

        @manager.entrypoint("order")
        async def order(_job: Job) -> None:
            times.append(time.time())

        await manager.run(batch_size=batch, mode=QueueExecutionMode.drain)
        print(json.dumps({"first": times[0], "last": time.time(), "count": len(times)}))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
