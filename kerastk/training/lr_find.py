"""The learning-rate range test: how the loss answers to a rate that grows from batch to batch (arXiv:1506.01186)."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kerastk.errors import KerastkError

STEPS = 100
LOWEST, HIGHEST = 1e-7, 10.0
# The test ends where the smoothed loss is so many times its lowest.
_EXPLODED = 4.0
# Weight of the past in the smoothed loss.
_SMOOTHING = 0.95


@dataclass(frozen=True)
class RangeTest:
    """The curve of a range test, (steps,) float64 each, and the learning rate at which the smoothed loss falls most.

    `losses` are the batches' mean loss before the training and what has become of each batch's own; `smoothed` is their
    exponential mean, without its bias at the start.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    suggestion: float

    def rows(self) -> list[dict[str, str]]:
        """learning_rate, loss, smoothed: a row a step."""
        columns = zip(self.rates, self.losses, self.smoothed, strict=True)
        return [
            {"learning_rate": f"{rate:.6g}", "loss": f"{loss:.6g}", "smoothed": f"{mean:.6g}"}
            for rate, loss, mean in columns
        ]

    def picture(self) -> bytes:
        """The curve as a PNG file."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4.2), dpi=110, layout="constrained")
        axes = figure.add_subplot()
        axes.plot(self.rates, self.losses, color="0.8", linewidth=1, label="a batch")
        axes.plot(self.rates, self.smoothed, color="C0", linewidth=2, label="smoothed")
        axes.axvline(self.suggestion, color="C1", linestyle="--", label=f"steepest descent: {self.suggestion:.2g}")
        axes.set_xscale("log")
        low, first = self.smoothed.min(), self.smoothed[0]
        margin = 0.3 * max(first - low, 0.1 * abs(first), 1e-6)
        axes.set_ylim(low - margin, max(first, low) + 2 * margin)
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        file = io.BytesIO()
        figure.savefig(file, format="png")
        return file.getvalue()


def suggest(rates: Sequence[float], losses: Sequence[float]) -> RangeTest:
    """The range test of a loss (steps,) at growing rates.

    Raises:
        KerastkError: the loss falls at no rate.
    """
    rates, losses = np.asarray(rates, np.float64), np.asarray(losses, np.float64)
    smoothed, mean = np.empty_like(losses), 0.0
    for step, loss in enumerate(losses):
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        smoothed[step] = mean / (1 - _SMOOTHING ** (step + 1))
    # The first steps are noise, and behind its lowest the loss only rises.
    last = int(smoothed.argmin()) + 1
    slope = np.gradient(smoothed, np.log(rates)) if len(rates) > 1 else np.zeros(1)
    first = min(len(losses) // 10, last - 1)
    steepest = first + int(slope[first:last].argmin())
    if not slope[steepest] < 0:
        raise KerastkError(
            f"the loss falls at no learning rate from {rates[0]:.0e} to {rates[-1]:.2g}; set --learning-rate yourself."
        )
    return RangeTest(rates, losses, smoothed, float(rates[steepest]))


def range_test(
    fitted: keras.Model,
    batches: Callable[[int], object],
    optimizer: Callable[[Callable[[float], object]], keras.optimizers.Optimizer],
    loss: keras.losses.Loss,
) -> RangeTest:
    """Train `fitted` on at most `STEPS` batches at growing rates, and put everything back as it was.

    `batches(steps)` gives so many, the same each time; `optimizer(curve)` an optimizer whose schedule at a share of the
    learning rate is `curve(share)`, such as `lambda curve: keras.optimizers.Adam(curve(1.0))`. The weights, statistics
    and random states of the model are afterwards those of before.

    What counts is by how much the training has changed the loss of a batch, not how hard the batch is: all batches pass
    at a rate of 0 first, with the same dropout. Where photos are mixed, one batch is so much harder than another that
    the descent would drown in it.

    Raises:
        KerastkError: the loss falls at no rate, or is no number from the start.
    """
    before = [(variable, np.array(variable)) for variable in fitted.variables]

    def restore() -> None:
        for variable, value in before:
            variable.assign(value)

    def recorded(recorder: _Recorder) -> np.ndarray:
        fitted.fit(batches(STEPS), steps_per_epoch=STEPS, epochs=1, callbacks=[recorder], verbose=0, shuffle=False)
        restore()
        return np.array(recorder.losses)

    fitted.compile(optimizer=optimizer(lambda share: _Growing(share)), loss=loss)
    still = recorded(_Recorder(stops=False))
    moving = recorded(_Recorder(stops=True))
    if len(still) < STEPS or len(moving) < 2:
        raise KerastkError("the loss is no number from the first batch on; look at the data with `kerastk check`.")
    rates = LOWEST * (HIGHEST / LOWEST) ** (np.arange(len(moving)) / (STEPS - 1))
    return suggest(rates, still.mean() + moving - still[: len(moving)])


class _Growing(keras.optimizers.schedules.LearningRateSchedule):
    """`STEPS` steps at 0, and as many from `share` of the lowest rate to `share` of the highest."""

    def __init__(self, share: float):
        self.share = share

    def __call__(self, step: Any) -> keras.KerasTensor:
        """The learning rate at a step."""
        step = keras.ops.cast(step, "float32") - STEPS
        rate = self.share * LOWEST * (HIGHEST / LOWEST) ** (keras.ops.maximum(step, 0.0) / (STEPS - 1))
        return keras.ops.where(step < 0, 0.0, rate)

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        return {"share": self.share}


class _Recorder(keras.callbacks.Callback):
    """The loss of each batch; with `stops` it ends where the loss explodes, else only where it is no number."""

    def __init__(self, *, stops: bool) -> None:
        super().__init__()
        self._stops = stops
        self.losses: list[float] = []
        self._mean, self._lowest = 0.0, np.inf

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Keras gives the mean over all batches since the metrics began, which they do here after each."""
        loss = float(logs["loss"])
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        self.model.reset_metrics()
        if not np.isfinite(loss):
            self.model.stop_training = True
            return
        self.losses.append(loss)
        self._mean = _SMOOTHING * self._mean + (1 - _SMOOTHING) * loss
        smoothed = self._mean / (1 - _SMOOTHING ** len(self.losses))
        self._lowest = min(self._lowest, smoothed)
        self.model.stop_training = (
            self._stops and len(self.losses) > STEPS // 10 and smoothed > _EXPLODED * self._lowest
        )
