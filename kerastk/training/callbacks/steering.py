"""What changes the course of a training, or ends it."""

import keras
import numpy as np

from kerastk.errors import Diverged, RecipeError
from kerastk.training.callbacks.judging import MONITOR, Validation
from kerastk.training.callbacks.memory import Remembering
from kerastk.training.callbacks.rows import EpochRows
from kerastk.training.phases import highest_rate, inner_optimizers


class Guard(Remembering, keras.callbacks.Callback):
    """Raises `Diverged` at the first batch after which the loss is no longer a number, or an epoch's figure.

    In a run it comes after `Validation`, and before what writes. `rollbacks` counts how often the run went back for it,
    each time to half the learning rate. `monitor` is the epoch's figure, which is not looked at where there is none.
    """

    remembered = ("rollbacks",)

    def __init__(self, monitor: str = MONITOR) -> None:
        super().__init__()
        self.monitor, self.rollbacks = monitor, 0
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Note the epoch."""
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Look at the loss (Keras gives the mean over the epoch so far, which a NaN does not leave again)."""
        if not np.isfinite(float(logs["loss"])):
            self._refuse(f"the loss is no longer a number at epoch {self._epoch}, batch {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Look at what the epoch's last batch has left behind."""
        if not np.isfinite((logs or {}).get(self.monitor, 0.0)):
            self._refuse(f"{self.monitor} is no longer a number after epoch {self._epoch}")

    def _refuse(self, what: str) -> None:
        rate = highest_rate(self.model.optimizer)
        raise Diverged(
            f"{what}, learning rate up to {rate:.2g}; try --learning-rate {rate / 10:.1g} or --precision float32"
        )


class Plateau(Remembering, keras.callbacks.Callback):
    """Lowers the learning rate to `factor` of it after `patience` epochs of a phase without a lower `monitor`.

    During the first `warmup_steps` batches of a phase it rises linearly from 0; a run's phases set `warmup_steps`. The
    optimizer, or each one inside of it, must have a number as its learning rate, and no schedule.
    """

    remembered = ("_scale", "_lowest", "_waited", "_step")

    def __init__(self, factor: float, patience: int, *, monitor: str = MONITOR, warmup_steps: int = 0):
        super().__init__()
        self.factor, self.patience, self.monitor, self.warmup_steps = factor, patience, monitor, warmup_steps
        self._scale, self._lowest, self._waited, self._step = 1.0, float("inf"), 0, 0
        self._rates: list[float] = []

    def on_train_begin(self, logs: dict | None = None) -> None:
        """A phase begins, with an optimizer of its own."""
        self._scale, self._lowest, self._waited, self._step = 1.0, float("inf"), 0, 0
        self._rates = [float(each.learning_rate) for each in inner_optimizers(self.model.optimizer)]

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """The warm-up."""
        if self._step <= self.warmup_steps:
            # JAX's trainer keeps the variables' values to itself.
            getattr(self.model, "jax_state_sync", bool)()
            self._set()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Count."""
        self._step += 1

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Compare, and lower."""
        if self.monitor not in (logs or {}):
            raise RecipeError(f"Plateau watches {self.monitor}; this fit gives {', '.join(logs or {}) or 'nothing'}.")
        value = logs[self.monitor]
        self._waited = 0 if value < self._lowest else self._waited + 1
        self._lowest = min(self._lowest, value)
        if self._waited >= self.patience:
            self._scale, self._waited = self._scale * self.factor, 0
            self._set()

    def _set(self) -> None:
        share = self._scale * min(1.0, self._step / self.warmup_steps) if self.warmup_steps else self._scale
        for each, rate in zip(inner_optimizers(self.model.optimizer), self._rates, strict=True):
            each.learning_rate.assign(rate * share)


class Deadline(Remembering, keras.callbacks.Callback):
    """Stops the training, in the middle of an epoch if need be, so that the run is over `limit` seconds after it began.

    `reserve` is how many of these seconds measuring and writing will take. What was trained is validated, as after a
    whole epoch. `up` says that it has stopped the training.
    """

    remembered = ("up",)

    def __init__(self, limit: float, rows: EpochRows, validation: Validation):
        super().__init__()
        self.limit, self.reserve, self.up = limit, 0.0, False
        self._rows, self._validation = rows, validation

    @property
    def near(self) -> bool:
        """Whether there is no time for another batch."""
        return self._rows.spent + self._validation.seconds + self.reserve >= self.limit

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Look at the clock."""
        self._look()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Look at the clock, the last validation in mind."""
        self._look()

    def _look(self) -> None:
        if self.near:
            self.up = self.model.stop_training = True
