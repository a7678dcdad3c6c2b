"""Play the original service's load test against a running API: many orders from many clients at once.

    ORDERS=1000 CLIENTS=200 python bench/load.py [http://host:port]

Knows HTTP only. Waits until the last order has reached a final state, prints what happened, and exits
non-zero if an accepted order is missing or not completed. Whether they were served in turn the database
tells: `make verify-fcfs`. The standard library is enough for it.
"""

import http.client
import json
import os
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

STALLED_SECONDS = 60.0
_TIMEOUT_SECONDS = 30.0
_POLL_SECONDS = 0.2
_LOOK_AHEAD = 50
_BAR_WIDTH = 40
_FINAL = ("Completed", "Failed", "Cancelled")


class LoadError(Exception):
    """Why the load test can't go on, in one line."""


@dataclass(slots=True)
class Submissions:
    """What the clients have done; each list only ever grows, from many threads."""

    accepted: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many were sent and answered, or broke."""
        return len(self.accepted) + len(self.failures)


class Client:
    """One keep-alive connection to the API."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise LoadError(f"{url} is no address such as http://127.0.0.1:8000")
        self._connection = http.client.HTTPConnection(
            parts.hostname, parts.port or 80, timeout=_TIMEOUT_SECONDS
        )

    def call(self, method: str, path: str, document: Any = None) -> tuple[int, Any]:
        """Return the status and the JSON answer; raise `OSError` or `http.client.HTTPException`."""
        body = None if document is None else json.dumps(document)
        try:
            self._connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            self._connection.close()
            raise

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


