import json
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from schema.queue import cancel, redrive
from schema.reports import lists
from schema.reports.show import show
from schema.states import Outcome, Status
from tests.rows import Queue


def ids(page: lists.Page) -> list[UUID]:
    return [UUID(json.loads(order)["order_id"]) for order in page.orders]


def all_pages(queue: Queue, *, limit: int, **filters: Any) -> list[UUID]:
    page = lists.page(queue.connection, limit=limit, **filters)
    found = ids(page)
    while page.next is not None:
        page = lists.page(queue.connection, limit=limit, after=page.next, **filters)
        assert 0 < len(page.orders) <= limit
        found += ids(page)
    return found


@pytest.mark.parametrize("limit", [1, 2, 7, 8, 500])
def test_pages_have_each_order_once_those_created_last_first(queue: Queue, limit: int) -> None:
    # Made by hand, with ids of version 4; three at one time.
    minutes = [4, 1, 1, 1, 7, 2, 5, 3]
    placed = [(minute, queue.insert("failed", order_id=uuid4())) for minute in minutes]
    for minute, order_id in placed:
        queue.change(order_id, f"created_at = TIMESTAMPTZ '2031-05-01' + {minute} * INTERVAL '1 minute'")

    assert all_pages(queue, limit=limit) == [order_id for _, order_id in sorted(placed, reverse=True)]


def test_order_is_listed_as_it_is_shown(queue: Queue) -> None:
    order_id = queue.insert("failed", user_id='ada "\x1b', item_ids=["tea", ""])

    assert lists.page(queue.connection).orders == list(show(queue.connection, [order_id]).values())


def test_order_that_comes_in_meanwhile_moves_no_other_to_another_page(queue: Queue) -> None:
    first, second, third = (queue.insert("failed") for _ in range(3))
    page = lists.page(queue.connection, limit=1)

    queue.insert("failed")

    assert ids(page) == [third]
    assert ids(lists.page(queue.connection, limit=5, after=page.next)) == [second, first]


@pytest.mark.parametrize("status", list(Status))
def test_list_of_one_state_or_user_has_no_others(queue: Queue, status: Status) -> None:
    queue.worker()
    of_state = {other: queue.insert(other, user_id="bob") for other in Status}
    of_ada = queue.insert(status, user_id="ada")

    assert all_pages(queue, limit=1, statuses=[status]) == [of_ada, of_state[status]]
    assert all_pages(queue, limit=1, statuses=[status], user_id="ada") == [of_ada]
    assert all_pages(queue, limit=1, user_id="ada") == [of_ada]
    assert all_pages(queue, limit=1, statuses=[status], user_id="eve") == []


def test_list_of_several_states_has_them_all(queue: Queue) -> None:
    failed, _, pending = queue.insert("failed"), queue.insert("completed"), queue.insert()

    assert all_pages(queue, limit=1, statuses=[Status.PENDING, Status.FAILED]) == [pending, failed]


def test_pending_orders_stand_as_in_the_line_its_end_first(queue: Queue) -> None:
    redriven, first, second = queue.insert("failed"), queue.insert(), queue.insert()
    queue.change(second, "created_at = '2031-05-01'")
    redrive.redrive(queue.connection, redriven, attempts=5)

    assert all_pages(queue, limit=1, statuses=[Status.PENDING]) == [redriven, second, first]


def test_processing_orders_are_found_also_a_dead_workers(queue: Queue) -> None:
    queue.line(3)
    queue.worker("dead", oldest_claim_at="now")
    (lost,) = queue.claim("dead")
    queue.change_worker("dead", "dead_at = clock_timestamp()")
    queue.worker("living", oldest_claim_at="now")
    held, ended = queue.claim("living", free=2)
    queue.end(ended.fence, outcome=Outcome.RAISED, worker_id="living")

    assert all_pages(queue, limit=1, statuses=[Status.PROCESSING]) == [held.order_id, lost.order_id]


def test_page_goes_on_after_an_order_that_has_left_the_list(queue: Queue) -> None:
    first, second, third = queue.line(3)
    page = lists.page(queue.connection, statuses=[Status.PENDING], limit=1)
    cancel.cancel(queue.connection, third)

    after = lists.page(queue.connection, statuses=[Status.PENDING], limit=5, after=page.next)

    assert (ids(page), ids(after)) == ([third], [second, first])


@pytest.mark.parametrize("statuses", [[], [Status.PENDING], [Status.PROCESSING]])
@pytest.mark.parametrize(
    "after",
    [
        lambda key, _: key,
        lambda _, order_id: order_id,
        lambda key, _: f"{key},x",
        lambda _, order_id: f"infinity,{order_id}",
        lambda _, order_id: f"-1,{order_id}",
        lambda _, order_id: f"²,{order_id}",
        lambda _, order_id: f"9223372036854775808,{order_id}",
        lambda _, order_id: f"{'9' * 5000},{order_id}",
        lambda _, order_id: f"2031-13-01T00:00:00Z,{order_id}",
        lambda _, order_id: f",{order_id}",
    ],
)
def test_end_of_no_page_is_refused(
    queue: Queue, statuses: list[Status], after: Callable[[str, str], str]
) -> None:
    queue.line(2)
    key, _, order_id = str(lists.page(queue.connection, limit=1).next).partition(",")

    with pytest.raises(lists.CursorError, match="is not the end of a page of this list"):
        lists.page(queue.connection, statuses=statuses, after=after(key, order_id))


def test_end_of_a_page_in_line_is_none_of_another_list(queue: Queue) -> None:
    queue.line(2)
    in_line = lists.page(queue.connection, statuses=[Status.PENDING], limit=1)
    created = lists.page(queue.connection, limit=1)

    with pytest.raises(lists.CursorError):
        lists.page(queue.connection, after=in_line.next)
    with pytest.raises(lists.CursorError):
        lists.page(queue.connection, statuses=[Status.PENDING], after=created.next)
