import signal
from collections.abc import Iterator

import pytest

from orders_api.stopping import StopSignals


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stop(clock: Clock) -> StopSignals:
    stop = StopSignals(clock)
    stop.call(lambda: None)
    return stop


def test_nothing_is_requested_before_a_signal(stop: StopSignals) -> None:
    assert not stop.requested
    assert not stop.impatient


def test_one_signal_asks_to_stop_patiently(stop: StopSignals) -> None:
    stop.receive(signal.SIGTERM, None)

    assert stop.requested
    assert not stop.impatient


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_within_a_second_is_the_first_over_again(
    stop: StopSignals, clock: Clock, second: int
) -> None:
    stop.receive(signal.SIGINT, None)
    clock.now = 0.9
    stop.receive(second, None)

    assert not stop.impatient


def test_second_signal_after_a_second_is_impatience(stop: StopSignals, clock: Clock) -> None:
    stop.receive(signal.SIGTERM, None)
    clock.now = 1.1
    stop.receive(signal.SIGTERM, None)

    assert stop.impatient


def test_every_signal_is_passed_on(stop: StopSignals) -> None:
    calls: list[str] = []
    stop.call(lambda: calls.append("called"))

    stop.receive(signal.SIGTERM, None)
    stop.receive(signal.SIGTERM, None)

    assert calls == ["called", "called"]


@pytest.fixture
def keep_handlers() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("keep_handlers")
def test_signal_before_anything_is_served_ends_the_process_with_status_0() -> None:
    with pytest.raises(SystemExit) as caught:
        StopSignals().receive(signal.SIGTERM, None)

    assert caught.value.code == 0


@pytest.mark.usefixtures("keep_handlers")
def test_ending_process_is_not_disturbed_by_a_late_signal(stop: StopSignals) -> None:
    stop.install()
    stop.ignore()

    signal.raise_signal(signal.SIGTERM)

    assert not stop.requested
