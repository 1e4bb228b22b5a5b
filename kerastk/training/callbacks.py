"""What happens beside the training: the best weights kept, early stopping, a row an epoch, a look at the loss.

A callback that has something to remember over a resume has `get_state`, a tree of plain values and arrays, and
`set_state`.
"""

import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kerastk.datasets.pipeline import Rows
from kerastk.errors import Diverged, RecipeError
from kerastk.evaluation.metrics import cross_entropy, equal_classes, temperature
from kerastk.evaluation.scores import of_rows
from kerastk.training.phases import inner_optimizers, learning_rate

# What photos are judged by.
MONITOR = "val_cross_entropy"


class Validation(keras.callbacks.Callback):
    """Adds a task's figures of the validation split to an epoch's logs (`figures`, their names with val_ in front).

    `monitor` is the one, the lower the better, by which the best model is chosen. `temperature` is what the logits
    should be divided by. `rows` is set before each phase; `seconds` is what the last look took.
    """

    monitor = ""

    def __init__(self) -> None:
        super().__init__()
        self.rows: Rows | None = None
        self.temperature = 1.0
        self.seconds = 0.0

    def figures(self) -> dict[str, float]:
        """What `model` makes of all of `rows`."""
        raise NotImplementedError

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Look at the validation split."""
        begin = time.perf_counter()
        logs |= self.figures()
        self.seconds = time.perf_counter() - begin


class ClassValidation(Validation):
    """val_accuracy, val_cross_entropy and val_loss of photos that have one class each.

    `val_cross_entropy` is that of the calibrated model: its logits divided by the temperature that fits the split best.
    Else label smoothing, which makes a network less sure than it is right, would decide which model is best. With
    `balanced` every class counts as much as any other in both, and in val_accuracy.
    """

    monitor = MONITOR

    def __init__(self, balanced: bool = False) -> None:
        super().__init__()
        self.balanced = balanced

    def figures(self) -> dict[str, float]:
        """Ask the model about all validation photos."""
        truth = self.rows.truth
        logits = of_rows(self.model, self.rows)
        one_hot = np.eye(logits.shape[1], dtype=np.float32)[truth]
        weights = equal_classes(truth) if self.balanced else None
        self.temperature = temperature(logits, truth, weights)
        return {
            "val_accuracy": float(np.average(logits.argmax(axis=1) == truth, weights=weights)),
            self.monitor: cross_entropy(logits / self.temperature, truth, weights),
            "val_loss": float(self.model.compute_loss(None, one_hot, logits)),
        }


class Best(keras.callbacks.Callback):
    """Keeps the weights with the lowest validation figure over all phases, and stops a phase without progress.

    One object serves the whole run; `on_train_begin` starts the patience anew, but never forgets the best. Of a phase
    the first `start_from_epoch` epochs and a progress of no more than `min_delta` do not count for the patience.
    `source` is the whole model (the one that is fitted may be a part of it). What is kept is the calibrated model: its
    head's weights are divided by the temperature that `validation` found.
    """

    def __init__(
        self, source: keras.Model, validation: Validation, patience: int, *, min_delta: float = 0.0,
        start_from_epoch: int = 0,
    ):  # fmt: skip
        super().__init__()
        self.source = source
        self.validation = validation
        self.patience, self.min_delta, self.start_from_epoch = patience, min_delta, start_from_epoch
        self.value = float("inf")
        self.epoch: int | None = None
        self.temperature = 1.0
        self._weights: list[np.ndarray] = []
        self._phase_value = float("inf")
        self._phase_epochs, self._waited = 0, 0

    def on_train_begin(self, logs: dict | None = None) -> None:
        """A phase begins."""
        self._phase_value, self._phase_epochs, self._waited = float("inf"), 0, 0

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Compare, keep, count."""
        value = float((logs or {})[self.validation.monitor])
        self.consider(value, epoch + 1, self.validation.temperature)
        self._phase_epochs += 1
        if value < self._phase_value - self.min_delta:
            self._phase_value, self._waited = value, 0
        elif self._phase_epochs > self.start_from_epoch:
            self._waited += 1
            if self._waited >= self.patience:
                self.model.stop_training = True

    def consider(self, value: float, epoch: int, temperature: float = 1.0) -> None:
        """Keep the weights if they are better than the best so far; `epoch` counts from 1, the probe is 0."""
        if value < self.value:
            self.value, self.epoch, self.temperature = value, epoch, temperature
            self._weights = _calibrated(self.source, temperature)

    def restore(self) -> None:
        """Put the best weights into the source model."""
        for variable, value in zip(self.source.variables, self._weights, strict=True):
            variable.assign(value)

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {name: getattr(self, name) for name in self._KEPT}

    def set_state(self, state: dict[str, Any]) -> None:
        """What a checkpoint kept."""
        for name in self._KEPT:
            setattr(self, name, state[name])

    _KEPT = ("value", "epoch", "temperature", "_weights", "_phase_value", "_phase_epochs", "_waited")


