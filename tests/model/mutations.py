"""The fences and conditions of the queue's statements, broken one at a time.

A mutation replaces a piece of one statement, its white space collapsed, by another; the piece must occur
in it exactly once. Where no call can tell the difference, `redundant` says what the piece is there for.

Left out, because no life here can lead to where it would matter:

- The LIMITs of a hundred rows and more, and the order in which they leave rows for later: a life has twenty
  orders and eight workers. Those of SWEEP, PATROL, RETURN_DUE and the pruning of workers are covered by
  `tests/queue/test_{rescue,retries,workers}.py`; those of RECOVER_CLAIMS, _DECLARE_DEAD and SWEPT by no test.
- The order in which rows are locked: no statement waits for one.
- What tells the sessions' locks from other ones in `pg_locks`, except for their database: a life has no other.
- What EXCHANGE_ALONE has in common with EXCHANGE: it is one text.
- `schema/queue/idempotency.py`: a second submission under a key waits for the first, and here nobody waits.
  `tests/queue/test_idempotency.py` covers it, threads and all.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

from schema.queue import cancel, completion, endings, exchange, pause, redrive, rescue, retries, workers

LOCK = "FOR NO KEY UPDATE SKIP LOCKED"
LOCK_ORDERS = "FOR NO KEY UPDATE OF orders SKIP LOCKED"
LOCK_WORKERS = "FOR NO KEY UPDATE OF workers SKIP LOCKED"
LOCK_FINISHED = f"AND status = 'processing' ORDER BY seq {LOCK}"
WORKER = "AND worker_id = %(worker_id)s"
PROCESSING = "AND status = 'processing'"
HELD_ORDERS = "ANY (ARRAY (SELECT order_id FROM held))"


@dataclass(frozen=True, slots=True)
class Mutation:
    """One break of one statement: `old` becomes `new`."""

    module: ModuleType
    statement: str
    name: str
    old: str
    new: str = ""
    redundant: str = ""

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Break the statement, in this process, for as long as the context lasts."""
        sound = getattr(self.module, self.statement)
        sql = " ".join(sound.split())
        assert sql.count(self.old) == 1, f"{self.old!r} occurs {sql.count(self.old)} times in {self.where}"
        setattr(self.module, self.statement, sql.replace(self.old, self.new))
        try:
            yield
        finally:
            setattr(self.module, self.statement, sound)

    @property
    def where(self) -> str:
        return f"{self.module.__name__.removeprefix('schema.queue.')}.{self.statement}"


def _of(module: ModuleType, statement: str, *changes: tuple[str, ...]) -> list[Mutation]:
    return [Mutation(module, statement, *change) for change in changes]


