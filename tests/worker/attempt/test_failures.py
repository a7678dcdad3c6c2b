import json
from collections.abc import Callable

import pytest

from tests.worker.conftest import Queue, StartWorker

RAISES = """
def handle(order, context):
    note(order)
    raise ValueError(f"no stock at attempt {order.attempt}")
"""

ALL_KINDS = r"""
class Vicious(Exception):
    def __str__(self):
        raise RuntimeError("not even its name")

class Recursing(Exception):
    def __str__(self):
        return str(self)

class Exiting(Exception):
    def __str__(self):
        raise SystemExit(7)

class Interrupting(Exception):
    def __str__(self):
        raise KeyboardInterrupt

class Own(BaseException):
    pass

ERRORS = {
    1: ValueError("a\x00b"),
    2: ValueError("lone \ud800 surrogate"),
    3: ValueError("x" * 1_000_000),
    4: SystemExit(7),
    5: KeyboardInterrupt(),
    6: Own("base"),
    7: Vicious(),
    8: Reject("\x00\udfff" + "y" * 1_000_000),
    9: Reject(),
    10: Reject(Vicious()),
    11: Cancelled(),
    12: GeneratorExit(),
    13: StopIteration(),
    14: MemoryError(),
    15: Recursing(),
    16: Exiting(),
    17: Reject(Exiting()),
    18: Cancelled(Interrupting()),
    19: ExceptionGroup("several", [Recursing(), Exiting()]),
}

def handle(order, context):
    if order.seq in ERRORS:
        raise ERRORS[order.seq]
"""


def test_raising_handler_is_retried_with_growing_jittered_delays_and_then_fails(
    start_worker: StartWorker, queue: Queue
) -> None:
    queue.connection.execute("""
        CREATE TABLE delays (order_id uuid, attempt integer, seconds double precision);
        CREATE FUNCTION write_down() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO delays
            SELECT NEW.order_id, NEW.attempt, EXTRACT(epoch FROM NEW.retry_at - clock_timestamp());
            RETURN NULL;
        END $$;
        CREATE TRIGGER write_down AFTER UPDATE ON orders FOR EACH ROW
        WHEN (NEW.status = 'retrying') EXECUTE FUNCTION write_down();
    """)
    start_worker(RAISES, ORDERS_BACKOFF_SECONDS=0.2, ORDERS_CONCURRENCY=4)
    ids = queue.submit(4)

    for order_id in ids:
        order = queue.until(order_id, "failed")
        assert (order.attempt, order.last_error) == (5, "ValueError: no stock at attempt 5")
        assert queue.attempts(order_id) == [(number, "raised") for number in range(1, 6)]
    delays = queue.all("SELECT attempt, seconds FROM delays")
    for attempt, seconds in delays:
        doubled = 0.2 * 2 ** (attempt - 1)
        assert 0.74 * doubled < seconds < 1.26 * doubled
    assert len(delays) == 16
    assert len({round(seconds, 3) for attempt, seconds in delays if attempt == 4}) > 1
    waited = """
        SELECT bool_and(next_at - ended_at > make_interval(secs => seconds - 0.1)) FROM (
            SELECT order_id, attempt, ended_at,
                   lead(started_at) OVER (PARTITION BY order_id ORDER BY attempt) AS next_at
            FROM attempts
        ) AS attempts JOIN delays USING (order_id, attempt)
    """
    assert queue.one(waited)
    errors = queue.all("SELECT error FROM attempts WHERE order_id = %s ORDER BY attempt", ids[0])
    assert errors == [(f"ValueError: no stock at attempt {number}",) for number in range(1, 6)]


def test_retrying_order_keeps_its_place_and_lets_others_pass_meanwhile(
    start_worker: StartWorker, queue: Queue
) -> None:
    start_worker(
        'def handle(order, context):\n    if order.seq == 1 and order.attempt == 1: raise ValueError("once")',
        ORDERS_BACKOFF_SECONDS=0.3,
    )
    first, second = queue.submit(2)

    queue.until(second, "completed")
    order = queue.until(first, "completed")
    assert (order.seq, order.attempt) == (1, 2)
    assert order.last_error == "ValueError: once"


