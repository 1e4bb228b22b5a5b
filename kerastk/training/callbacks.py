"""What happens beside the training: the best weights kept, early stopping, a row an epoch."""

import time
from collections.abc import Callable

import keras
import numpy as np

from kerastk.datasets.pipeline import Split

MONITOR = "val_cross_entropy"


class Best(keras.callbacks.Callback):
    """Keeps the weights with the lowest validation cross-entropy over all phases, and stops a phase without progress.

    One object serves the whole run; `on_train_begin` starts the patience anew, but never forgets the best.
    `source` is the whole model (the one that is fitted may be a part of it).
    """

    def __init__(self, source: keras.Model, patience: int):
        super().__init__()
        self.source = source
        self.patience = patience
        self.value = float("inf")
        self.epoch: int | None = None
        self._weights: list[np.ndarray] = []
        self._phase_value = float("inf")
        self._waited = 0

    def on_train_begin(self, logs: dict | None = None) -> None:
        """A phase begins."""
        self._phase_value, self._waited = float("inf"), 0

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Compare, keep, count."""
        value = float((logs or {})[MONITOR])
        if value < self.value:
            self.value, self.epoch = value, epoch
            self._weights = [np.array(variable) for variable in self.source.variables]
        if value < self._phase_value:
            self._phase_value, self._waited = value, 0
        else:
            self._waited += 1
            if self._waited >= self.patience:
                self.model.stop_training = True

    def restore(self) -> None:
        """Put the best weights into the source model."""
        for variable, value in zip(self.source.variables, self._weights, strict=True):
            variable.assign(value)


class EpochRows(keras.callbacks.Callback):
    """Makes a row of figures at the end of each epoch and hands it to each of `sinks`.

    A row holds phase, epoch (from 1, over all phases), seconds, learning_rate (the larger of the epoch's first and
    last), photos_per_second, wait_share (of the training time, waiting for data) and Keras's losses and metrics.
    """

    def __init__(self, split: Split, sinks: list[Callable[[dict], None]]):
        super().__init__()
        self.split = split
        self.sinks = sinks
        self.phase = ""
        self.rows: list[dict] = []

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Start the clock."""
        self._begin, self._trained = time.perf_counter(), None
        self._rate = float(self.model.optimizer.learning_rate)
        self.split.waited = 0.0

    def on_test_begin(self, logs: dict | None = None) -> None:
        """The training half of the epoch is over when validation begins."""
        if self._trained is None:
            self._trained = time.perf_counter() - self._begin
            self._waited = self.split.waited

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Make the row."""
        row = {
            "phase": self.phase,
            "epoch": epoch + 1,
            "seconds": time.perf_counter() - self._begin,
            "learning_rate": max(self._rate, float(self.model.optimizer.learning_rate)),
            "photos_per_second": self.split.steps * self.split.batch_size / self._trained,
            "wait_share": min(1.0, self._waited / self._trained),
            **{key: float(value) for key, value in (logs or {}).items()},
        }
        self.rows.append(row)
        for sink in self.sinks:
            sink(row)