EXCHANGE = _of(
    exchange,
    "EXCHANGE",
    (
        "completes another worker's claim",
        "AND worker_id = %(worker_id)s AND status = 'processing' ORDER BY",
        "AND status = 'processing' ORDER BY",
    ),
    ("completes a later attempt", "AND ((order_id, attempt) IN (SELECT order_id, attempt FROM finished)) IS TRUE"),
    ("completes in any state", "AND status = 'processing' ORDER BY", "ORDER BY"),
    ("waits for a finished order's row", LOCK_FINISHED, "AND status = 'processing' ORDER BY seq FOR NO KEY UPDATE"),
    ("locks no finished order", LOCK_FINISHED, "AND status = 'processing' ORDER BY seq"),
    (
        "is stopped by a foreign key to a finished order",
        LOCK_FINISHED,
        "AND status = 'processing' ORDER BY seq FOR UPDATE SKIP LOCKED",
    ),
    (
        "completes all that is of this worker",
        "UNION ALL SELECT order_id FROM next)) RETURNING",
        "UNION ALL SELECT order_id FROM next)) OR (status = 'processing' AND worker_id = %(worker_id)s) RETURNING",
    ),
    (
        "names the orders no second time",
        "WHERE order_id = ANY (ARRAY (SELECT order_id FROM finished)) AND",
        "WHERE",
        "the pairs say it already; this form keeps the plan to the primary key",
    ),
    ("counts a dead worker as alive", "worker_id = %(worker_id)s AND dead_at IS NULL) AS alive", "worker_id = %(worker_id)s) AS alive"),
    ("counts the dead as alive while anybody lives", "worker_id = %(worker_id)s AND dead_at IS NULL) AS alive", "dead_at IS NULL) AS alive"),
    ("lets the dead claim", "CASE WHEN alive AND NOT paused", "CASE WHEN NOT paused"),
    ("claims while paused", "CASE WHEN alive AND NOT paused", "CASE WHEN alive"),
    ("is paused for ever", "FROM queue WHERE paused_at IS NOT NULL", "FROM queue"),
    ("claims more than is free", "THEN %(free)s::bigint", "THEN %(free)s::bigint + 1"),
    ("fills the free slots twice", "- (SELECT count(*) FROM below_floor)"),
    ("claims all returned orders", "LIMIT (SELECT orders FROM allowance) FOR NO KEY UPDATE", "FOR NO KEY UPDATE"),
    ("claims all orders from the floor on", "LIMIT (SELECT orders FROM allowance) - (SELECT count(*) FROM below_floor)"),
    ("takes orders below the floor that never were claimed", "WHERE in_line AND attempt > 0 AND", "WHERE in_line AND"),
    ("looks for returned orders above the floor too", "AND seq < %(floor)s::bigint"),
    ("claims returned orders that are not in line", "WHERE in_line AND attempt > 0", "WHERE attempt > 0"),
    ("claims the newest returned order first", "AND seq < %(floor)s::bigint ORDER BY seq", "AND seq < %(floor)s::bigint ORDER BY seq DESC"),
    ("waits for a returned order's row", "LIMIT (SELECT orders FROM allowance) FOR NO KEY UPDATE SKIP LOCKED", "LIMIT (SELECT orders FROM allowance) FOR NO KEY UPDATE"),
    ("locks no returned order", "LIMIT (SELECT orders FROM allowance) FOR NO KEY UPDATE SKIP LOCKED", "LIMIT (SELECT orders FROM allowance)"),
    ("is stopped by a foreign key to a returned order", "LIMIT (SELECT orders FROM allowance) FOR NO KEY UPDATE", "LIMIT (SELECT orders FROM allowance) FOR UPDATE"),
    ("ignores the floor", "AND seq >= %(floor)s::bigint"),
    ("claims orders from the floor on that are not in line", "WHERE in_line AND COALESCE(rescues, 0) < 2 AND seq >=", "WHERE COALESCE(rescues, 0) < 2 AND seq >="),
    ("claims the newest order from the floor on first", "AND seq >= %(floor)s::bigint ORDER BY seq", "AND seq >= %(floor)s::bigint ORDER BY seq DESC"),
    ("waits for the row of an order from the floor on", "FROM below_floor) FOR NO KEY UPDATE SKIP LOCKED", "FROM below_floor) FOR NO KEY UPDATE"),
    ("locks no order from the floor on", "FROM below_floor) FOR NO KEY UPDATE SKIP LOCKED", "FROM below_floor)"),
    ("is stopped by a foreign key to an order from the floor on", "FROM below_floor) FOR NO KEY UPDATE", "FROM below_floor) FOR UPDATE"),
    ("runs a returned order beside others that has to run alone", "AND attempt > 0 AND COALESCE(rescues, 0) < 2", "AND attempt > 0"),
    ("runs an order from the floor on beside others that has to run alone", "AND COALESCE(rescues, 0) < 2 AND seq >=", "AND seq >="),
    ("sees none that has to run alone", "WHERE in_line AND rescues >= 2 ORDER BY seq LIMIT 1", "WHERE false ORDER BY seq LIMIT 1"),
    ("says of any order that it has to run alone", "WHERE in_line AND rescues >= 2 ORDER BY seq LIMIT 1", "WHERE in_line AND rescues > 0 ORDER BY seq LIMIT 1"),
    ("says of one that ran alone that it is in line", "WHERE in_line AND rescues >= 2 ORDER BY seq LIMIT 1", "WHERE rescues >= 2 ORDER BY seq LIMIT 1"),
    ("gives the claim no owner", "worker_id = %(worker_id)s, attempt = ", "attempt = "),
    ("counts no attempt", "THEN attempt + 1 ELSE", "THEN attempt ELSE"),
    ("counts a completion as an attempt", "attempt + 1 ELSE attempt END", "attempt + 1 ELSE attempt + 1 END"),
    ("grants each attempt new ones", "COALESCE(attempt_limit, attempt + %(max_attempts)s::integer)", "attempt + %(max_attempts)s::integer"),
    ("grants a completion new attempts", "ELSE attempt_limit END", "ELSE attempt + 100 END"),
    ("dates a claim before the last exchange", ", %(since)s::timestamptz)", ")"),
    ("dates a completed order's start anew", "ELSE started_at END", "ELSE clock_timestamp() END"),
    ("claims nothing that it has locked", "FROM held UNION ALL SELECT order_id FROM next))", "FROM held))"),
    ("completes nothing that it has locked", "(ARRAY (SELECT order_id FROM held UNION ALL", "(ARRAY ("),
    ("takes another order for the finished one", "WHERE orders.order_id = finished.order_id AND orders.attempt", "WHERE orders.attempt"),
    ("takes an earlier attempt for the present one", "AND orders.attempt = finished.attempt"),
    ("takes another worker's claim for its own", "AND orders.worker_id = %(worker_id)s AND orders.status IN ('processing', 'completed')", "AND orders.status IN ('processing', 'completed')"),
    ("takes what ended for busy", "AND orders.status IN ('processing', 'completed')"),
    ("takes what it completed before for busy", "CASE orders.status WHEN 'completed' THEN 'completed' ELSE 'busy' END", "'busy'"),
    ("takes what it completed before for lost", "AND orders.status IN ('processing', 'completed')", "AND orders.status = 'processing'"),
    ("takes busy for lost", "ELSE 'busy' END", "ELSE 'lost' END"),
    ("forgets an earlier attempt beside the present one", "(order_id, attempt) NOT IN (SELECT order_id, attempt FROM moved WHERE status = 'completed')", "order_id <> ALL (ARRAY (SELECT order_id FROM moved WHERE status = 'completed'))"),
    ("takes what it claims again for what it completed", "FROM moved WHERE status = 'completed')", "FROM moved)"),
)  # fmt: skip

