"""What of a run outlives its process: taken between two batches, put back by the one that goes on.

The weights, the optimizer, the metrics of a begun epoch, what the callbacks have noted, the random numbers of Python
and NumPy. Order and augmentation of the photos need no keeping: they follow from seed and epoch. So a resumed run
has the very weights and figures that it would have had without the interruption.
"""

import random
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kerastk.errors import Diverged, RunError
from kerastk.training.checkpoint import Checkpoints
from kerastk.training.signals import Signals

_STATE = {
    "data": str, "phase": int, "epoch": int, "step": int, "ended": bool, "cached": dict | None, "callbacks": dict,
    "random": list, "model": list, "optimizer": list, "metrics": list,
}  # fmt: skip


def check_state(state: dict[str, Any]) -> None:
    """Refuse, with a RunError, what is no state of a `Keeper`."""
    lacking = [name for name, kind in _STATE.items() if name not in state or not isinstance(state[name], kind)]
    arrays = [*state["model"], *state["optimizer"], *state["metrics"]] if not lacking else []
    if lacking or not all(isinstance(array, np.ndarray) for array in arrays):
        raise RunError(f"the checkpoint is not of such a run: {', '.join(lacking) or 'its arrays'} cannot be used.")


class Keeper:
    """Makes the checkpoints of a run, and puts back the `state` of the one that the run goes on from.

    `callbacks` go to each phase's fit; those with `get_state` and `set_state` are kept. `parts` is how many checkpoints
    an epoch has, `data` the hash of the manifest, `nothing` a label and an answer of no meaning, for a batch of one
    (the metrics take their shapes from them). `state` is None as soon as all of it is put back.
    """

    def __init__(
        self, checkpoints: Checkpoints, signals: Signals, model: keras.Model,
        callbacks: Sequence[keras.callbacks.Callback], *, parts: int, data: str,
        nothing: tuple[np.ndarray, np.ndarray],
        state: dict[str, Any] | None = None,
    ):  # fmt: skip
        self.signals, self.state = signals, state
        self.parts, self.nothing = parts, nothing
        self._checkpoints, self._model, self._data = checkpoints, model, data
        self._callbacks = list(callbacks)
        self._phase = 0

    def last(self) -> dict[str, Any] | None:
        """The state in the last checkpoint that is whole; None where there is none."""
        state = self._checkpoints.load()[0]
        if state is not None:
            check_state(state)
        return state

    def reaches(self, phase: int) -> bool:
        """Whether there is something left to do of a phase, by its number; it begins."""
        self._phase = phase
        return self.state is None or phase >= self.state["phase"]

    def callbacks_of(
        self, fitted: keras.Model, *, steps: int, last: int, cached: dict[str, Any] | None
    ) -> "PhaseCallbacks":
        """The callbacks of a phase that fits `fitted`, `steps` batches an epoch, up to epoch `last`.

        `cached` describes where its activations are kept.
        """
        each_batch = _Marks(self, fitted, steps=steps, last=last, cached=cached)
        callbacks = [*self._callbacks, each_batch]
        return PhaseCallbacks(callbacks, add_history=True, model=fitted, epochs=last, steps=steps)

    def keep(
        self, *, epoch: int, step: int = 0, ended: bool, fitted: keras.Model | None = None,
        cached: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Make a checkpoint: `epoch` epochs of the run are done, and `step` batches of the next.

        Raises:
            Diverged: a weight is no longer a number; nothing is written.
            RunError: a callback gives what cannot be kept.
            OSError: the disk is full.
        """
        synchronise = getattr(fitted, "jax_state_sync", None)
        if synchronise is not None:
            synchronise()
        variables = {
            "model": self._model.variables,
            "optimizer": [] if fitted is None else fitted.optimizer.variables,
            "metrics": fitted.metrics_variables if step else [],
        }
        arrays = {name: [np.array(variable) for variable in found] for name, found in variables.items()}
        if not all(np.isfinite(array).all() for found in arrays.values() for array in found if array.dtype.kind == "f"):
            raise Diverged(f"a weight is no longer a number after epoch {epoch}; try a lower --learning-rate")
        state = {
            "data": self._data, "phase": self._phase, "epoch": epoch, "step": step, "ended": ended, "cached": cached,
            "callbacks": {name: each.get_state() for name, each in self._keeping().items()},
            "random": [random.getstate(), np.random.get_state()], **arrays,
        }  # fmt: skip
        try:
            self._checkpoints.save(state)
        except TypeError as error:
            raise RunError(f"the state of a callback cannot be kept, plain values and arrays can: {error}") from None

    def note_of(self, name: str) -> dict[str, Any]:
        """What a callback, by its class, had noted in `state`. Raises RunError where it had not."""
        noted = self.state["callbacks"].get(name)
        if not isinstance(noted, dict):
            raise RunError(f"the checkpoint does not fit: there is nothing of {name} in it")
        return noted

    def put_back(self) -> None:
        """Weights and notes of a phase that had ended."""
        self.put_weights_back()
        self.put_notes_back()

    def put_weights_back(self) -> None:
        """The model's weights."""
        assign(self._model.variables, self.state["model"])

    def put_notes_back(self) -> None:
        """What the callbacks had noted, and the random numbers; with it everything is put back."""
        keeping, kept = self._keeping(), self.state["callbacks"]
        if keeping.keys() != kept.keys():
            raise RunError(f"the run was trained with the callbacks {', '.join(kept)}; got {', '.join(keeping)}")
        try:
            for name, each in keeping.items():
                each.set_state(kept[name])
            (version, inner, gauss), numpy_state = self.state["random"]
            random.setstate((version, tuple(inner), gauss))
            np.random.set_state(tuple(numpy_state))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise RunError(f"the checkpoint does not fit: {type(error).__name__} {error}") from None
        self.state = None

    def _keeping(self) -> dict[str, Any]:
        """The callbacks that have something to remember, by class; from the second of a class on with a number."""
        found: dict[str, Any] = {}
        for each in self._callbacks:
            if hasattr(each, "get_state") and hasattr(each, "set_state"):
                name, same = type(each).__name__, 1
                while (name if same == 1 else f"{name} {same}") in found:
                    same += 1
                found[name if same == 1 else f"{name} {same}"] = each
        return found


class PhaseCallbacks(keras.callbacks.CallbackList):
    """Callbacks of a phase that may take two fits: its beginning and its end are told once."""

    _begun = False
    _logs: dict | None = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        """The first fit of the phase begins it."""
        if not self._begun:
            super().on_train_begin(logs)
        self._begun = True

    def on_train_end(self, logs: dict | None = None) -> None:
        """There may be another fit."""
        self._logs = logs

    def end(self) -> None:
        """The phase is over."""
        super().on_train_end(self._logs)


class _Marks(keras.callbacks.Callback):
    """The last callback of a phase: puts back what a checkpoint kept, makes checkpoints, heeds signals."""

    def __init__(
        self, keeper: Keeper, fitted: keras.Model, *, steps: int, last: int, cached: dict[str, Any] | None
    ) -> None:
        super().__init__()
        self._keeper, self._fitted, self._cached = keeper, fitted, cached
        self._steps, self._last, self._epoch, self._done = steps, last, 0, 0
        self._marks = {steps * part // keeper.parts for part in range(1, keeper.parts)}

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Optimizer and callbacks go on where they were."""
        state = self._keeper.state
        if state is not None:
            assign(self._fitted.optimizer.variables, state["optimizer"])
            if not state["step"]:
                self._keeper.put_notes_back()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """In the middle of an epoch its metrics go on too; Keras has just set them to zero."""
        self._epoch, self._done = epoch, 0
        state = self._keeper.state
        if state is not None:
            self._done = state["step"]
            # Keras makes the metrics' variables at their first use.
            self._fitted.compute_metrics(None, *self._keeper.nothing)
            assign(self._fitted.metrics_variables, state["metrics"])
            self._keeper.put_notes_back()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """A checkpoint at the marks, and before the run stops."""
        self._done += 1
        # After an epoch's last batch comes its end.
        if self._done < self._steps and (self._done in self._marks or self._keeper.signals.told):
            self._keep(epoch=self._epoch, step=self._done, ended=False)
            self._keeper.signals.check()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """A checkpoint."""
        self._keep(epoch=epoch + 1, ended=self._fitted.stop_training or epoch + 1 == self._last)
        self._keeper.signals.check()

    def _keep(self, **place: Any) -> None:
        self._keeper.keep(**place, fitted=self._fitted, cached=self._cached)


def assign(variables: Sequence[keras.Variable], values: Sequence[np.ndarray]) -> None:
    """Values by position; names shift from process to process. Raises RunError where they do not fit."""
    shapes = [(tuple(variable.shape), keras.backend.standardize_dtype(variable.dtype)) for variable in variables]
    if shapes != [(value.shape, value.dtype.name) for value in values]:
        raise RunError("the checkpoint is of another network than the recipe's")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