class Last(keras.callbacks.Callback):
    """Keeps the weights of the last epoch that was judged, calibrated as those of `Best` are; it stands beside it."""

    def __init__(self, source: keras.Model, validation: Validation):
        super().__init__()
        self.source, self.validation = source, validation
        self.epoch: int | None = None
        self.temperature = 1.0
        self._weights: list[np.ndarray] = []

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Keep."""
        self.keep(epoch + 1, self.validation.temperature)

    def keep(self, epoch: int, temperature: float = 1.0) -> None:
        """Keep the weights as they are; `epoch` counts from 1, the probe is 0."""
        self.epoch, self.temperature = epoch, temperature
        self._weights = _calibrated(self.source, temperature)

    def restore(self) -> None:
        """Put the last weights into the source model."""
        for variable, value in zip(self.source.variables, self._weights, strict=True):
            variable.assign(value)

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {name: getattr(self, name) for name in self._KEPT}

    def set_state(self, state: dict[str, Any]) -> None:
        """What a checkpoint kept."""
        for name in self._KEPT:
            setattr(self, name, state[name])

    _KEPT = ("epoch", "temperature", "_weights")


def _calibrated(source: keras.Model, temperature: float) -> list[np.ndarray]:
    """The variables of the model, those of its head divided by the temperature."""
    scaled = {id(variable) for variable in source.get_layer("head").variables}
    values = [(np.array(variable), id(variable) in scaled) for variable in source.variables]
    return [value / temperature if is_scaled else value for value, is_scaled in values]


class Guard(keras.callbacks.Callback):
    """Raises `Diverged` at the first batch after which the loss is no longer a number, or an epoch's figure.

    In a run it comes after `Validation`, and before what writes. `rollbacks` counts how often the run went back for it,
    each time to half the learning rate. `monitor` is the epoch's figure, which is not looked at where there is none.
    """

    def __init__(self, monitor: str = MONITOR) -> None:
        super().__init__()
        self.monitor, self.rollbacks = monitor, 0
        self._epoch = 0

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"rollbacks": self.rollbacks}

    def set_state(self, state: dict[str, Any]) -> None:
        """What a checkpoint kept."""
        self.rollbacks = state["rollbacks"]

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
        rate = learning_rate(self.model.optimizer)
        raise Diverged(f"{what}, learning rate {rate:.2g}; try --learning-rate {rate / 10:.1g} or --precision float32")


class Averaged(keras.callbacks.Callback):
    """At an epoch's end puts the averages of the weights in their place, until `back`, a callback that comes later.

    In between `Validation` judges them and `Best` keeps them. The averages are the optimizer's (its option `ema`).
    """

    def __init__(self) -> None:
        super().__init__()
        self.back = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: self._put_back())
        self._own: list[tuple[keras.Variable, np.ndarray]] = []

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Put the averages in."""
        for each in inner_optimizers(self.model.optimizer):
            pairs = zip(each._trainable_variables, each._model_variables_moving_average, strict=True)
            for variable, average in pairs:
                self._own.append((variable, np.array(variable)))
                variable.assign(average)

    def _put_back(self) -> None:
        for variable, value in self._own:
            variable.assign(value)
        self._own = []


class Plateau(keras.callbacks.Callback):
    """Lowers the learning rate to `factor` of it after `patience` epochs of a phase without a lower `monitor`.

    During the first `warmup_steps` batches of a phase it rises linearly from 0; a run's phases set `warmup_steps`. The
    optimizer, or each one inside of it, must have a number as its learning rate, and no schedule.
    """

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

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint keeps; the learning rate itself is the optimizer's."""
        return {name: getattr(self, name) for name in self._KEPT}

    def set_state(self, state: dict[str, Any]) -> None:
        """What a checkpoint kept."""
        for name in self._KEPT:
            setattr(self, name, state[name])

    _KEPT = ("_scale", "_lowest", "_waited", "_step")


class Deadline(keras.callbacks.Callback):
    """Stops the training, in the middle of an epoch if need be, so that the run is over `limit` seconds after it began.

    `reserve` is how many of these seconds measuring and writing will take. What was trained is validated, as after a
    whole epoch. `up` says that it has stopped the training.
    """

    def __init__(self, limit: float, rows: "EpochRows", validation: Validation):
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

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"up": self.up}

    def set_state(self, state: dict[str, Any]) -> None:
        """What a checkpoint kept."""
        self.up = state["up"]


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