EXCHANGE_ALONE = _of(
    exchange,
    "EXCHANGE_ALONE",
    ("lets returned orders pass", "LEAST(%(floor)s::bigint, (SELECT seq FROM alone))", "%(floor)s::bigint"),
    ("looks for returned orders above the floor too", "LEAST(%(floor)s::bigint, (SELECT seq FROM alone))", "COALESCE((SELECT seq FROM alone), 9223372036854775807)"),
    ("lets orders from the floor on pass", "AND seq < COALESCE((SELECT seq FROM alone), 9223372036854775807)"),
    ("claims it beside a returned order", "AND NOT EXISTS (SELECT FROM below_floor)"),
    ("claims it beside an order from the floor on", "AND NOT EXISTS (SELECT FROM from_floor)"),
    ("claims it for a busy worker", "FROM alone WHERE %(idle)s AND", "FROM alone WHERE"),
    ("claims it for the worker in charge only", "WHEN %(idle)s THEN 1"),
    ("has the worker in charge pass it", "WHEN %(worker_id)s = (SELECT worker_id FROM in_charge) THEN 1"),
    ("puts everybody in charge", "THEN 1 ELSE 0 END FROM allowance", "THEN 1 ELSE 1 END FROM allowance"),
    ("locks it without a free slot", "WHEN orders = 0 THEN 0"),
    ("claims all that run alone", "SELECT CASE WHEN orders = 0", "SELECT CASE WHEN orders > 0 AND %(idle)s THEN NULL WHEN orders = 0"),
    ("takes what ran alone for what is in line", "WHERE in_line AND rescues >= 2 ORDER BY seq LIMIT ( SELECT", "WHERE rescues >= 2 ORDER BY seq LIMIT ( SELECT"),
    ("runs any order alone", "WHERE in_line AND rescues >= 2 ORDER BY seq LIMIT ( SELECT", "WHERE in_line ORDER BY seq LIMIT ( SELECT"),
    ("runs the newest first", "rescues >= 2 ORDER BY seq LIMIT ( SELECT", "rescues >= 2 ORDER BY seq DESC LIMIT ( SELECT"),
    ("waits for its row", "END FROM allowance) FOR NO KEY UPDATE SKIP LOCKED", "END FROM allowance) FOR NO KEY UPDATE"),
    ("does not lock it", "END FROM allowance) FOR NO KEY UPDATE SKIP LOCKED", "END FROM allowance)"),
    ("is stopped by a foreign key to it", "END FROM allowance) FOR NO KEY UPDATE", "END FROM allowance) FOR UPDATE"),
    ("puts a dead worker in charge", "WHERE dead_at IS NULL AND oldest_claim_at >", "WHERE oldest_claim_at >"),
    ("puts a worker in charge that hangs", "AND oldest_claim_at > clock_timestamp() - INTERVAL '10 minutes'"),
    ("puts a worker of many slots in charge", "ORDER BY slots, worker_id LIMIT 1", "ORDER BY slots DESC, worker_id LIMIT 1"),
)  # fmt: skip

