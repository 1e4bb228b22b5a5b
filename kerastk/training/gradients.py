"""The norms of the gradients, of all and of each stage, and where they vanish or explode.

The optimizer itself notes them, inside the compiled step, in a variable among its own: so they are those of the real
step on every backend, unscaled and not yet clipped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kerastk.networks.cuts import named_stages
from kerastk.training.tensorboard import Events

# A stage's gradient vanishes where it is smaller, a weight, than this share of the median stage's. In first steps of
# MobileNetV2, ResNet50, EfficientNetB0 and VGG16 no share was below 0.01.
VANISHING = 1e-4
# It explodes where its norm is larger; of those the largest was 600.
EXPLODING = 1e4


@dataclass(frozen=True)
class Noted:
    """What an optimizer notes at each step: `norms` (parts,) float32, one for each part that is trained.

    `weights` is how many weights a part has, `reach` its first and last layer.
    """

    names: list[str]
    reach: list[str]
    weights: np.ndarray
    norms: keras.Variable


def watch_gradients(
    optimizer: keras.optimizers.Optimizer, model: keras.Model, trained: Sequence[keras.Variable],
    stages: dict[str, list[str]] | None = None,
) -> None:  # fmt: skip
    """Let the optimizer, not built yet, note the norms of the gradients of `trained`, by the parts of `model`.

    `stages` are the names of the layers in each part; None takes the stages of a network for photos (`named_stages`).

    A wrapping optimizer would have its own iterations and learning rate, which others ask for; so the method is
    replaced. Inside of a LossScaleOptimizer the gradients are unscaled, and steps without finite ones are left out.
    """
    made = getattr(optimizer, "inner_optimizer", optimizer)
    if isinstance(model, keras.Sequential):
        # It is no graph by itself.
        model = keras.Model(model.inputs[0], model.outputs[0])
    place_of = {id(variable): place for place, variable in enumerate(trained)}
    layers = {layer.name: layer for layer in model.layers}
    places, names, reach = [], [], []
    for name, operations in (stages or named_stages(model)).items():
        learning = [each for each in operations if each in layers and layers[each].trainable_weights]
        if learning:
            places.append([place_of[id(weight)] for each in learning for weight in layers[each].trainable_weights])
            names.append(name)
            reach.append(learning[0] if len(learning) == 1 else f"{learning[0]} to {learning[-1]}")
    weights = np.array([sum(int(np.prod(trained[place].shape)) for place in part) for part in places])
    norms = made.add_variable((len(places),), dtype="float32", aggregation="mean", name="gradient_norms")
    apply = made.apply

    def noting(grads: list, trainable_variables: list | None = None) -> None:
        squares = [keras.ops.stack([_square(grads[place]) for place in part]) for part in places]
        found = keras.ops.sqrt(keras.ops.stack([keras.ops.sum(each) for each in squares]))
        # A checkpoint holds no infinite numbers; it is the weights that say when nothing is a number any more.
        largest = float(np.finfo(np.float32).max)
        norms.assign(keras.ops.nan_to_num(found, nan=largest, posinf=largest))
        apply(grads, trainable_variables)

    made.apply, made.noted = noting, Noted(names, reach, weights, norms)


def _square(gradient: Any) -> Any:
    return keras.ops.sum(keras.ops.square(keras.ops.cast(gradient, "float32")))


class GradientNorms(keras.callbacks.Callback):
    """Writes the norms that a watched optimizer notes as often as `events` writes the loss, behind which it comes.

    After an epoch it hands a line to `warn` for each stage in which the mean over the epoch vanishes or explodes, but
    once a run.
    """

    def __init__(self, events: Events, warn: Callable[[str], None]):
        super().__init__()
        self._events, self._warn = events, warn
        self._said: list[str] = []
        self._sums: list[float] = []
        self._count = 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Now and then write."""
        if not self._events.due:
            return
        noted = _noted(self.model)
        norms = np.array(noted.norms, np.float64)
        figures = {"all": float(np.sqrt(np.square(norms).sum())), **dict(zip(noted.names, norms.tolist(), strict=True))}
        self._events.writer.scalars(
            {f"gradient_norm/{name}": norm for name, norm in figures.items()}, self._events.step
        )
        before = self._sums or [0.0] * len(norms)
        self._sums = [sum(pair) for pair in zip(before, norms.tolist(), strict=True)]
        self._count += 1

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Judge the epoch's mean."""
        if not self._count:
            return
        for place, line in judged(_noted(self.model), np.array(self._sums) / self._count):
            if place not in self._said:
                self._said.append(place)
                self._warn(f"{line}, in epoch {epoch + 1}")
        self._sums, self._count = [], 0

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"said": self._said, "sums": self._sums, "count": self._count}

    def set_state(self, state: dict[str, Any]) -> None:
        """What a checkpoint kept."""
        self._said, self._sums, self._count = state["said"], state["sums"], state["count"]


def judged(noted: Noted, norms: np.ndarray) -> list[tuple[str, str]]:
    """What is wrong with norms (parts,): a name for each finding, and a line.

    By the root of the mean square over its weights a stage vanishes, against the median of all that are trained; by its
    norm it explodes.
    """
    sizes = norms / np.sqrt(noted.weights)
    usual = float(np.median(sizes))
    found = []
    for name, reach, norm, size in zip(noted.names, noted.reach, norms, sizes, strict=True):
        stage = f"{name} ({reach})"
        if size < VANISHING * usual:
            line = f"gradients vanish in {stage}: {size:.1e} a weight, beside {usual:.1e} in the median stage"
            found.append((f"{name} vanishes", line))
        if norm > EXPLODING:
            line = f"gradients explode in {stage}: their norm is {norm:.1e}, more than {EXPLODING:g}"
            found.append((f"{name} explodes", line))
    return found


def _noted(model: keras.Model) -> Noted:
    made = model.optimizer
    return getattr(made, "inner_optimizer", made).noted
