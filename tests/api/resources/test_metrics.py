from falcon.testing import TestClient

from schema.runtime.connection import Connection

INSERT = (
    "INSERT INTO orders (order_id, user_id, item_ids, total_amount, status,"
    " worker_id, started_at, finished_at, retry_at, created_at)"
)


def fill(connection: Connection, count: int, status: str, **columns: str) -> None:
    values = {
        "worker_id": "NULL",
        "started_at": "NULL",
        "finished_at": "NULL",
        "retry_at": "NULL",
        "created_at": "now()",
    }
    values |= columns
    connection.execute(
        f"{INSERT} SELECT gen_random_uuid(), 'ada', '{{tea}}', 1, '{status}', {', '.join(values.values())}"
        f" FROM generate_series(1, {count})"
    )


def test_empty_queue_has_zeros_everywhere(client: TestClient) -> None:
    shown = client.simulate_get("/metrics").json

    assert shown["total_orders"] == 0
    assert set(shown["status_counts"].values()) == {0}
    assert shown["average_processing_time"] == 0
    assert shown["estimated_processing_time"] == 0


def test_living_workers_are_shown_with_what_they_run(client: TestClient, connection: Connection) -> None:
    nobody = client.simulate_get("/metrics").json
    connection.execute(
        "INSERT INTO workers (worker_id, slots, handler, version)"
        " VALUES ('a', 3, 'shop:work', '1.0'), ('b', 1, 'shop:work', '1.0'), ('c', 2, NULL, NULL)"
    )

    shown = client.simulate_get("/metrics").json

    assert (nobody["live_workers"], nobody["live_slots"], nobody["live_handlers"]) == (0, 0, [])
    assert (shown["live_workers"], shown["live_slots"]) == (3, 6)
    assert shown["live_handlers"] == [
        {"handler": "shop:work", "version": "1.0", "workers": 2, "slots": 4},
        {"handler": None, "version": None, "workers": 1, "slots": 2},
    ]


def test_both_addresses_give_the_same_answer(client: TestClient, connection: Connection) -> None:
    fill(connection, 3, "pending")

    assert client.simulate_get("/metrics").json == client.simulate_get("/orders/metrics").json


def test_sample_numbers_of_the_original_give_its_estimate(client: TestClient, connection: Connection) -> None:
    fill(connection, 1987, "pending")
    fill(connection, 1, "processing", worker_id="'w'", started_at="now()")

    shown = client.simulate_get("/metrics").json

    assert shown["estimated_processing_time"] == 3976
    assert shown["total_orders"] == 1988
    assert shown["status_counts"]["pending_orders"] == 1987
    assert shown["status_counts"]["processing_orders"] == 1


def test_every_state_has_a_count_of_its_own_and_the_total_has_them_all(
    client: TestClient, connection: Connection
) -> None:
    fill(connection, 1, "pending")
    fill(connection, 2, "processing", worker_id="'w'", started_at="now()")
    fill(connection, 3, "retrying", retry_at="now()")
    fill(connection, 4, "completed", finished_at="now()")
    fill(connection, 5, "failed", finished_at="now()")
    fill(connection, 6, "cancelled", finished_at="now()")

    shown = client.simulate_get("/orders/metrics").json

    assert shown["total_orders"] == 21
    assert shown["status_counts"] == {
        "pending_orders": 1,
        "processing_orders": 2,
        "retrying_orders": 3,
        "completed_orders": 4,
        "failed_orders": 5,
        "cancelled_orders": 6,
    }


def test_average_is_from_insert_to_completion_in_whole_seconds_rounded_half_up(
    client: TestClient, connection: Connection
) -> None:
    for seconds in ("10", "11"):
        fill(
            connection, 1, "completed",
            created_at="'2031-05-01 12:00:00'", finished_at=f"'2031-05-01 12:00:{seconds}'",
        )  # fmt: skip

    average = client.simulate_get("/metrics").json["average_processing_time"]

    assert average == 11
    assert isinstance(average, int)


def test_rates_percentiles_and_age_are_shown(client: TestClient, connection: Connection) -> None:
    fill(connection, 30, "pending")
    fill(
        connection, 3, "completed",
        created_at="now()", started_at="now() + INTERVAL '1.5 s'", finished_at="now() + INTERVAL '3.75 s'",
    )  # fmt: skip

    shown = client.simulate_get("/metrics").json

    assert shown["arrivals_per_second"] == 0.55
    assert shown["completions_per_second"] == 0
    assert shown["processing_seconds"] == {"p50": 2.25, "p95": 2.25, "p99": 2.25}
    assert set(shown["wait_seconds"]) == {"p50", "p95", "p99"}
    assert isinstance(shown["oldest_pending_seconds"], int)