RECOVER_CLAIMS = _of(
    exchange,
    "RECOVER_CLAIMS",
    ("finds claims from before", "started_at BETWEEN %(since)s AND 'infinity'", "started_at IS NOT NULL"),
    ("finds another worker's claims", WORKER),
    ("finds orders in any state", PROCESSING),
    ("finds what is held", "AND order_id <> ALL (%(held)s::uuid[])"),
    ("finds the newest first", "ORDER BY seq ", "ORDER BY seq DESC "),
)

COMPLETION = [
    *_of(
        completion,
        "_COMPLETE",
        ("completes another order", "WHERE order_id = %(order_id)s AND", "WHERE"),
        ("completes a later attempt", "AND attempt = %(attempt)s"),
        ("completes another worker's claim", WORKER),
        ("completes in any state", PROCESSING),
        ("completes what it has not locked", f"WHERE order_id = {HELD_ORDERS}"),
        ("waits for the row", LOCK, "FOR NO KEY UPDATE"),
        ("is stopped by a foreign key", LOCK, "FOR UPDATE SKIP LOCKED"),
        ("locks nothing", LOCK),
    ),
    *_of(
        completion,
        "_CLAIM_STATE",
        ("looks at another order", "WHERE order_id = %(order_id)s AND", "WHERE"),
        ("looks at a later attempt", "AND attempt = %(attempt)s"),
        ("looks at another worker's claim", WORKER),
    ),
    *_of(
        completion,
        "_IS_FREE",
        ("looks at another order", "WHERE order_id = %(order_id)s AND", "WHERE"),
        ("looks at a later attempt", "AND attempt = %(attempt)s"),
        ("looks at another worker's claim", WORKER),
        ("looks at any state", PROCESSING),
        ("waits for the row", LOCK, "FOR NO KEY UPDATE"),
        ("is stopped by a foreign key", LOCK, "FOR UPDATE SKIP LOCKED"),
        ("locks nothing", LOCK),
    ),
]

END = _of(
    endings,
    "_END",
    ("ends a later attempt", "JOIN ending USING (order_id, attempt)", "JOIN ending USING (order_id)"),
    ("ends another worker's claim", "AND orders.worker_id = %(worker_id)s AND orders.status = 'processing' ORDER BY", "AND orders.status = 'processing' ORDER BY"),
    ("ends in any state", "AND orders.status = 'processing' ORDER BY", "ORDER BY"),
    (
        "names the orders no second time",
        "WHERE orders.order_id = ANY (ARRAY (SELECT order_id FROM ending)) AND",
        "WHERE",
        "the join says it already; this form keeps the plan to the primary key",
    ),
    ("waits for the row", LOCK_ORDERS, "FOR NO KEY UPDATE OF orders"),
    ("is stopped by a foreign key", LOCK_ORDERS, "FOR UPDATE OF orders SKIP LOCKED"),
    ("locks nothing", LOCK_ORDERS),
    ("retries what was rejected", "WHEN outcome = 'rejected' THEN 'failed'"),
    ("forgets the wish to cancel", "WHEN orders.cancel_requested_at IS NOT NULL THEN 'cancelled'"),
    ("retries what was released", "WHEN outcome = 'released' AND orders.attempt < 1000000 THEN 'pending'"),
    ("returns what can't be claimed any more", "AND orders.attempt < 1000000 THEN 'pending'", "THEN 'pending'"),
    ("fails what has no attempt left never", "WHEN orders.attempt >= LEAST(orders.attempt_limit, 1000000) THEN 'failed'"),
    ("grants one attempt too many", "orders.attempt >= LEAST", "orders.attempt > LEAST"),
    ("knows no last attempt", "LEAST(orders.attempt_limit, 1000000)", "orders.attempt_limit"),
    ("retries what was rescued", "WHEN outcome = 'rescued' THEN 'pending'"),
    ("moves what it has not locked", "FROM held WHERE orders.order_id = held.order_id", "FROM held"),
    ("forgets who worked on it last", "worker_id = CASE WHEN next_state IN ('failed', 'cancelled') THEN orders.worker_id END", "worker_id = NULL"),
    ("keeps the owner", "worker_id = CASE WHEN next_state IN ('failed', 'cancelled') THEN orders.worker_id END,"),
    ("forgets when it entered the line", "queued_at = CASE WHEN next_state = 'pending' THEN clock_timestamp() ELSE orders.queued_at END,"),
    ("backs off not at all", "+ make_interval(secs => retry_seconds)"),
    ("spends a released attempt", "THEN LEAST(GREATEST(attempt_limit, orders.attempt), 2147483646) + 1", "THEN attempt_limit"),
    ("grants attempts to what raised", "WHEN outcome = 'released' AND attempt_limit IS NOT NULL", "WHEN attempt_limit IS NOT NULL"),
    ("raises the limit past the last number", "LEAST(GREATEST(attempt_limit, orders.attempt), 2147483646) + 1", "GREATEST(attempt_limit, orders.attempt) + 1"),
    ("raises a limit from where it stands", "GREATEST(attempt_limit, orders.attempt)", "attempt_limit"),
    ("forgets the last error", "COALESCE(error, last_error)", "error"),
    ("forgets the rescues with a release", "WHEN 'released' THEN rescues"),
    ("keeps the rescues in any other case", "WHEN 'released' THEN rescues END", "ELSE rescues END"),
    ("records no attempt", "ON CONFLICT", "WHERE false ON CONFLICT"),
    ("stumbles over a recorded attempt", "ON CONFLICT (order_id, attempt) DO NOTHING"),
    ("takes another order for the ended one", "WHERE orders.order_id = ending.order_id AND orders.attempt", "WHERE orders.attempt"),
    ("takes an earlier attempt for the present one", "AND orders.attempt = ending.attempt"),
    ("takes another worker's claim for its own", "AND orders.worker_id = %(worker_id)s AND orders.status = 'processing') AS busy", "AND orders.status = 'processing') AS busy"),
    ("takes what ended for busy", "AND orders.status = 'processing') AS busy", ") AS busy"),
    ("forgets an earlier attempt beside the present one", "(order_id, attempt) NOT IN (SELECT order_id, attempt FROM moved)", "order_id <> ALL (ARRAY (SELECT order_id FROM moved))"),
)  # fmt: skip