def test_reject_fails_at_once(start_worker: StartWorker, queue: Queue) -> None:
    start_worker('def handle(order, context): raise Reject("unknown item")')
    order_id = queue.submit_one()

    order = queue.until(order_id, "failed")
    assert (order.attempt, order.last_error) == (1, "unknown item")
    assert queue.attempts(order_id) == [(1, "rejected")]


def test_no_exception_of_a_handler_hurts_its_worker(start_worker: StartWorker, queue: Queue) -> None:
    worker = start_worker(ALL_KINDS, ORDERS_MAX_ATTEMPTS=1)
    ids = queue.submit(20)

    queue.until(ids[-1], "completed")
    errors = dict(queue.all("SELECT seq, last_error FROM orders WHERE status = 'failed'"))
    assert worker.stop() == 0
    assert queue.counts() == {"failed": 19, "completed": 1}
    assert errors[1] == "ValueError: a\N{REPLACEMENT CHARACTER}b"
    assert errors[2] == "ValueError: lone ? surrogate"
    assert errors[3] == "ValueError: " + "x" * 1988
    assert errors[4] == "SystemExit: 7"
    assert errors[5] == "KeyboardInterrupt"
    assert errors[6] == "Own: base"
    assert errors[7] == "Vicious"
    assert len(errors[8]) == 2000
    assert errors[9] == errors[10] == errors[17] == "Reject"
    assert (errors[15], errors[16], errors[18]) == ("Recursing", "Exiting", "Cancelled")
    assert errors[19] == "ExceptionGroup: several (2 sub-exceptions)"


RAISING_LOG_HANDLER = """
import logging

class Raising(logging.Handler):
    def emit(self, record):
        if record.name.startswith(("orders_worker", "schema")):
            raise {error}("no room for this record")

logging.getLogger().addHandler(Raising())

def handle(order, context):
    raise ValueError("no stock")
"""


@pytest.mark.parametrize("error", ["OSError", "SystemExit"])
def test_log_handler_of_a_user_that_raises_stops_nothing(
    error: str, start_worker: StartWorker, queue: Queue
) -> None:
    worker = start_worker(RAISING_LOG_HANDLER.format(error=error), ORDERS_MAX_ATTEMPTS=1)

    for order_id in queue.submit(3):
        queue.until(order_id, "failed")
    assert worker.stop() == 0
    assert worker.log.count("ERROR log_handler_raised") == 1
    assert f"{error}: no room for this record" in worker.log
    assert worker.log.count("ERROR handler_raised") == 3
    assert "INFO worker_stopped" in worker.log


UNFINISHED = {
    "a generator": "def work(): yield\ndef handle(order, context): return work()",
    "an asynchronous generator": "async def work(): yield\ndef handle(order, context): return work()",
    "a future": """
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor()
def handle(order, context): return pool.submit(wait_for, "gate")
""",
}


@pytest.mark.parametrize("handler", UNFINISHED.values(), ids=UNFINISHED)
def test_handler_that_returns_what_is_not_done_has_failed(
    handler: str, start_worker: StartWorker, queue: Queue, open_gate: Callable[..., None]
) -> None:
    start_worker(handler, ORDERS_MAX_ATTEMPTS=1)

    order = queue.until(queue.submit_one(), "failed")

    assert order.last_error.startswith("TypeError: the handler returned a")
    assert order.last_error.endswith("which is not waited for")
    open_gate()


def test_errors_message_is_one_line_of_the_log(start_worker: StartWorker, queue: Queue) -> None:
    worker = start_worker(
        r'def handle(order, context): raise Reject("first\nworker_stopped order_id=1\x1b[31m")',
        ORDERS_LOG_FORMAT="json",
    )
    queue.until(queue.submit_one(), "failed")
    assert worker.stop() == 0

    events = [json.loads(line) for line in worker.log.splitlines()]
    assert [event["error"] for event in events if event["event"] == "attempt_rejected"] == ["first"]
