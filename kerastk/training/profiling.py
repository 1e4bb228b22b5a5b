"""A trace of some of a run's steps, for TensorBoard's profiler."""

import contextlib

import keras

from kerastk.errors import RecipeError
from kerastk.training.tensorboard import Events


def check_backend() -> None:
    """Refuse, with a RecipeError, a profile where another backend computes than the one that traces."""
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise RecipeError(f"profile needs the tensorflow backend; the run is on {backend}. Leave it out.")


def check_steps(first: int, steps: int) -> None:
    """Refuse, with a RecipeError, a profile that begins behind the end of a run of so many steps."""
    if first > steps:
        raise RecipeError(f"profile must begin within the run, which has {steps} steps; got {first}.")


class Profile(keras.callbacks.Callback):
    """Traces the steps `first` to `last` of a run, counted from 1; it comes behind `events`, whose writer does it.

    A resumed run traces what is left of them; what a killed one has traced of the same steps is replaced.
    """

    def __init__(self, first: int, last: int, events: Events):
        super().__init__()
        self._first, self._last, self._events = first, last, events
        self._begun = False
        self._step = contextlib.ExitStack()

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Begin the trace with its first step, and mark each."""
        step = self._events.step + 1
        if not self._first <= step <= self._last:
            return
        if not self._begun:
            self._begun = True
            self._events.writer.begin_trace()
        self._step.enter_context(self._events.writer.traced(step))

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """End it behind its last step."""
        self._step.close()
        if self._events.step == self._last:
            self._events.writer.end_trace()