RETURN_DUE = _of(
    retries,
    "RETURN_DUE",
    (
        "returns what it has not locked",
        "WHERE order_id = ANY (ARRAY (SELECT order_id FROM due)) AND",
        "WHERE",
    ),
    (
        "returns before it is due",
        "WHERE retry_at <= (SELECT clock_timestamp())",
        "WHERE retry_at IS NOT NULL",
    ),
    ("waits for the row", LOCK, "FOR NO KEY UPDATE"),
    ("is stopped by a foreign key", LOCK, "FOR UPDATE SKIP LOCKED"),
    ("locks nothing", LOCK),
    ("forgets when it entered the line", "queued_at = clock_timestamp(), "),
    (
        "asks for no state",
        "AND status = 'retrying'",
        "",
        "a constraint allows `retry_at` in retrying only; so the statement can be read by itself",
    ),
)

DECLARE_DEAD = _of(
    rescue,
    "_DECLARE_DEAD",
    ("declares the dead dead again", "WHERE dead_at IS NULL AND lease_seconds < now.watched_seconds", "WHERE lease_seconds < now.watched_seconds"),
    ("judges who was watched for too short a time", "AND lease_seconds < now.watched_seconds"),
    ("judges on a server just started", "LEAST(%(watched_seconds)s, EXTRACT(epoch FROM clock_timestamp() - pg_postmaster_start_time()))", "%(watched_seconds)s"),
    ("takes a lease for over that it can't judge yet", "lease_seconds < %(running_seconds)s AND heartbeat_at + make_interval(secs => lease_seconds) < now.at AS lease_over", "heartbeat_at + make_interval(secs => lease_seconds) < now.at AS lease_over"),
    ("takes every lease for over that it can judge", "AND heartbeat_at + make_interval(secs => lease_seconds) < now.at AS lease_over", "AS lease_over"),
    ("suspects by a lease that it can't judge yet", "(lease_seconds < %(running_seconds)s AND heartbeat_at", "(heartbeat_at"),
    ("suspects whoever has a lease", "AND heartbeat_at + make_interval(secs => lease_seconds) < now.at) OR", ") OR"),
    ("goes by the sessions alone", "CASE WHEN lease_over OR session_lost_at", "CASE WHEN session_lost_at"),
    ("ignores the sessions", "OR (session_key IS NOT NULL AND session_key <> ALL (ARRAY (SELECT session_key FROM sessions)))"),
    ("suspects a worker behind a pooler", "session_key IS NOT NULL AND session_key <> ALL", "session_key <> ALL"),
    ("suspects who holds the session", "AND session_key <> ALL (ARRAY (SELECT session_key FROM sessions))"),
    (
        "takes another database's locks for sessions",
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        "",
        "a life has one database only (test_rescue.py has two)",
    ),
    ("declares dead whom it has not locked", "FROM suspects WHERE workers.worker_id = suspects.worker_id", "FROM suspects"),
    ("waits for the row", LOCK_WORKERS, "FOR NO KEY UPDATE OF workers"),
    ("locks nothing", LOCK_WORKERS),
    ("counts from the last look", "COALESCE(session_lost_at, at)", "at"),
    ("gives a lost session no grace", "<= at - INTERVAL '2.0 seconds'", "<= at"),
    ("gives a lost session too much grace", "<= at - INTERVAL '2.0 seconds'", "< at - INTERVAL '2.0 seconds'"),
)  # fmt: skip

