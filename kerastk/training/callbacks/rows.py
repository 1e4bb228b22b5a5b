"""A row of figures an epoch."""

import time
from collections.abc import Callable
from typing import Any

import keras

from kerastk.datasets.pipeline import Rows
from kerastk.training.phases import learning_rate


class EpochRows(keras.callbacks.Callback):
    """Makes a row of figures at the end of each epoch and hands it to each of `sinks`.

    `phase` and `split` are set before each phase. A row holds phase, epoch (from 1, over all phases), seconds,
    learning_rate (the larger of the epoch's first and last), photos_per_second (or what else the items are),
    wait_share (of the training time, waiting for data) and Keras's losses and metrics. `started` is when the run began,
    by `time.perf_counter`; `before` is what the processes before a resume took, in seconds.
    """

    def __init__(self, sinks: list[Callable[[dict], None]], started: float | None = None):
        super().__init__()
        self.split: Rows | None = None
        self.sinks = sinks
        self.phase = ""
        self.rows: list[dict] = []
        self._started, self.before = time.perf_counter() if started is None else started, 0.0
        self._begin, self._rate, self._batches = self._started, 0.0, 0

    @property
    def spent(self) -> float:
        """Seconds since the run began, those of the processes before a resume included."""
        return self.before + time.perf_counter() - self._started

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Start the clock."""
        self._begin, self._trained, self._batches = time.perf_counter(), 0.0, 0
        self._rate = learning_rate(self.model.optimizer)
        self.split.waited = 0.0

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint keeps: all rows, and in the middle of an epoch what its row will need."""
        return {
            "rows": self.rows, "spent": self.spent, "rate": self._rate, "batches": self._batches,
            "seconds": time.perf_counter() - self._begin, "waited": 0.0 if self.split is None else self.split.waited,
        }  # fmt: skip

    def set_state(self, state: dict[str, Any]) -> None:
        """What a checkpoint kept; in the middle of an epoch to be called after its beginning."""
        self.rows[:], self.before = state["rows"], state["spent"]
        self._rate, self._batches = state["rate"], state["batches"]
        self._begin = time.perf_counter() - state["seconds"]
        if self.split is not None:
            self.split.waited = state["waited"]

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """The training half of the epoch ends with its last batch."""
        self._batches += 1
        self._trained, self._waited = time.perf_counter() - self._begin, self.split.waited

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Make the row."""
        self.add(
            {
                "phase": self.phase,
                "epoch": epoch + 1,
                "seconds": time.perf_counter() - self._begin,
                "learning_rate": max(self._rate, learning_rate(self.model.optimizer)),
                f"{self.split.noun}_per_second": self._batches * self.split.per_step / self._trained,
                "wait_share": min(1.0, self._waited / self._trained),
                **{key: float(value) for key, value in (logs or {}).items()},
            }
        )

    def add(self, row: dict) -> None:
        """Keep a row and hand it on."""
        self.rows.append(row)
        for sink in self.sinks:
            sink(row)