class Progress:
    """A bar where a person looks on, a line for every tenth where a file does."""

    def __init__(self, label: str, total: int) -> None:
        self._label = label
        self._total = total
        self._tenth = -1

    def show(self, done: int) -> None:
        """Show that `done` of the total are done."""
        line = f"{self._label} {done}/{self._total}"
        if sys.stderr.isatty():
            bar = "#" * (_BAR_WIDTH * done // self._total)
            end = "\n" if done == self._total else ""
            print(f"\r[{bar:<{_BAR_WIDTH}}] {line}", end=end, file=sys.stderr, flush=True)
        elif 10 * done // self._total > self._tenth:
            self._tenth = 10 * done // self._total
            print(line, file=sys.stderr, flush=True)


def main() -> int:
    """Run the load test; return 0 if every accepted order was completed."""
    try:
        orders, clients = _whole("ORDERS", 1000), _whole("CLIENTS", 200)
        url = _url()
        _check_present(url)
        submissions, seconds = submit(url, orders, clients=clients)
        statuses = wait_for_all(url, submissions.accepted)
    except LoadError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return _report(submissions, statuses, seconds=seconds)


def submit(url: str, orders: int, *, clients: int) -> tuple[Submissions, float]:
    """Send `orders` orders from `clients` clients at once; return what came of it and how long it took."""
    submissions = Submissions()
    numbers = iter(range(orders))  # a client that takes the next number sends one order more
    starters = threading.Barrier(min(clients, orders) + 1)

    def client() -> None:
        connection = Client(url)
        starters.wait()
        for _ in numbers:
            _submit_one(connection, submissions)
        connection.close()

    threads = [threading.Thread(target=client, daemon=True) for _ in range(min(clients, orders))]
    for thread in threads:
        thread.start()
    starters.wait()
    begun = time.monotonic()
    progress = Progress("submitted", orders)
    for thread in threads:
        while thread.is_alive():
            thread.join(_POLL_SECONDS)
            progress.show(submissions.count)
    return submissions, time.monotonic() - begun


def _submit_one(client: Client, submissions: Submissions) -> None:
    order = {
        "user_id": str(uuid.uuid4()),
        "item_ids": [str(uuid.uuid4()) for _ in range(3)],
        "total_amount": 150.75,
    }
    begun = time.monotonic()
    try:
        status, answer = client.call("POST", "/orders", order)
    except (OSError, http.client.HTTPException, ValueError) as error:
        submissions.failures.append(f"{type(error).__name__}: {error}")
        return
    submissions.latencies.append(time.monotonic() - begun)
    if status == 201:
        submissions.accepted.append(answer["order_id"])
    else:
        submissions.failures.append(f"{status} {answer.get('title', '')}".strip())


def wait_for_all(
    url: str, order_ids: list[str], *, stalled_seconds: float = STALLED_SECONDS
) -> dict[str, str | None]:
    """Return each order's final status, None for one that the API does not know.

    Raises `LoadError` when none of them has come to an end for `stalled_seconds`.
    """
    client = Client(url)
    statuses: dict[str, str | None] = {}
    # Orders end about in the order of their ids, which begin with the time: look at the first few only.
    unfinished = sorted(order_ids)
    progress = Progress("finished", len(unfinished))
    moved_at = time.monotonic()
    while unfinished:
        ended = dict(_ended(client, unfinished))
        statuses.update(ended)
        unfinished = [order_id for order_id in unfinished if order_id not in ended]
        progress.show(len(statuses))
        if ended:
            moved_at = time.monotonic()
        elif time.monotonic() - moved_at > stalled_seconds:
            client.close()
            raise LoadError(
                f"{len(unfinished)} of {len(order_ids)} accepted orders are unfinished and none has come to"
                f" an end for {stalled_seconds:g} s: is a worker running?"
            )
        else:
            time.sleep(_POLL_SECONDS)
    client.close()
    return statuses


def _ended(client: Client, order_ids: list[str]) -> Iterator[tuple[str, str | None]]:
    """Look the orders up from the front until `_LOOK_AHEAD` are found unfinished."""
    unfinished = 0
    for order_id in order_ids:
        try:
            status, answer = client.call("GET", f"/orders/{order_id}")
        except (OSError, http.client.HTTPException, ValueError):
            return  # the next round tries again, the stall limit ends it
        if status == 404:
            yield order_id, None
        elif status == 200 and answer["status"] in _FINAL:
            yield order_id, answer["status"]
        else:
            unfinished += 1
            if unfinished >= _LOOK_AHEAD:
                return


def percentile(values: list[float], share: float) -> float:
    """Return the smallest value that at least `share` of all do not exceed; 0 if there are none."""
    if not values:
        return 0.0
    rank = -(-len(values) * round(share * 100) // 100)
    return sorted(values)[max(rank, 1) - 1]


def _report(submissions: Submissions, statuses: dict[str, str | None], *, seconds: float) -> int:
    found = Counter(statuses.values())
    completed, missing = found.pop("Completed", 0), found.pop(None, 0)
    p50, p95, p99 = (percentile(submissions.latencies, share) * 1000 for share in (0.5, 0.95, 0.99))
    print(f"accepted    {len(submissions.accepted)}")
    print(f"failed      {len(submissions.failures)}")
    print(f"rate        {len(submissions.accepted) / max(seconds, 1e-9):.0f} orders/s")
    print(f"latency     p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms")
    print(f"completed   {completed}")
    for status, count in sorted(found.items()):
        print(f"{status.lower():11} {count} of the accepted")
    print(f"missing     {missing}")
    print("FCFS        `make verify-fcfs` tells, from the database")
    for reason, count in Counter(submissions.failures).most_common(5):
        print(f"failed {count} times: {reason}", file=sys.stderr)
    return 0 if completed == len(submissions.accepted) > 0 else 1


def _whole(name: str, default: int) -> int:
    value = os.environ.get(name) or str(default)
    if not (value.isascii() and value.isdigit() and len(value) <= 7 and int(value) >= 1):
        raise LoadError(f"{name} is {value!r}: expected a whole number from 1 to 9999999")
    return int(value)


def _url() -> str:
    if len(sys.argv) > 1:
        return sys.argv[1]
    host, port = os.environ.get("ORDERS_HOST") or "127.0.0.1", os.environ.get("ORDERS_PORT") or "8000"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _check_present(url: str) -> None:
    try:
        client = Client(url)
        status, _ = client.call("GET", "/readyz")
        client.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise LoadError(f"no API at {url} ({error}): start one with `make run`") from None
    if status != 200:
        raise LoadError(f"the API at {url} is not ready: GET /readyz answers {status}")


if __name__ == "__main__":
    sys.exit(main())