SWEEP = _of(
    rescue,
    "SWEEP",
    (
        "sweeps the living",
        "WHERE dead_at IS NOT NULL AND swept_at IS NULL",
        "WHERE swept_at IS NULL",
        "the living have no last claim, and nothing is earlier than that; so the statement can be read by itself",
    ),
    ("sweeps for ever", "WHERE dead_at IS NOT NULL AND swept_at IS NULL", "WHERE dead_at IS NOT NULL"),
    ("takes anybody's orders", "WHERE orders.worker_id = dead.worker_id AND", "WHERE"),
    ("reads from the beginning", "AND orders.started_at >= dead.first_claim_at"),
    ("takes claims from after its last moment", "AND orders.started_at <= dead.last_claim_at"),
    ("takes orders in any state", "AND orders.status = 'processing' ORDER BY", "ORDER BY"),
    ("waits for the row", LOCK_ORDERS, "FOR NO KEY UPDATE OF orders"),
    ("is stopped by a foreign key", LOCK_ORDERS, "FOR UPDATE OF orders SKIP LOCKED"),
    ("locks nothing", LOCK_ORDERS),
    ("forgets the wish to cancel", "WHEN orders.cancel_requested_at IS NOT NULL THEN 'cancelled'"),
    ("fails what has no attempt left never", "WHEN orders.attempt >= LEAST(orders.attempt_limit, 1000000) THEN 'failed'"),
    ("retries what was rescued", "WHEN outcome = 'rescued' THEN 'pending'"),
    ("counts no rescue", "LEAST(COALESCE(rescues, 0), orders.attempt) + 1", "rescues"),
    ("counts a rescue as the second", "COALESCE(rescues, 0)", "COALESCE(rescues, 1)"),
    ("records no attempt", "ON CONFLICT", "WHERE false ON CONFLICT"),
)  # fmt: skip

SWEPT = _of(
    rescue,
    "SWEPT",
    ("is done before the last claim can come", "WHERE dead_at < clock_timestamp() - make_interval(secs => 2 * lease_seconds)", "WHERE dead_at IS NOT NULL"),
    ("is done again and again", "AND swept_at IS NULL"),
    ("looks at anybody's orders", "WHERE orders.worker_id = workers.worker_id AND", "WHERE"),
    ("looks at orders in any state", "AND orders.status = 'processing'"),
    ("reads from the beginning", "AND orders.started_at >= COALESCE(workers.oldest_claim_at, '-infinity')"),
    ("looks at claims from after its last moment", "AND orders.started_at <= workers.dead_at + make_interval(secs => 2 * lease_seconds)"),
    ("is done with orders in hand", "IS NULL LIMIT 1000 FOR", "IS NULL OR true LIMIT 1000 FOR"),
    ("stumbles over two orders in hand", "LIMIT 1) IS NULL", ") IS NULL"),
    ("is done with whom it has not locked", "WHERE worker_id = ANY (ARRAY (SELECT worker_id FROM swept))"),
    ("waits for the row", LOCK, "FOR NO KEY UPDATE"),
    ("locks nothing", LOCK),
)  # fmt: skip

