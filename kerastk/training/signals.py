"""SIGTERM and Ctrl-C while a run trains: it stops between two batches, with everything kept."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from kerastk.errors import Stopped


class Ended(Exception):
    """Ctrl-C: end the run here, with the best model so far."""


class Signals:
    """What the process was told. SIGTERM becomes `Stopped`, the first SIGINT `Ended`, the second KeyboardInterrupt.

    They are raised where they come, except inside `deferred`, where `check` raises them: fitting ends its batch first.
    Outside the main thread, where Python hands out no signals, it does nothing.
    """

    def __init__(self, say: Callable[[str], None] = lambda text: None):
        self._say = say
        self._told: BaseException | None = None
        self._deferred = False
        self._interrupted = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            handlers = {signal.SIGTERM: self._terminate, signal.SIGINT: self._interrupt}
            self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Signals wait for the next `check`."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        self.check()

    @property
    def told(self) -> bool:
        """Whether `check` would raise."""
        return self._told is not None

    def check(self) -> None:
        """Raise what the process was told, if anything, once."""
        told, self._told = self._told, None
        if told is not None:
            raise told

    def _terminate(self, number: int, frame: object) -> None:
        self._tell(Stopped("stopped by SIGTERM"))

    def _interrupt(self, number: int, frame: object) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True
        self._say("ending after this batch with the best model so far; Ctrl-C again leaves at once.")
        self._tell(Ended())

    def _tell(self, what: BaseException) -> None:
        if not self._deferred:
            raise what
        # Who stops it wants the rest later; Ctrl-C would end it for good.
        if not isinstance(self._told, Stopped):
            self._told = what


@contextlib.contextmanager
def dispensable(warn: Callable[[str], None], without: str) -> Iterator[None]:
    """A fault in what only tells about a run becomes a warning: it must not cost the run, now and at each resume."""
    try:
        yield
    except (Ended, Stopped, OSError):
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        warn(f"{without} ({reason})")
