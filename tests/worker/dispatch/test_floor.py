import pytest

from orders_worker.dispatch.floor import LAG_SECONDS, RESCAN_SECONDS, RESCAN_SHARE, Floor


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def floor(clock: Clock) -> Floor:
    """A floor whose next look from the beginning is not due soon."""
    floor = Floor(clock)
    floor.begin()
    floor.learn([], filled=False)
    return floor


def exchange(
    floor: Floor, clock: Clock, tickets: list[int], *, filled: bool = True, seconds: float = 0.0
) -> int:
    began = floor.begin()
    clock.now += seconds
    floor.learn(tickets, filled=filled)
    return began


def test_first_exchange_looks_everywhere(clock: Clock) -> None:
    assert Floor(clock).begin() == 0


def test_floor_stays_a_lag_behind_what_was_claimed(floor: Floor, clock: Clock) -> None:
    assert exchange(floor, clock, [10, 11]) == 0
    assert exchange(floor, clock, [12]) == 0
    clock.now += LAG_SECONDS
    exchange(floor, clock, [13])
    assert floor.begin() == 0
    clock.now += LAG_SECONDS
    exchange(floor, clock, [14])
    assert floor.begin() == 13


def test_floor_moves_back_when_a_filled_exchange_ends_below_it(floor: Floor, clock: Clock) -> None:
    for ticket in (100, 101, 102, 103):
        exchange(floor, clock, [ticket])
        clock.now += LAG_SECONDS
    assert floor.begin() >= 101

    exchange(floor, clock, [50])

    assert floor.begin() == 51


def test_floor_keeps_its_height_when_the_line_was_emptied(floor: Floor, clock: Clock) -> None:
    for ticket in (100, 101, 102, 103):
        exchange(floor, clock, [ticket])
        clock.now += LAG_SECONDS
    before = floor.begin()

    exchange(floor, clock, [50], filled=False)
    exchange(floor, clock, [], filled=False)

    assert floor.begin() >= before


def test_whole_line_is_looked_through_often_enough_for_the_promise_of_half_a_second(
    floor: Floor, clock: Clock
) -> None:
    longest = since = 0.0
    for number in range(1000):
        if exchange(floor, clock, [number], seconds=0.007) == 0 and number > 50:
            longest, since = max(longest, clock.now - since), clock.now
        elif number <= 50:
            since = clock.now
    assert RESCAN_SECONDS <= longest < 0.4


def test_slow_rescans_take_no_more_than_their_share(floor: Floor, clock: Clock) -> None:
    for number in range(100):
        exchange(floor, clock, [number], seconds=0.005)
    rescanned = 0.0
    began = clock.now
    for number in range(100, 2500):
        slow = floor.begin() == 0
        seconds = 0.2 if slow else 0.005
        clock.now += seconds
        rescanned += seconds if slow else 0.0
        floor.learn([number], filled=True)
    assert rescanned / (clock.now - began) < RESCAN_SHARE * 1.5