PATROL = _of(
    rescue,
    "PATROL",
    ("begins at the beginning", "WHERE started_at > %(after)s", "WHERE started_at IS NOT NULL"),
    ("takes orders of the living", "WHERE workers.worker_id = page.worker_id AND workers.dead_at IS NULL)", "WHERE false)"),
    ("leaves the orders of the dead", "AND workers.dead_at IS NULL"),
    ("leaves the orders of the dead while anybody lives", "workers.worker_id = page.worker_id AND workers.dead_at IS NULL)", "workers.dead_at IS NULL)"),
    (
        "pages through any state",
        "WHERE status = 'processing' AND NOT EXISTS",
        "WHERE NOT EXISTS",
        "asked again where the row is locked; here it keeps the finished ones from filling the page",
    ),
    (
        "locks in any state",
        "AND orders.status = 'processing' ORDER BY",
        "ORDER BY",
        "asked before; here it is for what changes between the look and the lock (test_rescue.py)",
    ),
    (
        "takes a later attempt",
        "JOIN orphaned USING (order_id, attempt)",
        "JOIN orphaned USING (order_id)",
        "for what changes between the look and the lock (test_rescue.py)",
    ),
    ("waits for the row", LOCK_ORDERS, "FOR NO KEY UPDATE OF orders"),
    ("is stopped by a foreign key", LOCK_ORDERS, "FOR UPDATE OF orders SKIP LOCKED"),
    ("locks nothing", LOCK_ORDERS),
    ("retries what was rescued", "WHEN outcome = 'rescued' THEN 'pending'"),
    ("records no attempt", "ON CONFLICT", "WHERE false ON CONFLICT"),
)  # fmt: skip

WORKERS = [
    *_of(
        workers,
        "_BEAT",
        ("renews everybody's lease", "WHERE worker_id = %(worker_id)s AND dead_at IS NULL FOR NO KEY", "WHERE dead_at IS NULL FOR NO KEY"),
        ("renews leases that it has not locked", "WHERE worker_id = ANY (ARRAY (SELECT worker_id FROM held)) RETURNING", "RETURNING"),
        ("wakes the dead", "AND dead_at IS NULL FOR NO KEY", "FOR NO KEY"),
        ("waits for the row", LOCK, "FOR NO KEY UPDATE"),
        ("locks nothing", LOCK),
        ("renews no lease", "heartbeat_at = clock_timestamp(), "),
        ("moves the oldest claim back", "GREATEST(oldest_claim_at, %(oldest_claim_at)s::timestamptz)", "%(oldest_claim_at)s::timestamptz"),
        ("forgives no lost session", ", session_lost_at = NULL"),
        ("counts a dead worker as alive", "AND dead_at IS NULL), EXISTS", "), EXISTS"),
        ("counts the dead as alive while anybody lives", "WHERE worker_id = %(worker_id)s AND dead_at IS NULL), EXISTS", "WHERE dead_at IS NULL), EXISTS"),
        ("cancels orders that are not held", "WHERE order_id = ANY (ARRAY (SELECT unnest(%(held)s::uuid[]))) AND", "WHERE"),
        ("cancels another worker's orders", "AND worker_id = %(worker_id)s AND cancel_requested_at", "AND cancel_requested_at"),
        ("cancels what nobody wants cancelled", "AND cancel_requested_at IS NOT NULL"),
    ),
    *_of(
        workers,
        "_LEAVE",
        ("takes everybody along", "WHERE worker_id = %(worker_id)s"),
        ("dies twice", "COALESCE(dead_at, clock_timestamp())", "clock_timestamp()"),
    ),
    *_of(
        workers,
        "_HOLD_SESSION",
        ("holds everybody's session", "WHERE worker_id = %(worker_id)s AND", "WHERE"),
        ("claims a session that another has", "AND pg_try_advisory_lock(key)"),
        ("forgives no lost session", ", session_lost_at = NULL"),
    ),
    *_of(
        workers,
        "_PRUNE",
        ("forgets the dead at once", "WHERE swept_at < clock_timestamp() - INTERVAL '1 day'", "WHERE swept_at IS NOT NULL"),
        ("forgets whom it has not locked", "WHERE worker_id = ANY (ARRAY (SELECT worker_id FROM old))"),
        ("forgets the living", "WHERE swept_at < clock_timestamp() - INTERVAL '1 day' LIMIT", "LIMIT"),
        ("waits for the row", "FOR UPDATE SKIP LOCKED", "FOR UPDATE"),
        ("locks nothing", "FOR UPDATE SKIP LOCKED"),
    ),
]  # fmt: skip

