import sys
import threading
import tracemalloc

import pytest

from kerastk.cli import main
from kerastk.errors import KerastkError


@pytest.fixture(scope="session")
def bounded():
    """(value, error) of a call that must end soon and take little memory."""

    def call(function, *args, seconds=30, megabytes=40):
        ended = []

        def run():
            tracemalloc.start()
            try:
                ended.append((function(*args), None))
            except BaseException as error:
                ended.append((None, error))
            finally:
                ended.append(tracemalloc.get_traced_memory()[1] / 2**20)
                tracemalloc.stop()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(seconds)
        assert len(ended) == 2, f"still running after {seconds} s"
        outcome, peak = ended
        assert peak < megabytes, f"{peak:.0f} MiB"
        return outcome

    return call


@pytest.fixture(scope="session")
def refused(bounded):
    """The one line with which a call is refused, soon and in little memory."""

    def call(function, *args, kind=KerastkError, **limits):
        value, error = bounded(function, *args, **limits)
        if not isinstance(error, kind):
            raise AssertionError(f"got {value!r}") from error
        message = str(error)
        assert "\n" not in message
        assert len(message) < 1000, message
        return message

    return call


@pytest.fixture
def command(monkeypatch, capfd):
    """Runs a command that must fail with one line and exit code 2; returns the line."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["kerastk", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        assert (ended.value.code, out) == (2, "")
        assert err.startswith("kerastk: ")
        assert len(err.strip().splitlines()) == 1
        return err

    return run
