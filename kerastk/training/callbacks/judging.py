"""How good the model is after an epoch, and which weights are kept for it."""

import time

import keras
import numpy as np

from kerastk.datasets.pipeline import Rows, Vary
from kerastk.evaluation.metrics import cross_entropy, equal_classes, temperature
from kerastk.evaluation.scores import of_rows
from kerastk.training.callbacks.memory import Remembering
from kerastk.training.phases import inner_optimizers

# What photos are judged by.
MONITOR = "val_cross_entropy"


class Validation(keras.callbacks.Callback):
    """Adds a task's figures of the validation split to an epoch's logs (`figures`, their names with val_ in front).

    `monitor` is the one, the lower the better, by which the best model is chosen. `temperature` is what the logits
    should be divided by. `rows`, and `vary`, which the training batches pass through, are set before each phase;
    `seconds` is what the last look took.
    """

    monitor = ""

    def __init__(self) -> None:
        super().__init__()
        self.rows: Rows | None = None
        self.vary: Vary | None = None
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


class Kept(Remembering, keras.callbacks.Callback):
    """Keeps weights of `source`, the whole model (the one that is fitted may be a part of it).

    What is kept is the calibrated model: its head's weights are divided by the temperature that `validation` found.
    """

    remembered = ("epoch", "temperature", "_weights")

    def __init__(self, source: keras.Model, validation: Validation):
        super().__init__()
        self.source, self.validation = source, validation
        self.epoch: int | None = None
        self.temperature = 1.0
        self._weights: list[np.ndarray] = []

    def keep(self, epoch: int, temperature: float = 1.0) -> None:
        """Keep the weights as they are; `epoch` counts from 1, the probe is 0."""
        self.epoch, self.temperature = epoch, temperature
        scaled = {id(variable) for variable in self.source.get_layer("head").variables}
        values = [(np.array(variable), id(variable) in scaled) for variable in self.source.variables]
        self._weights = [value / temperature if is_scaled else value for value, is_scaled in values]

    def restore(self) -> None:
        """Put the kept weights into the source model."""
        for variable, value in zip(self.source.variables, self._weights, strict=True):
            variable.assign(value)


class Best(Kept):
    """Keeps the weights with the lowest validation figure over all phases, and stops a phase without progress.

    One object serves the whole run; `on_train_begin` starts the patience anew, but never forgets the best. Of a phase
    the first `start_from_epoch` epochs and a progress of no more than `min_delta` do not count for the patience. Where
    it is not `judging` it lets everything pass; it is set before each phase.
    """

    remembered = ("value", *Kept.remembered, "_phase_value", "_phase_epochs", "_waited")

    def __init__(
        self, source: keras.Model, validation: Validation, patience: int, *, min_delta: float = 0.0,
        start_from_epoch: int = 0,
    ):  # fmt: skip
        super().__init__(source, validation)
        self.patience, self.min_delta, self.start_from_epoch = patience, min_delta, start_from_epoch
        self.value = float("inf")
        self.judging = True
        self._phase_value = float("inf")
        self._phase_epochs, self._waited = 0, 0

    def on_train_begin(self, logs: dict | None = None) -> None:
        """A phase begins."""
        self._phase_value, self._phase_epochs, self._waited = float("inf"), 0, 0

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Compare, keep, count."""
        if not self.judging:
            return
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
            self.value = value
            self.keep(epoch, temperature)


class Last(Kept):
    """Keeps the weights of the last epoch that was judged; it stands beside `Best`."""

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Keep."""
        self.keep(epoch + 1, self.validation.temperature)


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