PEOPLE = [
    *_of(
        cancel,
        "_CANCEL",
        ("cancels every order", "WHERE order_id = %(order_id)s AND", "WHERE"),
        ("cancels what it has not locked", f"WHERE order_id = {HELD_ORDERS}"),
        ("cancels what is final", "AND status IN ('pending', 'retrying', 'processing')"),
        ("cancels what is being worked on", "CASE status WHEN 'processing' THEN 'processing' ELSE 'cancelled' END", "'cancelled'"),
        ("asks again", "COALESCE(cancel_requested_at, clock_timestamp())", "clock_timestamp()"),
        ("waits for the row", LOCK, "FOR NO KEY UPDATE"),
        ("is stopped by a foreign key", LOCK, "FOR UPDATE SKIP LOCKED"),
        ("locks nothing", LOCK),
    ),
    *_of(
        redrive,
        "_REDRIVE",
        ("redrives every order", "WHERE order_id = %(order_id)s AND", "WHERE"),
        ("redrives what it has not locked", f"WHERE order_id = {HELD_ORDERS}"),
        ("redrives what has not failed", "AND status = 'failed'"),
        ("redrives after the last attempt", "AND attempt < 1000000"),
        ("keeps the old place in line", "seq = DEFAULT, "),
        ("grants no new attempts", "attempt_limit = attempt + %(attempts)s", "attempt_limit = %(attempts)s"),
        ("starts the attempts anew", "worker_id = NULL", "attempt = 0, worker_id = NULL"),
        ("keeps the wish to cancel", ", cancel_requested_at = NULL"),
        ("waits for the row", LOCK, "FOR NO KEY UPDATE"),
        ("is stopped by a foreign key", LOCK, "FOR UPDATE SKIP LOCKED"),
        ("locks nothing", LOCK),
    ),
    *_of(
        redrive,
        "_FIND_FAILED",
        ("finds what has not failed", "WHERE status = 'failed' AND", "WHERE"),
        ("finds what fails later", "AND finished_at <= statement_timestamp()"),
        ("finds every error", "AND (%(error_prefix)s::text IS NULL OR starts_with(last_error, %(error_prefix)s::text))"),
        ("finds nothing without a prefix", "%(error_prefix)s::text IS NULL OR "),
        ("finds the last in line first", "ORDER BY seq, order_id", "ORDER BY seq DESC, order_id"),
    ),
    *_of(
        redrive,
        "_REDRIVE_FAILED",
        ("redrives every failed order", "WHERE order_id = ANY (%(order_ids)s) AND", "WHERE"),
        ("redrives what has not failed", "AND status = 'failed'"),
        ("redrives what has failed again since", "AND finished_at <= %(at)s"),
        ("redrives after the last attempt", "AND attempt < 1000000"),
        ("redrives the last in line first", "ORDER BY seq, order_id", "ORDER BY seq DESC, order_id"),
        ("redrives what it has not locked", "WHERE orders.order_id = drawn.order_id"),
        ("keeps the old place in line", "seq = ticket, "),
        ("grants no new attempts", "attempt_limit = attempt + %(attempts)s", "attempt_limit = %(attempts)s"),
        ("starts the attempts anew", "worker_id = NULL", "attempt = 0, worker_id = NULL"),
        ("keeps the wish to cancel", ", cancel_requested_at = NULL"),
        ("waits for the row", LOCK, "FOR NO KEY UPDATE"),
        ("is stopped by a foreign key", LOCK, "FOR UPDATE SKIP LOCKED"),
        ("locks nothing", LOCK),
    ),
    *_of(
        pause,
        "_SWITCH",
        ("pauses anew", "COALESCE(paused_at, clock_timestamp())", "clock_timestamp()"),
        ("pauses when it is to resume", "CASE WHEN %(pause)s THEN COALESCE(paused_at, clock_timestamp()) END", "COALESCE(paused_at, clock_timestamp())"),
        ("switches what it has not locked", "WHERE only_row = ANY (ARRAY (SELECT only_row FROM held))"),
        ("waits for the row", LOCK, "FOR NO KEY UPDATE"),
        ("locks nothing", LOCK),
    ),
    *_of(
        pause,
        "_RESTORE",
        ("restores nothing", "WHERE NOT EXISTS", "WHERE false AND NOT EXISTS"),
        ("restores what is there", "WHERE NOT EXISTS (SELECT FROM queue)"),
        ("pauses when it is to resume", "CASE WHEN %(pause)s THEN clock_timestamp() END", "clock_timestamp()"),
    ),
]  # fmt: skip

MUTATIONS = (
    EXCHANGE
    + EXCHANGE_ALONE
    + RECOVER_CLAIMS
    + COMPLETION
    + END
    + RETURN_DUE
    + DECLARE_DEAD
    + SWEEP
    + SWEPT
    + PATROL
    + WORKERS
    + PEOPLE
)
