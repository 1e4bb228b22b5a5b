import os
import signal
import threading

import pytest

from kerastk.errors import Stopped
from kerastk.training.signals import Ended, Signals


@pytest.fixture(autouse=True)
def harmless(monkeypatch):
    """A signal that nobody takes must not end the tests."""

    def taken(number, frame):
        raise AssertionError(f"signal {number} came through")

    before = {number: signal.signal(number, taken) for number in (signal.SIGTERM, signal.SIGINT)}
    yield taken
    for number, handler in before.items():
        signal.signal(number, handler)


def tell(*numbers):
    for number in numbers:
        os.kill(os.getpid(), number)


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]


def test_outside_of_a_batch_sigterm_stops_at_once_with_an_exit_code_of_its_own():
    with Signals(), pytest.raises(Stopped, match="stopped by SIGTERM") as error:
        tell(signal.SIGTERM)
    assert error.value.exit_code == 75


def test_in_a_batch_sigterm_waits_for_the_check_and_is_told_once():
    done = []
    with Signals() as signals, signals.deferred():
        assert not signals.told
        signals.check()
        tell(signal.SIGTERM, signal.SIGTERM)
        done.append("the batch")
        assert signals.told
        with pytest.raises(Stopped):
            signals.check()
        assert not signals.told
        signals.check()
    assert done == ["the batch"]


def test_what_nobody_checked_is_raised_where_the_waiting_ends():
    done = []

    def batch():
        with signals.deferred():
            tell(signal.SIGTERM)
            done.append("the rest")

    with Signals() as signals:
        with pytest.raises(Stopped):
            batch()
        assert done == ["the rest"]
        # From here on they come at once again.
        with pytest.raises(Stopped):
            tell(signal.SIGTERM)


def test_an_error_in_the_batch_is_not_hidden_by_a_signal():
    def batch():
        with signals.deferred():
            tell(signal.SIGTERM)
            _ = 1 / 0

    with Signals() as signals:
        with pytest.raises(ZeroDivisionError):
            batch()
        with pytest.raises(Stopped):
            tell(signal.SIGTERM)


def test_the_first_ctrl_c_ends_and_says_so_the_second_leaves_even_in_a_batch():
    said, done = [], []

    def batch():
        with signals.deferred():
            tell(signal.SIGINT)
            done.append(signals.told)
            tell(signal.SIGINT)
            done.append("the rest")

    with Signals(said.append) as signals, pytest.raises(KeyboardInterrupt):
        batch()
    assert done == [True]
    assert len(said) == 1
    assert "Ctrl-C again leaves at once" in said[0]
    with Signals(said.append) as signals:
        with pytest.raises(Ended), signals.deferred():
            tell(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            tell(signal.SIGINT)


def test_a_machine_that_is_to_be_given_back_goes_before_ctrl_c():
    with Signals() as signals, pytest.raises(Stopped), signals.deferred():
        tell(signal.SIGINT, signal.SIGTERM)
    with Signals() as signals, pytest.raises(Stopped), signals.deferred():
        tell(signal.SIGTERM, signal.SIGINT)


def test_handlers_are_put_back_however_the_block_ends(harmless):
    with Signals():
        assert harmless not in handlers()
    assert handlers() == [harmless, harmless]
    with pytest.raises(ZeroDivisionError), Signals():
        _ = 1 / 0
    assert handlers() == [harmless, harmless]
    with pytest.raises(Stopped), Signals():
        tell(signal.SIGTERM)
    assert handlers() == [harmless, harmless]


def test_one_inside_another_gives_back_to_it(harmless):
    with Signals() as outer:
        mine = handlers()
        with Signals():
            assert handlers() != mine
        assert handlers() == mine
        with pytest.raises(Stopped), outer.deferred():
            tell(signal.SIGTERM)
    assert handlers() == [harmless, harmless]


def test_in_another_thread_it_does_nothing(harmless):
    found = []

    def work():
        with Signals() as signals, signals.deferred():
            found.append(handlers())
            signals.check()
            found.append(signals.told)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [[harmless, harmless], False]
    assert handlers() == [harmless, harmless]
