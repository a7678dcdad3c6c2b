import signal
import threading

import pytest

from schema.runtime.signals import StopSignals


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


pytestmark = pytest.mark.usefixtures("keep_signal_handlers")


def receive(stop: StopSignals, number: int) -> None:
    """Nobody has asked to be called yet, so a signal ends the process."""
    with pytest.raises(SystemExit) as caught:
        stop.receive(number, None)
    assert caught.value.code == 0


def test_nothing_is_requested_before_a_signal(clock: Clock) -> None:
    stop = StopSignals(clock)

    assert not stop.requested
    assert not stop.impatient


def test_one_signal_asks_to_stop_patiently(clock: Clock) -> None:
    stop = StopSignals(clock)

    receive(stop, signal.SIGTERM)

    assert stop.requested
    assert not stop.impatient


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_within_a_second_is_the_first_over_again(clock: Clock, second: int) -> None:
    stop = StopSignals(clock)

    receive(stop, signal.SIGINT)
    clock.now = 1.0
    receive(stop, second)

    assert not stop.impatient


def test_second_signal_after_a_second_is_impatience(clock: Clock) -> None:
    stop = StopSignals(clock)

    receive(stop, signal.SIGTERM)
    clock.now = 1.1
    receive(stop, signal.SIGTERM)

    assert stop.impatient


def test_signal_is_passed_on_while_the_main_thread_waits_for_a_lock() -> None:
    stop = StopSignals()
    stop.install()
    called = threading.Event()
    stop.call(called.set)

    signal.raise_signal(signal.SIGTERM)

    assert called.wait(timeout=30)
    assert stop.requested


def test_ending_process_is_not_disturbed_by_a_late_signal() -> None:
    stop = StopSignals()
    stop.install()
    stop.ignore()

    signal.raise_signal(signal.SIGTERM)

    assert not stop.requested
